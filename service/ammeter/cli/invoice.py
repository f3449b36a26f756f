"""Verbs on invoices."""

import json
from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import Annotated

import typer
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Group, RenderableType
from rich.progress import Progress

from ammeter.cli import documents, operation, root
from ammeter.cli.session import Session, console, list_all, messages, plain, session_of
from ammeter.cli.times import FORMS, parse_time, show_time
from ammeter.cli.view import fields, table, thousands, word
from ammeter.client import new_request_id
from ammeter.v1 import invoice_pb2 as pb
from ammeter.v1 import subscription_pb2

group = root.group("invoice", "Draft, issued, paid: what was priced and why.")

InvoiceId = Annotated[str, typer.Argument(metavar="INVOICE", help='Its id, "inv_...".')]


class State(StrEnum):
    """The words of ammeter.v1.Invoice.State."""

    DRAFT = "draft"
    ISSUED = "issued"
    VOID = "void"
    PAID = "paid"
    UNCOLLECTIBLE = "uncollectible"


@group.command("preview", epilog=root.EPILOG)
def preview(
    ctx: typer.Context,
    customer_key: Annotated[str, typer.Argument(metavar="CUSTOMER")],
    *,
    subscription: Annotated[str, typer.Option(help="Needed if the customer has several.")] = "",
    plan: Annotated[str, typer.Option(help="As if the subscription changed to this plan now.")] = "",
    quantity: Annotated[int | None, typer.Option(help="As if it had so many seats from now on.")] = None,
) -> None:
    """Compute the current period's invoice as if it ended now. Writes nothing."""
    session = session_of(ctx)
    request = pb.PreviewInvoiceRequest(customer_key=customer_key, subscription_id=subscription)
    if plan or quantity is not None:
        request.change.CopyFrom(subscription_pb2.PlannedChange(plan_key=plan, quantity=quantity))
    _show(session, session.client.invoices.PreviewInvoice(request).invoice)


@group.command("generate", epilog=root.EPILOG)
def generate(
    ctx: typer.Context,
    *,
    customer: Annotated[str, typer.Option(help="Only this customer's.")] = "",
    issue: Annotated[bool, typer.Option("--issue", help="Issue each at once.")] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Do not wait: see `operation get`.")] = False,
) -> None:
    """Make drafts for every period that has ended and is not invoiced. Safe to repeat.

    It is an operation of the server: it goes on if you do not wait.
    """
    session = session_of(ctx)
    if detach:
        started = pb.StartInvoiceGenerationRequest(
            customer_key=customer, issue=issue, request_id=new_request_id()
        )
        operation.show(session, session.client.invoices.StartInvoiceGeneration(started).operation)
        return
    answers = session.client.invoices.GenerateInvoices(
        pb.GenerateInvoicesRequest(customer_key=customer, issue=issue)
    )
    made = []
    screen = messages()
    with Progress(console=screen, transient=True, disable=not screen.is_terminal) as progress:
        bar = progress.add_task("invoices", total=None)
        for answer in answers:
            progress.update(bar, completed=answer.done_count, total=answer.total_count or None)
            if session.json:
                typer.echo(json.dumps(plain(answer), ensure_ascii=False))
            elif answer.HasField("invoice"):
                made.append(answer.invoice)
    if not session.json:
        console().print(
            _overview(made) if made else "nothing to invoice: every period that has ended is billed"
        )


@group.command("issue", epilog=root.EPILOG)
def issue_(ctx: typer.Context, invoice_id: InvoiceId) -> None:
    """Freeze a draft and give it the next number."""
    session = session_of(ctx)
    _show(
        session, session.client.invoices.IssueInvoice(pb.IssueInvoiceRequest(invoice_id=invoice_id)).invoice
    )


@group.command("void", epilog=root.EPILOG)
def void(ctx: typer.Context, invoice_id: InvoiceId) -> None:
    """Void a draft or issued invoice; what it billed is billed anew by the next run."""
    session = session_of(ctx)
    _show(session, session.client.invoices.VoidInvoice(pb.VoidInvoiceRequest(invoice_id=invoice_id)).invoice)


@group.command("pay", epilog=root.EPILOG)
def pay(
    ctx: typer.Context,
    invoice_id: InvoiceId,
    *,
    reference: Annotated[str, typer.Option(help="The payment's name elsewhere.")] = "",
    time: Annotated[
        Timestamp | None,
        typer.Option("--at", parser=parse_time, metavar="TIME", help=f"When the money came: {FORMS}."),
    ] = None,
) -> None:
    """Say that an issued invoice was paid."""
    session = session_of(ctx)
    request = pb.MarkInvoicePaidRequest(invoice_id=invoice_id, payment_reference=reference, paid_time=time)
    _show(session, session.client.invoices.MarkInvoicePaid(request).invoice)


@group.command("write-off", epilog=root.EPILOG)
def write_off(ctx: typer.Context, invoice_id: InvoiceId) -> None:
    """Mark an issued invoice uncollectible; it can still be paid."""
    session = session_of(ctx)
    request = pb.MarkInvoiceUncollectibleRequest(invoice_id=invoice_id)
    _show(session, session.client.invoices.MarkInvoiceUncollectible(request).invoice)


@group.command("get", epilog=root.EPILOG)
def get(ctx: typer.Context, invoice_id: InvoiceId) -> None:
    """Show one invoice with its lines."""
    session = session_of(ctx)
    _show(session, session.client.invoices.GetInvoice(pb.GetInvoiceRequest(invoice_id=invoice_id)).invoice)


@group.command("render", epilog=root.EPILOG)
def render(
    ctx: typer.Context,
    invoice_id: InvoiceId,
    *,
    form: documents.Form = documents.Format.PDF,
    locale: documents.Locale = "",
    output: documents.Output = None,
) -> None:
    """Write an invoice to a file: PDF, HTML, CSV or JSON."""
    session = session_of(ctx)
    request = pb.RenderInvoiceRequest(invoice_id=invoice_id, format=form.number, locale=locale)
    documents.write(session, session.client.invoices.RenderInvoice(request).document, output)


@group.command("list", epilog=root.EPILOG)
def list_(
    ctx: typer.Context,
    *,
    customer: Annotated[str, typer.Option(help="Only this customer's.")] = "",
    state: Annotated[State | None, typer.Option(help="Only in this state.")] = None,
    limit: int = 100,
) -> None:
    """List invoices, newest first."""
    session = session_of(ctx)
    wanted = pb.Invoice.State.Value(f"STATE_{state.name}") if state else pb.Invoice.STATE_UNSPECIFIED
    request = pb.ListInvoicesRequest(customer_key=customer, state=wanted, page_size=min(limit, 1000))
    answer = list_all(session.client.invoices.ListInvoices, request, "invoices", limit)
    session.show(answer, lambda: _overview(answer.invoices))


def _show(session: Session, invoice: pb.Invoice) -> None:
    session.show(invoice, lambda: card(invoice))


def _overview(invoices: Iterable[pb.Invoice]) -> RenderableType:
    rows = (
        (
            each.invoice_id,
            each.number_text,
            _state(each),
            each.customer_key,
            each.plan_key,
            _period(each),
            _total(each),
        )
        for each in invoices
    )
    return table(["invoice", "number", "state", "customer", "plan", "period", "total"], rows)


def card(invoice: pb.Invoice) -> RenderableType:
    """Draw an invoice and its lines."""
    head = fields(
        {
            "invoice": invoice.invoice_id or "preview",
            "number": invoice.number_text,
            "state": _state(invoice) if invoice.invoice_id else "",
            "supplier": invoice.supplier.name,
            "customer": invoice.customer_key,
            "plan": f"{invoice.plan_key} version {invoice.plan_version}",
            "period": _period(invoice),
            "due": show_time(invoice.due_time) if invoice.HasField("due_time") else "",
            "payment": invoice.payment_reference,
            "replaces": invoice.replaces_invoice_id,
            "unpriced": list(invoice.unpriced_models),
            "next": [word(pb.Invoice.Action.Name(each), "ACTION") for each in invoice.next_actions],
            "memo": invoice.memo,
            "tax": invoice.tax_note,
            "position": invoice.position or "",
        }
    )
    lines = table(
        ["line", "quantity", "unit price", "amount"],
        (row for each in invoice.lines for row in _rows(invoice, each)),
    )
    lines.add_section()
    for tax in invoice.taxes:
        kind = " (included)" if tax.inclusive else ""
        lines.add_row(f"{tax.name}{kind}", f"{tax.percentage} %", "", thousands(tax.amount))
    lines.add_row("total", "", "", _total(invoice), style="bold")
    if invoice.prepaid:
        lines.add_row("prepaid credits", "", "", thousands(f"-{invoice.prepaid_total}"))
    if invoice.amount_due != invoice.total and (invoice.invoice_id or invoice.prepaid):
        lines.add_row("due", "", "", f"{thousands(invoice.amount_due)} {invoice.currency}")
    return Group(head, lines)


def _rows(invoice: pb.Invoice, line: pb.InvoiceLine) -> Iterator[tuple[str, str, str, str]]:
    """Draw a line, and how its amount arose if that takes more than one step."""
    yield _describe(invoice, line), thousands(line.quantity), line.unit_price, thousands(line.amount)
    if line.unpriced_models:
        models = ", ".join(line.unpriced_models)
        yield f"  UNPRICED: {models} (import prices, then issue)", "", "", ""
    if line.price_list_key:
        yield f"  by price list {line.price_list_key}", "", "", ""
    for each in line.details if len(line.details) > 1 else ():
        yield f"  {each.description}", thousands(each.quantity), each.unit_price, thousands(each.amount)


def _describe(invoice: pb.Invoice, line: pb.InvoiceLine) -> str:
    """Say what a line is for, and whose price it is where that is not the plan's in the invoice's head."""
    text = line.description or line.rate_card_key
    if line.plan_key and (line.plan_key, line.plan_version) != (invoice.plan_key, invoice.plan_version):
        text += f" ({line.plan_key} version {line.plan_version})"
    if line.kind == pb.InvoiceLine.KIND_LATE_USAGE:
        text += f" (late, of {show_time(line.period_start_time)} to {show_time(line.period_end_time)})"
    return text


def _total(invoice: pb.Invoice) -> str:
    return f"{thousands(invoice.total)} {invoice.currency}"


def _period(invoice: pb.Invoice) -> str:
    return f"{show_time(invoice.period_start_time)} to {show_time(invoice.period_end_time)}"


def _state(invoice: pb.Invoice) -> str:
    unpriced = ", unpriced" if invoice.unpriced_models else ""
    return word(pb.Invoice.State.Name(invoice.state), "STATE") + unpriced
