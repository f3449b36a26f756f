"""Make, issue and void invoices.

Whoever makes or changes an invoice holds its subscription's row meanwhile, so
"what was billed so far" cannot change between reading and writing it. Each
invoice is its own transaction.
"""

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import count
from typing import NamedTuple

from ammeter.domain.advance import opened_period
from ammeter.domain.invoice import (
    OPENING,
    Invoice,
    Slot,
    State,
    adds_something,
    make_draft,
    position_of,
)
from ammeter.domain.late import Head, next_ordinal
from ammeter.domain.lifecycle import Action, check_allowed, check_priced
from ammeter.domain.lifecycle import void as make_void
from ammeter.domain.money import currency_exponent
from ammeter.domain.period import Period, period_at, period_number, periods_from
from ammeter.domain.slice import is_slice
from ammeter.domain.subscription import Subscription
from ammeter.errors import InternalError, NotFoundError, OutOfRangeError, PreconditionError
from ammeter.store import customers, invoices, rate_cards, subscriptions
from ammeter.store.db import Tx
from ammeter.usecases.annex import freeze_usage
from ammeter.usecases.billing import Billing, compute_lines
from ammeter.usecases.credit_lots import apply_credits, give_back
from ammeter.usecases.ids import new_id
from ammeter.usecases.slices import due_slice, slice_lines, threshold_of
from ammeter.usecases.terms import put_issue, put_terms

_PAGE = 100
_INSTANT = timedelta(microseconds=1)


class Progress(NamedTuple):
    """How far a run is: the last subscription it is done with, and counts."""

    cursor: str = ""
    done_count: int = 0
    total_count: int = 0
    invoice_count: int = 0


class Step(NamedTuple):
    """What a run did last: it made an invoice, or is done with a subscription, perhaps in vain."""

    progress: Progress
    invoice: Invoice | None = None
    error: PreconditionError | OutOfRangeError | None = None


def generate_invoices(
    run: Billing,
    tenant_id: int,
    customer_key: str,
    *,
    issue: bool,
    now: datetime,
    since: Progress = Progress(),  # noqa: B008 - it cannot change
) -> Iterator[Step]:
    """Make an invoice for each ended period that has none, and those before the first and after the last.

    What is billed in advance opens a subscription; usage late after its end
    closes it.

    Of one customer, or of all where customer_key is empty; goes on from
    `since`. Raises NotFoundError for an unknown customer. A subscription whose
    meter is still built or whose quantity is out of range holds up no other:
    it is left out, and the step says why.
    """
    with run.db.tenant(tenant_id) as tx:
        customer_id = find_customer(tx, customer_key) if customer_key else None
        total = invoices.count_subscriptions(tx, customer_id)
    at = since._replace(total_count=max(total, since.done_count))
    for sub in _subscriptions(run, tenant_id, customer_id, since.cursor):
        failed = None
        try:
            for invoice in bill_subscription(run, tenant_id, sub, issue=issue, now=now):
                at = at._replace(invoice_count=at.invoice_count + 1)
                yield Step(at, invoice)
        except (PreconditionError, OutOfRangeError) as error:
            failed = error
        done = at.done_count + 1
        at = at._replace(cursor=sub.subscription_id, done_count=done, total_count=max(at.total_count, done))
        yield Step(at, error=failed)


def find_customer(tx: Tx, customer_key: str) -> int:
    """Give a customer's number; raises NotFoundError."""
    customer = None if "\0" in customer_key else customers.get(tx, customer_key)
    if customer is None:
        raise NotFoundError("customer", customer_key)
    return customer.customer_id


def _subscriptions(
    run: Billing, tenant_id: int, customer_id: int | None, after: str
) -> Iterator[Subscription]:
    while True:
        with run.db.tenant(tenant_id) as tx:
            page = subscriptions.page(tx, customer_id, after, _PAGE)
        yield from page
        if len(page) < _PAGE:
            return
        after = page[-1].subscription_id


def bill_subscription(
    run: Billing, tenant_id: int, sub: Subscription, *, issue: bool, now: datetime
) -> Iterator[Invoice]:
    """Make what is missing of one subscription, one invoice after the other.

    Raises PreconditionError (METER_BUILDING) and OutOfRangeError.
    """
    with run.db.tenant(tenant_id) as tx:
        heads = invoices.standing(tx, sub.subscription_id)
        progressive = bool(threshold_of(tx, sub.customer_id))
        opens = rate_cards.bills_in_advance(tx, *sub.course[0].stage)
    if opens and sub.start_time <= now and all(head.slot.ordinal != OPENING for head in heads):
        made = _make_invoice(run, tenant_id, sub.subscription_id, OPENING, issue=issue, now=now)
        if made is not None:
            yield made
    standing = {head.slot.period.index for head in heads if head.slot.ordinal == 0}
    first_missing = next(index for index in count() if index not in standing)
    for period in periods_from(sub, first_missing, now):
        if period.index not in standing:
            made = _make_invoice(run, tenant_id, sub.subscription_id, period.index, issue=issue, now=now)
            if made is not None:
                yield made
    if progressive:
        made = _make_slice(run, tenant_id, sub.subscription_id, issue=issue, now=now)
        if made is not None:
            yield made
    if sub.end_time is not None and sub.end_time <= now:
        made = _make_invoice(run, tenant_id, sub.subscription_id, None, issue=issue, now=now)
        if made is not None:
            yield made


def _make_slice(
    run: Billing, tenant_id: int, subscription_id: str, *, issue: bool, now: datetime
) -> Invoice | None:
    """Make the invoice of a slice of the present period; None when none is due."""
    with run.gate, run.db.tenant(tenant_id) as tx:
        sub = _hold(tx, subscription_id)
        invoice = due_slice(tx, run, sub, now)
        if invoice is None or not invoices.insert_invoice(tx, invoice):
            return None
        return _number(tx, run, invoice, now) if issue else invoice


def _make_invoice(
    run: Billing, tenant_id: int, subscription_id: str, index: int | None, *, issue: bool, now: datetime
) -> Invoice | None:
    """Make the invoice of a period, the OPENING one, or (index None) of what came late after the last.

    None when somebody else made it meanwhile, or when there is nothing to bill.
    """
    with run.gate, run.db.tenant(tenant_id) as tx:
        sub = _hold(tx, subscription_id)
        heads = invoices.standing(tx, subscription_id)
        taken = {(head.slot.period.index, head.slot.ordinal) for head in heads}
        slot = _late_slot(sub, heads, now) if index is None else _slot(sub, index, now)
        if slot is None or (slot.period.index, slot.ordinal) in taken:
            return None
        lines = compute_lines(tx, run, sub, slot, heads)
        if slot.ordinal and not any(adds_something(line) for line in lines):
            return None
        draft = make_draft(sub, slot, lines, currency_exponent(sub.currency), new_id("inv", now))
        replaces = invoices.replaced(tx, subscription_id, slot)
        invoice = put_terms(tx, replace(draft, create_time=now, replaces_invoice_id=replaces))
        if not invoices.insert_invoice(tx, invoice):
            return None
        return _number(tx, run, invoice, now) if issue else invoice


def _slot(sub: Subscription, index: int, now: datetime) -> Slot | None:
    if index == OPENING:
        first = period_number(sub, 0)
        return Slot(first, OPENING) if first is not None and first.start <= now else None
    period = period_number(sub, index)
    return Slot(period) if period is not None and period.end <= now else None


def _late_slot(sub: Subscription, heads: list[Head], now: datetime) -> Slot | None:
    last = _last_period(sub)
    if last is None or last.end > now:
        return None
    ordinal = next_ordinal(heads, last)
    return None if ordinal is None else Slot(last, ordinal)


def _last_period(sub: Subscription) -> Period | None:
    """Return the last period of a subscription that ends, of no length if it ended as it began."""
    if sub.end_time is None:
        return None
    return period_at(sub, sub.end_time - _INSTANT) or opened_period(sub)


def issue_invoice(
    run: Billing, tenant_id: int, invoice_id: str, now: datetime, *, only_due: bool = False
) -> Invoice:
    """Take a draft's quantities anew, freeze it and number it; an issued invoice stays as it is.

    So does one that was issued and has gone on, and with `only_due` one that
    is not (or no more) to be issued by itself by now. Raises NotFoundError;
    PreconditionError for a void one, and for one with a model that has no price.
    """
    with run.gate, run.db.tenant(tenant_id) as tx:
        invoice = hold_invoice(tx, invoice_id)
        if invoice.state in {State.ISSUED, State.PAID, State.UNCOLLECTIBLE}:
            return invoice
        due = invoice.automatic_issue_time
        if only_due and (invoice.state is State.VOID or due is None or due > now):
            return invoice
        check_allowed(invoice, Action.ISSUE)
        sub = _hold(tx, invoice.subscription_id)
        heads = invoices.standing(tx, sub.subscription_id)
        opening = invoice.ordinal == OPENING
        period = opened_period(sub) if opening else period_number(sub, invoice.period_index)
        if period is None:
            raise InternalError(f"invoice {invoice_id} is of a period that is not")
        slot = Slot(period, invoice.ordinal)
        if is_slice(invoice.ordinal):
            lines = tuple(slice_lines(tx, run, sub, slot, heads, now, redone=invoice_id))
        else:
            lines = tuple(compute_lines(tx, run, sub, slot, heads, redone=invoice_id))
        fresh = put_terms(tx, replace(invoice, lines=lines, position=position_of(lines)))
        invoices.rewrite_invoice(tx, fresh)
        return _number(tx, run, fresh, now)


def void_invoice(tx: Tx, invoice_id: str, now: datetime) -> Invoice:
    """Void a draft or an issued invoice; a void one stays as it is. Its number stays, credits go back.

    Raises NotFoundError; PreconditionError for what is paid, written off or credited.
    """
    invoice = hold_invoice(tx, invoice_id)
    if invoice.state is State.VOID:
        return invoice
    void = make_void(invoice, now)
    invoices.update_invoice(tx, void)
    give_back(tx, invoice, now)
    return void


def _number(tx: Tx, run: Billing, invoice: Invoice, now: datetime) -> Invoice:
    check_priced(invoice)
    freeze_usage(tx, run, invoice)
    issued = put_issue(tx, apply_credits(tx, invoice, now), now)
    invoices.update_invoice(tx, issued)
    return issued


def _hold(tx: Tx, subscription_id: str) -> Subscription:
    """Lock a subscription and read it as it is now."""
    found = invoices.lock_subscription(tx, subscription_id)
    sub = subscriptions.get(tx, subscription_id) if found else None
    if sub is None:
        raise NotFoundError("subscription", subscription_id)
    return sub


def hold_invoice(tx: Tx, invoice_id: str) -> Invoice:
    """Lock an invoice by its subscription and read it as it is now."""
    invoices.lock_subscription(tx, invoices.get_invoice(tx, invoice_id).subscription_id)
    return invoices.get_invoice(tx, invoice_id)
