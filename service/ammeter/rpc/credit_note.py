"""CreditNoteService: messages to values and back."""

from datetime import datetime

from ammeter.domain.credit_note import CreditNote, CreditRequest
from ammeter.domain.quantity import parse_decimal
from ammeter.rpc.convert import to_timestamp
from ammeter.rpc.document import document, message_json, wanted_format
from ammeter.rpc.invoice import money, tax_message
from ammeter.rpc.method import ADMIN, READ, Caller, Method
from ammeter.rpc.paging import encode_token, fingerprint, natural, page_size, read_token
from ammeter.store import credit_notes
from ammeter.store.db import Database, Tx
from ammeter.usecases.bill import find_customer
from ammeter.usecases.credit import create_credit_note
from ammeter.usecases.render import Format, read_credit_note, render_credit_note
from ammeter.v1 import credit_note_pb2 as pb


class CreditNoteRpc:
    """The service's methods."""

    service = "ammeter.v1.CreditNoteService"

    def __init__(self, db: Database) -> None:
        """`db` is read for documents, which are made without a transaction."""
        self._db = db

    def methods(self) -> list[Method]:
        """Every RPC of the service."""
        return [
            Method.write("CreateCreditNote", ADMIN, self.create),
            Method.plain("RenderCreditNote", READ, self.render),
            Method.read("GetCreditNote", READ, self.get),
            Method.read("ListCreditNotes", READ, self.list),
        ]

    def create(
        self, tx: Tx, request: pb.CreateCreditNoteRequest, now: datetime
    ) -> pb.CreateCreditNoteResponse:
        """Credit an invoice."""
        wanted = CreditRequest(
            lines=tuple(
                (line.line_id, parse_decimal(line.amount, f"lines[{place}].amount") if line.amount else None)
                for place, line in enumerate(request.lines)
            ),
            amount=parse_decimal(request.amount, "amount") if request.amount else None,
        )
        note = create_credit_note(tx, request.invoice_id, wanted, request.reason, now)
        return pb.CreateCreditNoteResponse(credit_note=to_message(note))

    def render(
        self, caller: Caller, request: pb.RenderCreditNoteRequest, _now: datetime
    ) -> pb.RenderCreditNoteResponse:
        """Make a document; the connection is not held meanwhile."""
        wanted = wanted_format(request)
        with self._db.tenant(caller.tenant_id, snapshot=True) as tx:
            sheet = read_credit_note(tx, request.credit_note_id)
        note = sheet.note
        if wanted is Format.JSON:
            content = message_json(to_message(note))
        else:
            content = render_credit_note(sheet, wanted, request.locale)
        made = document("credit-note", note.number_text, note.credit_note_id, wanted, content)
        return pb.RenderCreditNoteResponse(document=made)

    def get(self, tx: Tx, request: pb.GetCreditNoteRequest, _now: datetime) -> pb.GetCreditNoteResponse:
        """Answer one credit note with its lines."""
        return pb.GetCreditNoteResponse(credit_note=to_message(credit_notes.get(tx, request.credit_note_id)))

    def list(self, tx: Tx, request: pb.ListCreditNotesRequest, _now: datetime) -> pb.ListCreditNotesResponse:
        """Answer a page of credit notes, newest first, without lines."""
        query = fingerprint(request)
        size = page_size(request.page_size)
        customer_id = find_customer(tx, request.customer_key) if request.customer_key else None
        before = read_token(request.page_token, query, natural)
        found = credit_notes.page(tx, customer_id, request.invoice_id, before, size + 1)
        more = encode_token(query, (found[size - 1].number,)) if len(found) > size else ""
        return pb.ListCreditNotesResponse(
            credit_notes=[to_message(note) for note in found[:size]], next_page_token=more
        )


def to_message(note: CreditNote) -> pb.CreditNote:
    """Write a credit note."""
    return pb.CreditNote(
        credit_note_id=note.credit_note_id,
        number=note.number,
        number_text=note.number_text,
        invoice_id=note.invoice_id,
        invoice_number_text=note.invoice_number_text,
        customer_key=note.customer_key,
        currency=note.currency,
        reason=note.reason,
        lines=[
            pb.CreditNoteLine(line_id=line.line_id, description=line.description, amount=money(line.amount))
            for line in note.lines
        ],
        subtotal=money(note.subtotal),
        taxes=[tax_message(tax) for tax in note.taxes],
        total=money(note.total),
        create_time=to_timestamp(note.create_time),
    )
