"""Bill a slice of the present period when what is not billed of it reaches a threshold."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from decimal import Decimal

from ammeter.domain.billing_parts import usage_parts
from ammeter.domain.invoice import NOT_BILLED, Invoice, InvoiceLine, Slot, adds_something, make_draft
from ammeter.domain.late import Head
from ammeter.domain.money import currency_exponent
from ammeter.domain.period import period_at
from ammeter.domain.profile import effective
from ammeter.domain.slice import amount_of, can_be_split, is_over, next_slot, slice_line
from ammeter.domain.subscription import Subscription
from ammeter.store import invoices, profiles
from ammeter.store.db import Tx
from ammeter.usecases.billing import Billing, usage_of
from ammeter.usecases.ids import new_id
from ammeter.usecases.price_overrides import with_overrides
from ammeter.usecases.provide import courses_of, plans_of
from ammeter.usecases.terms import put_terms


def threshold_of(tx: Tx, customer_id: int) -> Decimal:
    """Read what a customer's profile says; 0 for never."""
    return Decimal(effective(*profiles.get_both(tx, customer_id)).progressive_threshold or 0)


def due_slice(tx: Tx, run: Billing, sub: Subscription, now: datetime) -> Invoice | None:
    """Make up the slice that is due now, if one is; the caller holds the subscription and stores it."""
    threshold = threshold_of(tx, sub.customer_id)
    period = period_at(sub, now) if threshold else None
    if period is None:
        return None
    heads = invoices.standing(tx, sub.subscription_id)
    slot = next_slot(heads, period)
    lines = slice_lines(tx, run, sub, slot, heads, now)
    if amount_of(lines) < threshold:
        return None
    draft = make_draft(sub, slot, lines, currency_exponent(sub.currency), new_id("inv", now))
    replaces = invoices.replaced(tx, sub.subscription_id, slot)
    return put_terms(tx, replace(draft, create_time=now, replaces_invoice_id=replaces))


def slice_lines(
    tx: Tx,
    run: Billing,
    sub: Subscription,
    slot: Slot,
    heads: Sequence[Head],
    now: datetime,
    redone: str = "",
) -> list[InvoiceLine]:
    """Compute a slice's lines from usage as it is now; see `compute_lines` for the other arguments.

    What begins later (a phase, a rate card's own period) is no part of it, not
    even a first tier's flat part.
    """
    run = run.for_one()
    others = [head for head in heads if head.invoice_id != redone]
    sub = with_overrides(tx, sub)
    courses = courses_of(tx, sub)
    plans = plans_of(tx, courses)
    billed = invoices.billed(tx, sub.subscription_id, [slot.period.index], redone)
    last = is_over(others, slot.period)
    lines = [
        slice_line(
            sub,
            card,
            part,
            usage,
            position,
            billed=billed.get((card.rate_card_id, part.index, part.start), NOT_BILLED),
            carrier=slot,
            last=last,
        )
        for course in courses
        for card, parts in usage_parts(course, [slot.period], plans)
        if can_be_split(card)
        for part, usage, position in usage_of(tx, run, sub, card, [one for one in parts if one.start <= now])
    ]
    return [line for line in lines if adds_something(line)]
