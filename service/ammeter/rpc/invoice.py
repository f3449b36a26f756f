"""InvoiceService: messages to values and back."""

from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from typing import Any

from ammeter.domain.invoice import Invoice, InvoiceLine, Kind, Party, State
from ammeter.domain.lifecycle import Action, amount_due, next_actions
from ammeter.domain.money import add, currency_exponent, round_money
from ammeter.domain.pricing import Detail
from ammeter.domain.tax import Tax
from ammeter.domain.usage_groups import UsageGroups
from ammeter.errors import NotFoundError, invalid
from ammeter.rpc.change_messages import read_change
from ammeter.rpc.convert import from_timestamp, to_decimal_text, to_timestamp
from ammeter.rpc.document import document, invoice_json, wanted_format
from ammeter.rpc.method import ADMIN, READ, Caller, Method
from ammeter.rpc.operation import to_message as operation_message
from ammeter.rpc.paging import bad_token, decode_token, encode_token, fingerprint, page_size
from ammeter.store import invoices
from ammeter.store.db import Tx
from ammeter.usecases.bill import find_customer, issue_invoice, void_invoice
from ammeter.usecases.billing import Billing
from ammeter.usecases.collect import mark_paid, mark_uncollectible
from ammeter.usecases.ids import new_id
from ammeter.usecases.operations import Operations, error_of, start_generation
from ammeter.usecases.preview import preview_invoice
from ammeter.usecases.render import Format, read_invoice, render_invoice
from ammeter.v1 import invoice_pb2 as pb

_STATES = {
    State.DRAFT: pb.Invoice.STATE_DRAFT,
    State.ISSUED: pb.Invoice.STATE_ISSUED,
    State.VOID: pb.Invoice.STATE_VOID,
    State.PAID: pb.Invoice.STATE_PAID,
    State.UNCOLLECTIBLE: pb.Invoice.STATE_UNCOLLECTIBLE,
}
_ACTIONS = {
    Action.ISSUE: pb.Invoice.ACTION_ISSUE,
    Action.VOID: pb.Invoice.ACTION_VOID,
    Action.MARK_PAID: pb.Invoice.ACTION_MARK_PAID,
    Action.MARK_UNCOLLECTIBLE: pb.Invoice.ACTION_MARK_UNCOLLECTIBLE,
    Action.CREDIT: pb.Invoice.ACTION_CREDIT,
}
_STATE_OF = {number: state for state, number in _STATES.items()}
_KINDS = {
    Kind.FLAT: pb.InvoiceLine.KIND_FLAT,
    Kind.USAGE: pb.InvoiceLine.KIND_USAGE,
    Kind.LATE_USAGE: pb.InvoiceLine.KIND_LATE_USAGE,
    Kind.MINIMUM: pb.InvoiceLine.KIND_MINIMUM,
    Kind.COUPON: pb.InvoiceLine.KIND_COUPON,
    Kind.SLICE: pb.InvoiceLine.KIND_SLICE,
}


class InvoiceRpc:
    """The service's methods."""

    service = "ammeter.v1.InvoiceService"

    def __init__(self, run: Billing, operations: Operations) -> None:
        """`operations` are run elsewhere, and watched from here."""
        self._db = run.db
        self._run = run
        self._operations = operations

    def methods(self) -> list[Method]:
        """Every RPC of the service."""
        return [
            Method.plain("PreviewInvoice", READ, self.preview),
            Method.write("StartInvoiceGeneration", ADMIN, self.start_generation),
            Method.stream("GenerateInvoices", ADMIN, self.generate),
            Method.plain("IssueInvoice", ADMIN, self.issue),
            Method.write("VoidInvoice", ADMIN, self.void),
            Method.write("MarkInvoicePaid", ADMIN, self.mark_paid),
            Method.write("MarkInvoiceUncollectible", ADMIN, self.mark_uncollectible),
            Method.plain("RenderInvoice", READ, self.render),
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
            self._run,
            caller.tenant_id,
            request.customer_key,
            request.subscription_id,
            now,
            read_change(request.change) if request.HasField("change") else None,
        )
        return pb.PreviewInvoiceResponse(invoice=to_message(invoice))

    def generate(
        self, caller: Caller, request: pb.GenerateInvoicesRequest, now: datetime
    ) -> Iterator[pb.GenerateInvoicesResponse]:
        """Begin an operation and watch it: one response for each invoice, and a last one."""
        operation_id = new_id("op", now)
        with self._operations.watch(operation_id) as heard:
            with self._db.tenant(caller.tenant_id) as tx:
                start_generation(tx, operation_id, request.customer_key, issue=request.issue, now=now)
            self._operations.wake()
            for made in heard:
                error = error_of(made.operation)
                if error is not None:
                    raise error
                yield pb.GenerateInvoicesResponse(
                    invoice=to_message(made.invoice) if made.invoice else None,
                    done_count=made.operation.done_count,
                    total_count=made.operation.total_count,
                    invoice_count=made.operation.invoice_count,
                    operation_id=operation_id,
                )

    def start_generation(
        self, tx: Tx, request: pb.StartInvoiceGenerationRequest, now: datetime
    ) -> pb.StartInvoiceGenerationResponse:
        """Begin an operation."""
        started = start_generation(tx, new_id("op", now), request.customer_key, issue=request.issue, now=now)
        tx.after_commit.append(self._operations.wake)
        return pb.StartInvoiceGenerationResponse(operation=operation_message(started))

    def issue(
        self, caller: Caller, request: pb.IssueInvoiceRequest, now: datetime
    ) -> pb.IssueInvoiceResponse:
        """Freeze and number a draft."""
        invoice = issue_invoice(self._run, caller.tenant_id, request.invoice_id, now)
        return pb.IssueInvoiceResponse(invoice=to_message(invoice))

    def void(self, tx: Tx, request: pb.VoidInvoiceRequest, now: datetime) -> pb.VoidInvoiceResponse:
        """Void a draft or an issued invoice."""
        return pb.VoidInvoiceResponse(invoice=to_message(void_invoice(tx, request.invoice_id, now)))

    def mark_paid(
        self, tx: Tx, request: pb.MarkInvoicePaidRequest, now: datetime
    ) -> pb.MarkInvoicePaidResponse:
        """Say that an invoice was paid."""
        time = from_timestamp(request.paid_time, "paid_time", present=request.HasField("paid_time"))
        invoice = mark_paid(tx, request.invoice_id, time, request.payment_reference, now)
        return pb.MarkInvoicePaidResponse(invoice=to_message(invoice))

    def mark_uncollectible(
        self, tx: Tx, request: pb.MarkInvoiceUncollectibleRequest, now: datetime
    ) -> pb.MarkInvoiceUncollectibleResponse:
        """Write an invoice off."""
        invoice = mark_uncollectible(tx, request.invoice_id, now)
        return pb.MarkInvoiceUncollectibleResponse(invoice=to_message(invoice))

    def render(
        self, caller: Caller, request: pb.RenderInvoiceRequest, _now: datetime
    ) -> pb.RenderInvoiceResponse:
        """Make a document; the connection is not held meanwhile."""
        wanted = wanted_format(request)
        with self._db.tenant(caller.tenant_id, snapshot=True) as tx:
            sheet = read_invoice(tx, request.invoice_id)
        invoice = sheet.invoice
        if wanted is Format.JSON:
            usage = [_usage(line_id, groups) for line_id, groups in sheet.usage]
            content = invoice_json(to_message(invoice), usage)
        else:
            content = render_invoice(sheet, wanted, request.locale)
        made = document("invoice", invoice.number_text, invoice.invoice_id, wanted, content)
        return pb.RenderInvoiceResponse(document=made)

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
        raise invalid("state", f"is no state of an invoice: {', '.join(pb.Invoice.State.keys()[1:])}")
    return _STATE_OF[request.state]


def to_message(invoice: Invoice) -> pb.Invoice:
    """Write an invoice; money has the currency's digits, quantities no more than they need."""
    exponent = currency_exponent(invoice.currency)
    return pb.Invoice(
        invoice_id=invoice.invoice_id,
        number=invoice.number or 0,
        state=_STATES[invoice.state],
        customer_key=invoice.customer_key,
        subscription_id=invoice.subscription_id,
        plan_key=invoice.plan_key,
        plan_version=invoice.plan_version,
        currency=invoice.currency,
        period_start_time=to_timestamp(invoice.period_start_time),
        period_end_time=to_timestamp(invoice.period_end_time),
        lines=[_line(line) for line in invoice.lines],
        total=money(invoice.total),
        create_time=to_timestamp(invoice.create_time),
        issue_time=to_timestamp(invoice.issue_time),
        void_time=to_timestamp(invoice.void_time),
        position=invoice.position,
        next_actions=[_ACTIONS[action] for action in next_actions(invoice)],
        number_text=invoice.number_text,
        subtotal=money(invoice.subtotal),
        taxes=[tax_message(tax) for tax in invoice.taxes],
        tax_total=money(round_money(add(tax.amount for tax in invoice.taxes), exponent)),
        credited_total=money(round_money(invoice.credited_total, exponent)),
        amount_due=money(round_money(amount_due(invoice), exponent)),
        customer=_party(invoice.terms.customer),
        supplier=_party(invoice.terms.supplier),
        memo=invoice.terms.memo,
        tax_note=invoice.terms.tax_note,
        due_time=to_timestamp(invoice.due_time),
        paid_time=to_timestamp(invoice.paid_time),
        payment_reference=invoice.payment_reference,
        uncollectible_time=to_timestamp(invoice.uncollectible_time),
        automatic_issue_time=to_timestamp(invoice.automatic_issue_time),
        replaces_invoice_id=invoice.replaces_invoice_id,
        prepaid=[
            pb.InvoicePrepaid(credit_lot_id=one.credit_lot_id, line_id=one.line_id, amount=money(one.amount))
            for one in invoice.prepaid
        ],
        prepaid_total=money(round_money(invoice.prepaid_total, exponent)),
        unpriced_models=invoice.unpriced_models,
    )


def _usage(line_id: str, groups: UsageGroups) -> dict[str, Any]:
    rows = [
        {"values": list(values), "quantity": to_decimal_text(quantity)} for values, quantity in groups.rows
    ]
    return {
        "line_id": line_id,
        "names": list(groups.names),
        "rows": rows,
        "left_out_count": groups.left_out_count,
    }


def _party(party: Party) -> pb.InvoiceParty:
    return pb.InvoiceParty(**party._asdict())


def tax_message(tax: Tax) -> pb.InvoiceTax:
    """Write a tax of an invoice or a credit note."""
    return pb.InvoiceTax(
        tax_rate_key=tax.tax_rate_key,
        name=tax.name,
        percentage=to_decimal_text(tax.percentage),
        inclusive=tax.inclusive,
        note=tax.note,
        covered_amount=money(tax.covered_amount),
        amount=money(tax.amount),
        line_ids=tax.line_ids,
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
        unit_price=money(line.unit_price) if line.unit_price is not None else "",
        amount=money(line.amount),
        period_start_time=to_timestamp(line.period_start_time),
        period_end_time=to_timestamp(line.period_end_time),
        position=line.position,
        covered_seconds=line.covered_seconds,
        period_seconds=line.period_seconds,
        total_quantity=to_decimal_text(line.total_quantity) if late else "",
        billed_amount=money(line.billed_amount) if late else "",
        details=[_detail(detail) for detail in line.details],
        unpriced_models=line.unpriced_models,
        coupon_key=line.coupon_key,
        attached_coupon_id=line.attached_coupon_id,
        price_override_id=line.price_override_id,
        plan_key=line.plan_key,
        plan_version=line.plan_version,
        price_list_key=line.price_list_key,
    )


def _detail(detail: Detail) -> pb.InvoiceLineDetail:
    return pb.InvoiceLineDetail(
        description=detail.description,
        quantity="" if detail.quantity is None else to_decimal_text(detail.quantity),
        unit_price="" if detail.unit_price is None else to_decimal_text(detail.unit_price),
        amount=money(detail.amount),
        price_effective_time=to_timestamp(detail.price_time),
    )


def money(amount: Decimal) -> str:
    """Write money with the digits it has."""
    return f"{amount:f}"
