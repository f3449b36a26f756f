"""Render invoices and credit notes: the same paper gives the same bytes, in any process."""

import re
from dataclasses import dataclass
from enum import StrEnum

from ammeter.domain.credit_note import CreditNote
from ammeter.domain.invoice import Invoice
from ammeter.domain.paper.numbers import Numbers, parse_locale
from ammeter.domain.paper.paper import Paper, credit_note_paper, invoice_paper
from ammeter.domain.usage_groups import UsageGroups
from ammeter.errors import InternalError
from ammeter.store import credit_notes, customers, invoice_usage, invoices
from ammeter.store.db import Tx
from ammeter.usecases.paper_csv import credit_note_csv, invoice_csv
from ammeter.usecases.paper_html import to_html
from ammeter.usecases.paper_pdf import to_pdf


class Format(StrEnum):
    """What a document is made as; its value is the ending of the file's name. JSON is the API's own."""

    HTML = "html"
    PDF = "pdf"
    CSV = "csv"
    JSON = "json"


CONTENT_TYPES = {
    Format.HTML: "text/html; charset=utf-8",
    Format.PDF: "application/pdf",
    Format.CSV: "text/csv; charset=utf-8",
    Format.JSON: "application/json",
}


@dataclass(frozen=True)
class InvoiceSheet:
    """An invoice with all that is printed of it; `time_zone` is the customer's."""

    invoice: Invoice
    usage: tuple[tuple[str, UsageGroups], ...]
    time_zone: str


@dataclass(frozen=True)
class CreditNoteSheet:
    """A credit note, and the invoice that it is against."""

    note: CreditNote
    invoice: Invoice
    time_zone: str


def read_invoice(tx: Tx, invoice_id: str) -> InvoiceSheet:
    """Read what an invoice is printed from; raises NotFoundError."""
    invoice = invoices.get_invoice(tx, invoice_id)
    return InvoiceSheet(invoice, invoice_usage.of_invoice(tx, invoice_id), _zone(tx, invoice))


def read_credit_note(tx: Tx, credit_note_id: str) -> CreditNoteSheet:
    """Read what a credit note is printed from; raises NotFoundError."""
    note = credit_notes.get(tx, credit_note_id)
    invoice = invoices.get_invoice(tx, note.invoice_id)
    return CreditNoteSheet(note, invoice, _zone(tx, invoice))


def _zone(tx: Tx, invoice: Invoice) -> str:
    customer = customers.get_by_id(tx, invoice.customer_id)
    if customer is None:
        raise InternalError(f"customer {invoice.customer_key} of an invoice is gone")
    return customer.time_zone


def render_invoice(sheet: InvoiceSheet, wanted: Format, locale: str) -> bytes:
    """Make HTML, PDF or CSV; CSV is for machines and knows no locale. Raises InvalidInputError."""
    numbers = Numbers(parse_locale(locale), sheet.invoice.currency, sheet.time_zone)
    if wanted is Format.CSV:
        return invoice_csv(sheet.invoice, sheet.usage)
    return _print(invoice_paper(sheet.invoice, numbers, sheet.usage), wanted)


def render_credit_note(sheet: CreditNoteSheet, wanted: Format, locale: str) -> bytes:
    """As render_invoice, of a credit note."""
    numbers = Numbers(parse_locale(locale), sheet.note.currency, sheet.time_zone)
    if wanted is Format.CSV:
        return credit_note_csv(sheet.note)
    return _print(credit_note_paper(sheet.note, sheet.invoice, numbers), wanted)


def _print(paper: Paper, wanted: Format) -> bytes:
    return to_pdf(paper) if wanted is Format.PDF else to_html(paper)


def file_name(kind: str, number: str, document_id: str, wanted: Format) -> str:
    """Name a file by the printed number, where there is one, in characters that every system takes."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", number or document_id).strip("-.") or document_id
    return f"{kind}-{name}.{wanted.value}"
