"""Bill a slice of the present period when what is not billed of it reaches a threshold."""

from datetime import datetime
from decimal import Decimal

from ammeter.domain.billing_parts import usage_parts
from ammeter.domain.invoice import NOT_BILLED, Invoice, InvoiceLine, make_draft
from ammeter.domain.money import currency_exponent
from ammeter.domain.period import period_at
from ammeter.domain.period_cost import adds_something
from ammeter.domain.profile import EffectiveProfile, effective
from ammeter.domain.slice import amount_of, can_be_split, is_over, next_slot, slice_line
from ammeter.domain.subscription import Subscription
from ammeter.store import profiles, standing
from ammeter.store.db import Tx
from ammeter.store.standing import Wanted
from ammeter.usecases.billing import Billing, asked_of, usage_of
from ammeter.usecases.ids import new_id
from ammeter.usecases.known import Job, read_known
from ammeter.usecases.terms import put_terms, read_desk


def threshold_of(tx: Tx, customer_id: int) -> Decimal:
    """Read what a customer's profile says; 0 for never."""
    return threshold_in(effective(*profiles.get_both(tx, customer_id)))


def threshold_in(profile: EffectiveProfile) -> Decimal:
    """Read a profile's threshold; 0 for never."""
    return Decimal(profile.progressive_threshold or 0)


def due_slice(tx: Tx, run: Billing, sub: Subscription, now: datetime) -> Invoice | None:
    """Make up the slice that is due now, if one is; the caller holds the subscription and stores it."""
    threshold = threshold_of(tx, sub.customer_id)
    period = period_at(sub, now) if threshold else None
    if period is None:
        return None
    past = standing.histories(tx, [sub])[sub.subscription_id]
    job = Job(sub, next_slot(past.heads, period), past)
    lines = slice_lines(tx, run, job, now)
    if amount_of(lines) < threshold:
        return None
    draft = make_draft(
        sub,
        job.slot,
        lines,
        currency_exponent(sub.currency),
        new_id("inv", now),
        create_time=now,
        replaces_invoice_id=past.replaced(job.slot),
    )
    return put_terms(read_desk(tx, [sub.customer_id]), draft)


def slice_lines(tx: Tx, run: Billing, job: Job, now: datetime) -> list[InvoiceLine]:
    """Compute a slice's lines from usage as it is now; see `compute_lines`.

    What begins later (a phase, a rate card's own period) is no part of it, not
    even a first tier's flat part.
    """
    known = read_known(tx, run.shelf, [job])
    sub, slot = known.subscription(job.sub), job.slot
    courses = known.courses(sub)
    plans = known.plans_of(courses)
    [past] = standing.past(tx, [Wanted(job.others, {slot.period.index})])
    asked = [
        asked_of(known, tx.tenant_id, sub, card, [part for part in parts if part.start <= now])
        for course in courses
        for card, parts in usage_parts(course, [slot.period], plans)
        if can_be_split(card)
    ]
    there = [one for one in asked if one is not None]
    answers = run.measure([one.question for one in there]) if there else []
    lines = [
        slice_line(
            sub,
            one.card,
            part,
            usage,
            measured.position,
            billed=past.billed.get((one.card.rate_card_id, part.index, part.start), NOT_BILLED),
            carrier=slot,
            last=is_over(job.others, slot.period),
        )
        for one, measured in zip(there, answers, strict=True)
        for part, usage in usage_of(known, one, measured)
    ]
    return [line for line in lines if adds_something(line)]
