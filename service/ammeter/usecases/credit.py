"""Credit issued invoices."""

from datetime import datetime

from ammeter.domain.credit_note import CreditNote, CreditRequest, choose, settle
from ammeter.domain.lifecycle import Action, check_allowed
from ammeter.errors import InvalidInputError, Violation
from ammeter.store import credit_notes
from ammeter.store.db import Tx
from ammeter.usecases.bill import hold_invoice
from ammeter.usecases.ids import new_id
from ammeter.usecases.terms import credit_note_text

MAX_REASON = 256


def create_credit_note(
    tx: Tx, invoice_id: str, request: CreditRequest, reason: str, now: datetime
) -> CreditNote:
    """Take back all that is left of an invoice, an amount, or lines of it.

    Whoever credits holds the subscription's row, so no line is credited twice.
    Raises NotFoundError, InvalidInputError, PreconditionError.
    """
    _check(request, reason)
    invoice = hold_invoice(tx, invoice_id)
    check_allowed(invoice, Action.CREDIT)
    before = credit_notes.credited(tx, invoice_id)
    lines = choose(invoice, before, request)
    subtotal, taxes, total = settle(invoice, before, lines)
    number = credit_notes.next_number(tx)
    note = CreditNote(
        credit_note_id=new_id("cn", now),
        number=number,
        number_text=credit_note_text(tx, invoice, number),
        invoice_id=invoice_id,
        invoice_number_text=invoice.number_text,
        customer_key=invoice.customer_key,
        currency=invoice.currency,
        reason=reason,
        subtotal=subtotal,
        taxes=taxes,
        total=total,
        create_time=now,
        lines=lines,
    )
    credit_notes.insert(tx, note)
    return note


def _check(request: CreditRequest, reason: str) -> None:
    violations = []
    if not reason:
        violations.append(Violation("reason", "is needed: it is printed"))
    if len(reason) > MAX_REASON:
        violations.append(Violation("reason", f"must be at most {MAX_REASON} characters: shorten it"))
    if request.lines and request.amount is not None:
        violations.append(Violation("amount", "cannot go with lines: give one or the other"))
    if violations:
        raise InvalidInputError(violations)
