"""Say what became of an issued invoice: paid, or written off."""

from datetime import datetime

from ammeter.domain.invoice import Invoice, State
from ammeter.domain.lifecycle import Payment, pay, write_off
from ammeter.errors import PreconditionError, invalid
from ammeter.store.db import Tx
from ammeter.store.invoice_writing import update_invoice
from ammeter.usecases.bill import hold_invoice

MAX_REFERENCE = 256


def mark_paid(tx: Tx, invoice_id: str, paid_time: datetime | None, reference: str, now: datetime) -> Invoice:
    """Mark an invoice paid; one that is paid so already stays as it is.

    Raises NotFoundError, InvalidInputError, and PreconditionError for a
    draft, a void one, or one that was paid otherwise.
    """
    if paid_time is not None and paid_time > now:
        raise invalid("paid_time", "lies ahead: leave it out for now, or give when the money came")
    if len(reference) > MAX_REFERENCE:
        raise invalid("payment_reference", f"must be at most {MAX_REFERENCE} characters: shorten it")
    invoice = hold_invoice(tx, invoice_id)
    if invoice.state is State.PAID:
        if invoice.payment_reference == reference and paid_time in {None, invoice.paid_time}:
            return invoice
        raise PreconditionError(
            f"invoice {invoice_id} is paid already, with reference {invoice.payment_reference!r}",
            field="invoice_id",
        )
    paid = pay(invoice, Payment(paid_time or now, reference))
    update_invoice(tx, paid)
    return paid


def mark_uncollectible(tx: Tx, invoice_id: str, now: datetime) -> Invoice:
    """Write an invoice off; one written off already stays as it is.

    Raises NotFoundError, PreconditionError.
    """
    invoice = hold_invoice(tx, invoice_id)
    if invoice.state is State.UNCOLLECTIBLE:
        return invoice
    written_off = write_off(invoice, now)
    update_invoice(tx, written_off)
    return written_off
