"""Verbs on credit notes."""

from collections.abc import Iterable
from typing import Annotated

import typer
from rich.console import Group, RenderableType

from ammeter.cli import documents, root
from ammeter.cli.session import Session, list_all, session_of
from ammeter.cli.times import show_time
from ammeter.cli.view import fields, table, thousands
from ammeter.client import new_request_id
from ammeter.v1 import credit_note_pb2 as pb

group = root.group("credit-note", "What of issued invoices is taken back.")

InvoiceId = Annotated[str, typer.Argument(metavar="INVOICE", help='Its id, "inv_...".')]


@group.command("create", epilog=root.EPILOG)
def create(
    ctx: typer.Context,
    invoice_id: InvoiceId,
    *,
    reason: Annotated[str, typer.Option(help="Why; it is printed.")],
    amount: Annotated[str, typer.Option(help="So much, spread over all lines. Left out: all of it.")] = "",
    line: Annotated[
        list[str] | None,
        typer.Option(metavar="LINE[=AMOUNT]", help="A line, or so much of it. May be repeated."),
    ] = None,
) -> None:
    """Credit an invoice: all that is left of it, an amount, or lines."""
    session = session_of(ctx)
    lines = []
    for each in line or []:
        line_id, _, of_line = each.partition("=")
        lines.append(pb.CreateCreditNoteRequest.Line(line_id=line_id, amount=of_line))
    request = pb.CreateCreditNoteRequest(
        invoice_id=invoice_id, lines=lines, amount=amount, reason=reason, request_id=new_request_id()
    )
    _show(session, session.client.credit_notes.CreateCreditNote(request).credit_note)


@group.command("get", epilog=root.EPILOG)
def get(
    ctx: typer.Context,
    credit_note_id: Annotated[str, typer.Argument(metavar="NOTE", help='Its id, "cn_...".')],
) -> None:
    """Show one credit note with its lines."""
    session = session_of(ctx)
    request = pb.GetCreditNoteRequest(credit_note_id=credit_note_id)
    _show(session, session.client.credit_notes.GetCreditNote(request).credit_note)


@group.command("render", epilog=root.EPILOG)
def render(
    ctx: typer.Context,
    credit_note_id: Annotated[str, typer.Argument(metavar="NOTE", help='Its id, "cn_...".')],
    *,
    form: documents.Form = documents.Format.PDF,
    locale: documents.Locale = "",
    output: documents.Output = None,
) -> None:
    """Write a credit note to a file: PDF, HTML, CSV or JSON."""
    session = session_of(ctx)
    request = pb.RenderCreditNoteRequest(credit_note_id=credit_note_id, format=form.number, locale=locale)
    documents.write(session, session.client.credit_notes.RenderCreditNote(request).document, output)


@group.command("list", epilog=root.EPILOG)
def list_(
    ctx: typer.Context,
    *,
    customer: Annotated[str, typer.Option(help="Only this customer's.")] = "",
    invoice: Annotated[str, typer.Option(help="Only against this invoice.")] = "",
    limit: int = 100,
) -> None:
    """List credit notes, newest first."""
    session = session_of(ctx)
    request = pb.ListCreditNotesRequest(customer_key=customer, invoice_id=invoice, page_size=min(limit, 1000))
    answer = list_all(session.client.credit_notes.ListCreditNotes, request, "credit_notes", limit)
    session.show(answer, lambda: _overview(answer.credit_notes))


def _show(session: Session, note: pb.CreditNote) -> None:
    session.show(note, lambda: _card(note))


def _overview(notes: Iterable[pb.CreditNote]) -> RenderableType:
    rows = (
        (
            each.credit_note_id,
            each.number_text,
            each.invoice_number_text,
            each.customer_key,
            each.reason,
            f"{thousands(each.total)} {each.currency}",
        )
        for each in notes
    )
    return table(["credit note", "number", "invoice", "customer", "reason", "total"], rows)


def _card(note: pb.CreditNote) -> RenderableType:
    head = fields(
        {
            "credit note": note.credit_note_id,
            "number": note.number_text,
            "invoice": f"{note.invoice_number_text} ({note.invoice_id})",
            "customer": note.customer_key,
            "reason": note.reason,
            "made": show_time(note.create_time),
        }
    )
    lines = table(["line", "amount"], ((each.description, thousands(each.amount)) for each in note.lines))
    lines.add_section()
    for tax in note.taxes:
        lines.add_row(f"{tax.name}{' (included)' if tax.inclusive else ''}", thousands(tax.amount))
    lines.add_row("total", f"{thousands(note.total)} {note.currency}", style="bold")
    return Group(head, lines)
