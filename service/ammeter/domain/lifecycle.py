"""What may become of an invoice: draft, issued, then paid, void or uncollectible."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from ammeter.domain.invoice import Invoice, State
from ammeter.domain.money import subtract
from ammeter.errors import PreconditionError


class Action(StrEnum):
    """A verb that may be applied to an invoice."""

    ISSUE = "issue"
    VOID = "void"
    MARK_PAID = "mark_paid"
    MARK_UNCOLLECTIBLE = "mark_uncollectible"
    CREDIT = "credit"


_ACTIONS = {
    State.DRAFT: (Action.ISSUE, Action.VOID),
    State.ISSUED: (Action.VOID, Action.MARK_PAID, Action.MARK_UNCOLLECTIBLE, Action.CREDIT),
    State.PAID: (Action.CREDIT,),
    State.UNCOLLECTIBLE: (Action.MARK_PAID,),
    State.VOID: (),
}
_VERBS = {
    Action.ISSUE: "issue it",
    Action.VOID: "void it",
    Action.MARK_PAID: "mark it paid",
    Action.MARK_UNCOLLECTIBLE: "mark it uncollectible",
    Action.CREDIT: "credit it",
}
_INSTEAD = {
    Action.ISSUE: "GenerateInvoices bills a void period anew, issue that one",
    Action.VOID: "correct it by CreateCreditNote",
    Action.MARK_PAID: "only what is issued, or written off, can be",
    Action.MARK_UNCOLLECTIBLE: "only what is issued, and neither paid nor void, can be",
    Action.CREDIT: "only issued and paid invoices can be credited, up to what they charged",
}


@dataclass(frozen=True)
class Payment:
    """That an invoice was paid: when, and what the payment is called elsewhere."""

    time: datetime
    reference: str


def next_actions(invoice: Invoice) -> tuple[Action, ...]:
    """List what may be done with an invoice now: nothing with a preview, no issue of what lacks a price."""
    found = _by_state(invoice)
    return tuple(one for one in found if one is not Action.ISSUE) if invoice.unpriced_models else found


def _by_state(invoice: Invoice) -> tuple[Action, ...]:
    if not invoice.invoice_id:
        return ()
    found = _ACTIONS[invoice.state]
    if invoice.credited_subtotal:
        found = tuple(action for action in found if action is not Action.VOID)
    if invoice.credited_subtotal == invoice.subtotal:
        found = tuple(action for action in found if action is not Action.CREDIT)
    return found


def check_allowed(invoice: Invoice, action: Action) -> None:
    """Refuse what may not be done now; raises PreconditionError.

    Whether all is priced is not asked: an issue takes the draft anew, then see `check_priced`.
    """
    if action not in _by_state(invoice):
        credited = ", credited" if invoice.credited_subtotal else ""
        state = f"invoice {invoice.invoice_id} is {invoice.state.value}{credited}"
        raise PreconditionError(f"{state}: cannot {_VERBS[action]}; {_INSTEAD[action]}", field="invoice_id")


def check_priced(invoice: Invoice) -> None:
    """Refuse to issue what is not all that is owed; raises PreconditionError (UNPRICED_USAGE)."""
    for line in invoice.lines:
        if line.unpriced_models:
            models = ", ".join(map(repr, line.unpriced_models))
            raise PreconditionError(
                f"{line.rate_card_key} has no price for {models}: import prices that hold from "
                f"{line.period_start_time:%Y-%m-%d %H:%M} UTC on (0 if they are free), then issue",
                reason="UNPRICED_USAGE",
                field="invoice_id",
            )


def pay(invoice: Invoice, payment: Payment) -> Invoice:
    """Mark an invoice paid; raises PreconditionError."""
    check_allowed(invoice, Action.MARK_PAID)
    return invoice._replace(state=State.PAID, paid_time=payment.time, payment_reference=payment.reference)


def write_off(invoice: Invoice, now: datetime) -> Invoice:
    """Mark an invoice uncollectible; raises PreconditionError."""
    check_allowed(invoice, Action.MARK_UNCOLLECTIBLE)
    return invoice._replace(state=State.UNCOLLECTIBLE, uncollectible_time=now)


def void(invoice: Invoice, now: datetime) -> Invoice:
    """Void a draft or an issued invoice; raises PreconditionError."""
    check_allowed(invoice, Action.VOID)
    return invoice._replace(state=State.VOID, void_time=now)


def amount_issued(invoice: Invoice) -> Decimal:
    """Return what was to be paid when the invoice was issued."""
    return subtract(invoice.total, invoice.prepaid_total)


def amount_due(invoice: Invoice) -> Decimal:
    """Return what is to be paid: nothing of what is paid or void."""
    if invoice.state in {State.PAID, State.VOID}:
        return subtract(invoice.total, invoice.total)
    return subtract(amount_issued(invoice), invoice.credited_total)
