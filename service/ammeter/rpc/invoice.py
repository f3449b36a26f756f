"""InvoiceService: messages to values and back."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from decimal import Decimal

from ammeter.domain.invoice import Invoice, InvoiceLine, Kind, State
from ammeter.domain.pricing import Detail
from ammeter.errors import NotFoundError, invalid
from ammeter.rpc.convert import to_decimal_text, to_timestamp
from ammeter.rpc.method import ADMIN, READ, Caller, Method
from ammeter.rpc.paging import bad_token, decode_token, encode_token, fingerprint, page_size
from ammeter.store import invoices
from ammeter.store.db import Database, Tx
from ammeter.usecases.bill import find_customer, generate_invoices, issue_invoice, void_invoice
from ammeter.usecases.engine import Engine
from ammeter.usecases.measure import engine_billing
from ammeter.usecases.preview import preview_invoice
from ammeter.v1 import invoice_pb2 as pb

_STATES = {
    State.DRAFT: pb.Invoice.STATE_DRAFT,
    State.ISSUED: pb.Invoice.STATE_ISSUED,
    State.VOID: pb.Invoice.STATE_VOID,
}
_STATE_OF = {number: state for state, number in _STATES.items()}
_KINDS = {
    Kind.FLAT: pb.InvoiceLine.KIND_FLAT,
    Kind.USAGE: pb.InvoiceLine.KIND_USAGE,
    Kind.LATE_USAGE: pb.InvoiceLine.KIND_LATE_USAGE,
    Kind.MINIMUM: pb.InvoiceLine.KIND_MINIMUM,
}


class InvoiceRpc:
    """The service's methods."""

    service = "ammeter.v1.InvoiceService"

    def __init__(self, db: Database, engine: Engine, horizon: timedelta) -> None:
        """`horizon` is how old an event may be when it is accepted."""
        self._db = db
        self._run = engine_billing(db, engine, horizon)

    def methods(self) -> list[Method]:
        """Every RPC of the service."""
        return [
            Method.plain("PreviewInvoice", READ, self.preview),
            Method.stream("GenerateInvoices", ADMIN, self.generate),
            Method.plain("IssueInvoice", ADMIN, self.issue),
            Method.write("VoidInvoice", ADMIN, self.void),
            Method.read("GetInvoice", READ, self.get),
            Method.read("ListInvoices", READ, self.list),
        ]

    def preview(
        self, caller: Caller, request: pb.PreviewInvoiceRequest, now: datetime
    ) -> pb.PreviewInvoiceResponse:
        """Compute an invoice, write nothing."""
        if not request.customer_key:
            raise invalid("customer_key", "is needed: say whose invoice")
        invoice = preview_invoice(
            self._run, caller.tenant_id, request.customer_key, request.subscription_id, now
        )
        return pb.PreviewInvoiceResponse(invoice=to_message(invoice))

    def generate(
        self, caller: Caller, request: pb.GenerateInvoicesRequest, now: datetime
    ) -> Iterator[pb.GenerateInvoicesResponse]:
        """Make invoices, one response each, and a last one."""
        steps = generate_invoices(
            self._run, caller.tenant_id, request.customer_key, issue=request.issue, now=now
        )
        for step in steps:
            yield pb.GenerateInvoicesResponse(
                invoice=to_message(step.invoice) if step.invoice else None,
                done_count=step.done_count,
                total_count=step.total_count,
                invoice_count=step.invoice_count,
            )

    def issue(
        self, caller: Caller, request: pb.IssueInvoiceRequest, now: datetime
    ) -> pb.IssueInvoiceResponse:
        """Freeze and number a draft."""
        invoice = issue_invoice(self._run, caller.tenant_id, request.invoice_id, now)
        return pb.IssueInvoiceResponse(invoice=to_message(invoice))

    def void(self, tx: Tx, request: pb.VoidInvoiceRequest, now: datetime) -> pb.VoidInvoiceResponse:
        """Void a draft or an issued invoice."""
        return pb.VoidInvoiceResponse(invoice=to_message(void_invoice(tx, request.invoice_id, now)))

    def get(self, tx: Tx, request: pb.GetInvoiceRequest, _now: datetime) -> pb.GetInvoiceResponse:
        """Answer one invoice with its lines."""
        return pb.GetInvoiceResponse(invoice=to_message(invoices.get_invoice(tx, request.invoice_id)))

    def list(self, tx: Tx, request: pb.ListInvoicesRequest, _now: datetime) -> pb.ListInvoicesResponse:
        """Answer a page of invoices, newest first, without lines."""
        query = fingerprint(request)
        token = decode_token(request.page_token, query)
        size = page_size(request.page_size)
        customer_id = find_customer(tx, request.customer_key) if request.customer_key else None
        after_id = str(token[0]) if token else ""
        try:
            found = invoices.list_invoices(tx, customer_id, _wanted_state(request), after_id, size + 1)
        except NotFoundError as error:  # where the page would start
            raise bad_token() from error
        more = encode_token(query, (found[size - 1].invoice_id,)) if len(found) > size else ""
        return pb.ListInvoicesResponse(
            invoices=[to_message(invoice) for invoice in found[:size]], next_page_token=more
        )


def _wanted_state(request: pb.ListInvoicesRequest) -> State | None:
    if request.state == pb.Invoice.STATE_UNSPECIFIED:
        return None
    if request.state not in _STATE_OF:
        raise invalid("state", "is no state of an invoice: STATE_DRAFT, STATE_ISSUED or STATE_VOID")
    return _STATE_OF[request.state]


def to_message(invoice: Invoice) -> pb.Invoice:
    """Write an invoice; money has the currency's digits, quantities no more than they need."""
    return pb.Invoice(
        invoice_id=invoice.invoice_id,
        number=invoice.number or 0,
        state=_STATES[invoice.state],
        customer_key=invoice.customer_key,
        subscription_id=invoice.subscription_id,
        plan_key=invoice.plan_key,
        currency=invoice.currency,
        period_start_time=to_timestamp(invoice.period_start_time),
        period_end_time=to_timestamp(invoice.period_end_time),
        lines=[_line(line) for line in invoice.lines],
        total=_money(invoice.total),
        create_time=to_timestamp(invoice.create_time),
        issue_time=to_timestamp(invoice.issue_time),
        void_time=to_timestamp(invoice.void_time),
        position=invoice.position,
    )


def _line(line: InvoiceLine) -> pb.InvoiceLine:
    # A period's own line shows these two only if the period was billed before, by an invoice now void.
    late = line.kind is Kind.LATE_USAGE or line.quantity != line.total_quantity or bool(line.billed_amount)
    return pb.InvoiceLine(
        line_id=line.line_id,
        kind=_KINDS[line.kind],
        rate_card_key=line.rate_card_key,
        feature_key=line.feature_key,
        description=line.description,
        quantity=to_decimal_text(line.quantity),
        unit_price=_money(line.unit_price) if line.unit_price is not None else "",
        amount=_money(line.amount),
        period_start_time=to_timestamp(line.period_start_time),
        period_end_time=to_timestamp(line.period_end_time),
        position=line.position,
        covered_seconds=line.covered_seconds,
        period_seconds=line.period_seconds,
        total_quantity=to_decimal_text(line.total_quantity) if late else "",
        billed_amount=_money(line.billed_amount) if late else "",
        details=[_detail(detail) for detail in line.details],
    )


def _detail(detail: Detail) -> pb.InvoiceLineDetail:
    return pb.InvoiceLineDetail(
        description=detail.description,
        quantity="" if detail.quantity is None else to_decimal_text(detail.quantity),
        unit_price="" if detail.unit_price is None else to_decimal_text(detail.unit_price),
        amount=_money(detail.amount),
    )


def _money(amount: Decimal) -> str:
    return f"{amount:f}"
