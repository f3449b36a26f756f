"""What invoices say: the lines of a subscription's period, and what came late for earlier ones.

Of many invoices at once: what is stored is read for all of them, usage is
asked for once, and each line is computed from that alone.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from ammeter.domain.add_on import plans_of_course
from ammeter.domain.advance import advance_periods
from ammeter.domain.billing_parts import flat_parts, usage_parts
from ammeter.domain.card_cadence import begun_before
from ammeter.domain.catalog import Plan, RateCard
from ammeter.domain.coupon import AttachedCoupon
from ammeter.domain.coupon_line import costs_by_period
from ammeter.domain.invoice import (
    NOT_BILLED,
    PLAN,
    InvoiceLine,
    Kind,
    flat_line,
    usage_line,
)
from ammeter.domain.late import late_periods
from ammeter.domain.minimum_line import minimum_line
from ammeter.domain.money import currency_exponent
from ammeter.domain.period import Period, period_number
from ammeter.domain.period_cost import adds_something, cost_of
from ammeter.domain.subscription import Subscription, span_before
from ammeter.errors import PreconditionError
from ammeter.store import standing
from ammeter.store.db import Tx
from ammeter.store.standing import Past, Wanted
from ammeter.usecases.billing import Asked, Billing, Measured, asked_of, usage_of
from ammeter.usecases.coupons import backdated, take_off
from ammeter.usecases.known import Job, Known, prices_of, read_known, read_superseded, superseded_of
from ammeter.usecases.price_lists import listed

# What comes after all other lines of a period.
_AFTER = {Kind.MINIMUM: 1, Kind.COUPON: 2}


@dataclass
class _Work:
    """An invoice under way: which periods it is about, by which plans, and what was billed of them."""

    job: Job
    sub: Subscription
    courses: list[Subscription]
    plans: dict[int, Plan]
    attached: Sequence[AttachedCoupon]
    late: list[Period]
    own: list[Period]
    advance: list[Period]
    past: Past = field(default_factory=lambda: Past({}, {}))
    asked: list[Asked] = field(default_factory=list)

    @property
    def periods(self) -> list[Period]:
        return [*self.late, *self.own, *self.advance]


def lines_of(tx: Tx, run: Billing, job: Job) -> list[InvoiceLine]:
    """Compute one invoice's lines; raises PreconditionError, OutOfRangeError."""
    [computed] = compute_lines(tx, run, [job])
    if isinstance(computed, PreconditionError):
        raise computed
    return computed


def compute_lines(tx: Tx, run: Billing, jobs: Sequence[Job]) -> list[list[InvoiceLine] | PreconditionError]:
    """Compute the lines of invoices from usage as it is now and from what other standing invoices billed.

    In the place of lines stands why there are none: a meter that is not
    served yet. Raises OutOfRangeError where that is so of any of them. The
    caller holds the subscriptions, or writes nothing.
    """
    if not jobs:
        return []
    known = read_known(tx, run.shelf, jobs)
    works = [_begin(known, run, job) for job in jobs]
    wanted = [Wanted(one.job.others, {period.index for period in one.periods}) for one in works]
    pasts = standing.past(tx, wanted)
    read_superseded(tx, known, pasts)
    outcomes: list[_Work | PreconditionError] = []
    for work, past in zip(works, pasts, strict=True):
        work.past = past
        work.plans |= superseded_of(known, work.plans, past)
        try:
            work.asked = list(_asked(tx, known, work))
        except PreconditionError as error:
            outcomes.append(error)
        else:
            outcomes.append(work)
    questions = [asked.question for one in outcomes if isinstance(one, _Work) for asked in one.asked]
    answers = iter(run.measure(questions) if questions else ())
    return [one if isinstance(one, PreconditionError) else _lines(known, one, answers) for one in outcomes]


def _begin(known: Known, run: Billing, job: Job) -> _Work:
    slot, others = job.slot, job.others
    sub = known.subscription(job.sub)
    courses = known.courses(sub)
    plans = known.plans_of(courses)
    attached = known.coupons.get(sub.customer_id, ())
    reopened = [void.invoice_id for void in job.past.voids]
    repriced = listed(prices_of(plans, sub)) if known.repricings else ()
    late = late_periods(
        others,
        slot,
        horizon=run.horizon,
        subjects_time=known.subjects_times[sub.customer_id],
        reopened=frozenset().union(
            *(known.taken_back.get(one, frozenset()) for one in (*reopened, job.redone))
        ),
        repricings=[
            *(each for one in repriced for each in known.repricings.get(one, ())),
            *backdated(attached),
        ],
    )
    own = [slot.period] if slot.ordinal == 0 else []
    advance = [*_begun_before(courses, slot.period, plans), *advance_periods(sub, slot)]
    return _Work(job, sub, courses, plans, attached, late, own, advance)


def _asked(tx: Tx, known: Known, work: _Work) -> Iterator[Asked]:
    """Say what to ask of usage; raises PreconditionError."""
    for one in work.courses:
        for card, parts in usage_parts(one, work.late + work.own, work.plans):
            asked = asked_of(known, tx.tenant_id, work.sub, card, parts)
            if asked is not None:
                yield asked


def _lines(known: Known, work: _Work, answers: Iterator[Measured]) -> list[InvoiceLine]:
    sub, slot, past = work.sub, work.job.slot, work.past
    own, advance = work.own, work.advance
    billed = past.billed
    exponent = currency_exponent(sub.currency)
    lines = list(_flat_lines(work, own, advance))
    for asked in work.asked:
        card, measured = asked.card, next(answers)
        for part, usage in usage_of(known, asked, measured):
            so_far = billed.get((card.rate_card_id, part.index, part.start), NOT_BILLED)
            carrier = slot if not own or part.index != own[0].index else None
            lines.append(
                usage_line(
                    sub,
                    card,
                    part,
                    usage,
                    measured.position,
                    billed=so_far,
                    exponent=exponent,
                    carrier=carrier,
                )
            )
    lines += list(_minimum_lines(work, lines))
    if work.attached:
        costs = costs_by_period(work.periods, lines, billed, _cards(work.plans))
        lines += take_off(sub, slot, work.periods, costs, work.attached, past.taken, exponent)
    return _in_order(lines, own, work.plans)


def _flat_lines(work: _Work, own: Sequence[Period], advance: Sequence[Period]) -> Iterator[InvoiceLine]:
    if not any(plan.has_flat_price for plan in work.plans.values()):
        return
    exponent, billed = currency_exponent(work.sub.currency), work.past.billed
    for number, one in enumerate(work.courses):
        plans = plans_of_course(number, work.courses, work.plans)
        for card, part, seats in flat_parts(one, work.job.slot, own, advance, plans, billed):
            so_far = billed.get((card.rate_card_id, part.index, part.start), NOT_BILLED)
            yield flat_line(work.sub, card, part, exponent, billed=so_far, carrier=work.job.slot, seats=seats)


def _minimum_lines(work: _Work, lines: Sequence[InvoiceLine]) -> Iterator[InvoiceLine]:
    """Bring periods to their plans' minima, counting fees in advance whose invoice is void at present."""
    sub, billed = work.sub, work.past.billed
    least = {
        period: amount
        for period in work.late + work.own
        if (amount := work.plans[span_before(sub, period.end).plan_id].minimum_amount) is not None
    }
    # A head's period does not know what it was cut from, which fees are prorated by.
    whole = [period_number(sub, period.index) or period for period in work.late if period in least]
    counted = [*_flat_lines(work, [], whole), *lines]
    for period, amount in least.items():
        yield minimum_line(
            sub,
            amount,
            period,
            cost_of(period, counted, billed),
            billed=billed.get((PLAN, period.index, period.start), NOT_BILLED),
            exponent=currency_exponent(sub.currency),
            carrier=None if period in work.own else work.job.slot,
        )


def _cards(plans: Mapping[int, Plan]) -> list[RateCard]:
    return [card for plan in plans.values() for card in plan.rate_cards]


def _begun_before(courses: Sequence[Subscription], period: Period, plans: Mapping[int, Plan]) -> list[Period]:
    found = (each for one in courses for each in begun_before(one, period, plans))
    by_index = {each.index: each for each in found}
    return [by_index[index] for index in sorted(by_index)]


def _in_order(
    lines: Sequence[InvoiceLine], own: Sequence[Period], plans: Mapping[int, Plan]
) -> list[InvoiceLine]:
    """Put the own period first, then others, by part and as in the plan; leave out what adds nothing.

    The usage of the own period is shown in any case.
    """
    places = {card.rate_card_id: place for place, card in enumerate(_cards(plans))}
    indices = {period.index for period in own}

    def place(line: InvoiceLine) -> tuple[bool, int, int, datetime, int]:
        number = places.get(line.rate_card_id or PLAN, 0)
        after = _AFTER.get(line.kind, 0)
        return line.period_index not in indices, line.period_index, after, line.period_start_time, number

    kept = [line for line in lines if line.kind is Kind.USAGE or adds_something(line)]
    return sorted(kept, key=place)
