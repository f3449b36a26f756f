"""Add-ons: plans beside a subscription's own, each with spans of its own."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import pairwise

from ammeter.domain.catalog import Plan
from ammeter.domain.minute import truncate
from ammeter.domain.price import FlatPrice
from ammeter.domain.spans import Span
from ammeter.domain.subscription import Subscription
from ammeter.errors import InvalidInputError, PreconditionError, Violation, invalid

MAX_QUANTITY = 1_000_000
MAX_ADD_ONS = 50
_AHEAD = timedelta(days=366)
_FAR = timedelta(days=3653)

# The plan of spans in which an add-on is not there.
NOTHING = 0


@dataclass(frozen=True)
class AddOn:
    """`quantity` of a plan's version beside a subscription, over [from_time, to_time)."""

    add_on_id: str
    subscription_id: str
    plan_id: int
    plan_key: str
    plan_version: int
    quantity: int
    from_time: datetime
    to_time: datetime | None
    create_time: datetime

    @property
    def is_void(self) -> bool:
        """Whether it ended as it began."""
        return self.to_time is not None and self.to_time <= self.from_time


def no_plan(sub: Subscription) -> Plan:
    """Make the plan of spans in which an add-on is not there: it charges and gives nothing."""
    return Plan("", "", sub.currency, sub.billing_cadence, (), plan_id=NOTHING)


def beside(sub: Subscription, add_ons: Iterable[AddOn]) -> list[Subscription]:
    """Show each add-on plan of a subscription as a subscription with its spans; several at a time add up."""
    by_plan: dict[int, list[AddOn]] = {}
    for one in add_ons:
        if not one.is_void:
            by_plan.setdefault(one.plan_id, []).append(one)
    return [replace(sub, spans=tuple(_spans(sub, mine))) for mine in by_plan.values()]


def _spans(sub: Subscription, mine: Sequence[AddOn]) -> Iterator[Span]:
    edges = {sub.start_time, *(max(one.from_time, sub.start_time) for one in mine)}
    edges |= {one.to_time for one in mine if one.to_time is not None and one.to_time > sub.start_time}
    times: list[datetime | None] = [*sorted(edges), None]
    for start, end in pairwise(times):
        assert start is not None  # noqa: S101 - only the last is open
        holding = [one for one in mine if _holds(one, start)]
        if not holding:
            yield Span(start, end, NOTHING)
            continue
        first = holding[0]
        yield Span(
            start,
            end,
            first.plan_id,
            quantity=sum(one.quantity for one in holding),
            plan_key=first.plan_key,
            plan_version=first.plan_version,
        )


def _holds(one: AddOn, time: datetime) -> bool:
    return one.from_time <= time and (one.to_time is None or time < one.to_time)


def plans_of_course(
    number: int, courses: Sequence[Subscription], plans: Mapping[int, Plan]
) -> dict[int, Plan]:
    """Choose the plans that concern one of a subscription's courses; what is on none concerns the first."""
    ids = [{span.plan_id for span in one.course} for one in courses]
    others = set().union(*ids[1:]) if number == 0 else set()
    mine = ids[number]
    return {key: plan for key, plan in plans.items() if key in mine or (number == 0 and key not in others)}


def on_two(courses: Sequence[Subscription]) -> bool:
    """Whether a plan's version is the subscription's own, some time, and an add-on of it."""
    own, *others = ({span.plan_id for span in one.course} - {NOTHING} for one in courses)
    return any(own & other for other in others)


def check_fits(sub: Subscription, plan: Plan, quantity: int) -> None:
    """Refuse a plan that is no add-on of a subscription; raises PreconditionError, InvalidInputError."""
    what = f"plan {plan.plan_key!r}"
    if plan.currency != sub.currency or plan.billing_cadence != sub.billing_cadence:
        raise PreconditionError(
            f"{what} bills {plan.currency} each {plan.billing_cadence}, the subscription {sub.currency} "
            f"each {sub.billing_cadence}: choose another",
            field="plan_key",
        )
    if len(plan.phases) > 1 or plan.minimum_amount is not None:
        raise PreconditionError(
            f"{what} has phases or a minimum: an add-on has neither, make another plan", field="plan_key"
        )
    if not 1 <= quantity <= MAX_QUANTITY:
        raise invalid("quantity", f"must be 1-{MAX_QUANTITY}")
    by_seat = any(isinstance(card.price, FlatPrice) and card.price.per_seat for card in plan.rate_cards)
    if quantity > 1 and not by_seat:
        why = f"must be 1: {what} has no flat price per seat, so it is the same once or twice"
        raise invalid("quantity", why)


def check_from(time: datetime | None, earliest: datetime, now: datetime) -> datetime:
    """Return the minute from which an add-on is there; raises InvalidInputError."""
    start = truncate(time or max(now, earliest))
    if not earliest <= start <= now + _AHEAD:
        why = "must not lie before the present billing period, nor more than 366 days ahead"
        raise InvalidInputError([Violation("from_time", why)])
    return start


def ended(one: AddOn, time: datetime, now: datetime) -> AddOn:
    """End an add-on at a minute; before it begins, it never was. Raises InvalidInputError."""
    if not truncate(now) <= time <= now + _FAR:
        why = "must not lie in the past, nor more than 10 years ahead"
        raise InvalidInputError([Violation("to_time", why)])
    return replace(one, to_time=max(truncate(time), one.from_time))


def same_keys(courses: Sequence[Subscription], plans: Mapping[int, Plan]) -> list[str]:
    """List the keys of rate cards that two of a subscription's courses have at the same time."""
    found = set()
    for number, one in enumerate(courses):
        for other in courses[number + 1 :]:
            for mine in one.stretches:
                for theirs in other.stretches:
                    if _meet(mine, theirs):
                        found |= _keys(mine, plans) & _keys(theirs, plans)
    return sorted(found)


def _keys(span: Span, plans: Mapping[int, Plan]) -> set[str]:
    return {card.rate_card_key for card in plans[span.plan_id].cards_of(span.phase)}


def _meet(one: Span, two: Span) -> bool:
    return (two.end_time is None or one.start_time < two.end_time) and (
        one.end_time is None or two.start_time < one.end_time
    )
