"""Rate cards with a rhythm of their own: one-time, or a cadence that nests in the plan's.

A cadence nests when boundaries of one are boundaries of the other, too: both
are of days or both of months, and one is a whole multiple of the other. Both
are counted from the subscription's anchor.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, NamedTuple

from ammeter.domain.catalog import Plan, RateCard
from ammeter.domain.period import Cadence, Period, parse_cadence, period_at
from ammeter.domain.spans import Span, parts_of, sameness
from ammeter.domain.subscription import Subscription
from ammeter.errors import Violation

# So many of a rate card's periods may lie in one of the plan's.
MAX_PARTS = 400
_NAMES = ("in_advance", "billing_cadence", "one_time")


def form_of_timing(card: RateCard) -> dict[str, Any]:
    """Write when a rate card charges: what is not the default."""
    return {name: getattr(card, name) for name in _NAMES if getattr(card, name)}


def read_timing(form: Mapping[str, Any]) -> dict[str, Any]:
    """Read what `form_of_timing` wrote, among other fields."""
    return {name: form[name] for name in _NAMES if name in form}


def check_timing(path: str, card: RateCard, kind: str, plan_cadence: str) -> Iterator[Violation]:
    """Check a rate card's own rhythm; `kind` is that of its price, empty without one."""
    if card.one_time and kind != "flat":
        yield Violation(f"{path}.one_time", "goes with a flat price only: usage has no one time")
    if card.one_time and card.billing_cadence:
        yield Violation(f"{path}.billing_cadence", "does not go with one_time: leave one of them out")
    if not card.billing_cadence:
        return
    field = f"{path}.billing_cadence"
    if not kind:
        yield Violation(field, "needs a price: leave it out")
    try:
        own = parse_cadence(card.billing_cadence)
        plans = parse_cadence(plan_cadence)
    except ValueError as error:
        yield Violation(field, str(error)[:256])
        return
    yield from _check_nesting(field, own, plans, plan_cadence)


def _check_nesting(field: str, own: Cadence, plans: Cadence, text: str) -> Iterator[Violation]:
    mine, theirs = (own.days, plans.days) if own.days else (own.months, plans.months)
    if not theirs or (mine % theirs and theirs % mine):
        why = f"does not nest in {text}: give a whole multiple or a whole fraction of it"
        yield Violation(field, f"{why}, days of days, months of months (7 days a week, 12 months a year)")
    elif theirs // mine > MAX_PARTS:
        yield Violation(field, f"has more than {MAX_PARTS} periods in {text}: charge less often")


class Part(NamedTuple):
    """A part of a rate card's own period: under which span, and whether it begins with that period."""

    card: RateCard
    span: Span
    period: Period
    begins: bool


def has_own(card: RateCard) -> bool:
    """Whether a rate card has a rhythm of its own."""
    return card.one_time or bool(card.billing_cadence)


def own_parts(
    sub: Subscription, period: Period, plans: Mapping[int, Plan], *, by_start: bool
) -> Iterator[Part]:
    """Yield what belongs to a billing period of rate cards with a rhythm of their own.

    A part belongs where it begins (`by_start`), or ends. It is numbered by the
    billing period that it belongs to.
    """
    seen = set()
    for span in sub.course:
        for card in plans[span.plan_id].cards_of(span.phase):
            if not has_own(card) or card.rate_card_id in seen:
                continue
            seen.add(card.rate_card_id)
            if card.one_time:
                yield from _once(sub, period, plans, card)
            else:
                yield from _recurring(sub, period, plans, card, by_start=by_start)


def _once(sub: Subscription, period: Period, plans: Mapping[int, Plan], card: RateCard) -> Iterator[Part]:
    """Charge once where the first rate card of this key comes into force, and all of it."""
    for span in sub.course:
        same = [
            one
            for one in plans[span.plan_id].cards_of(span.phase)
            if one.one_time and one.rate_card_key == card.rate_card_key
        ]
        if same:
            if same[0].rate_card_id == card.rate_card_id and period.start <= span.start_time < period.end:
                whole = _named(replace(period, start=span.start_time), period)
                yield Part(card, span, replace(whole, full_seconds=whole.covered_seconds), not whole.inside)
            return


def _recurring(
    sub: Subscription, period: Period, plans: Mapping[int, Plan], card: RateCard, *, by_start: bool
) -> Iterator[Part]:
    for whole in _periods(sub, card, period):
        for span, part in parts_of(sub.course, whole, sameness(card)):
            here = (
                period.start <= part.start < period.end if by_start else period.start < part.end <= period.end
            )
            if here and any(
                one.rate_card_id == card.rate_card_id for one in plans[span.plan_id].cards_of(span.phase)
            ):
                yield Part(card, span, _named(part, period), not part.inside)


def _named(part: Period, period: Period) -> Period:
    """Number a part by its billing period; what does not begin with it is told apart by its start."""
    return replace(part, index=period.index, inside=part.start != period.start)


def _periods(sub: Subscription, card: RateCard, period: Period) -> Iterator[Period]:
    """Yield the periods of a rate card that touch a billing period."""
    course = replace(sub, billing_cadence=card.billing_cadence)
    found = period_at(course, period.start)
    while found is not None and found.start < period.end:
        yield found
        found = period_at(course, found.end)


def begun_before(sub: Subscription, period: Period, plans: Mapping[int, Plan]) -> list[Period]:
    """Return earlier billing periods in which what is charged in advance for this one, too, began.

    If the subscription ends or changes now, they are reckoned anew.
    """
    starts: set[datetime] = set()
    for plan in plans.values():
        for card in plan.rate_cards if plan.recurs_in_advance else ():
            if card.in_advance and card.billing_cadence:
                for whole in _periods(sub, card, period):
                    starts |= {part.start for _, part in parts_of(sub.course, whole, sameness(card))}
    earlier = (period_at(sub, start) for start in starts if start < period.start)
    return sorted({one for one in earlier if one is not None}, key=lambda one: one.index)
