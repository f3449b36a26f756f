"""Changes of a running subscription: of its plan, its quantity, its plan's version, its end taken back."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import takewhile

from ammeter.domain.cancellation import Timing, period_end
from ammeter.domain.catalog import Plan
from ammeter.domain.minute import truncate
from ammeter.domain.spans import Span, cut, phase_named, plan_spans, span_at, spliced
from ammeter.domain.subscription import Subscription
from ammeter.errors import PreconditionError, invalid

MAX_QUANTITY = 1_000_000_000
MAX_AHEAD = timedelta(days=366)


def time_of_change(sub: Subscription, timing: Timing, time: datetime | None, now: datetime) -> datetime:
    """Find when a change takes effect: a whole minute, before the end and not in the past.

    Raises InvalidInputError; PreconditionError for a subscription that ends
    before it.
    """
    if timing is Timing.AT_TIME:
        if time is None or not now < time <= now + MAX_AHEAD:
            raise invalid("change_time", "must be given and lie ahead, at most a year, for AT_TIME")
    elif time is not None:
        raise invalid("change_time", "goes with CHANGE_TIMING_AT_TIME only: leave it out, or set timing")
    if timing is Timing.PERIOD_END:
        found = period_end(replace(sub, end_time=None), now)
    else:
        found = max(truncate(time or now), sub.start_time)
    if sub.end_time is not None and sub.end_time <= found:
        state = "has ended" if sub.end_time <= now else "ends before that: resume it first"
        raise PreconditionError(f"subscription {sub.subscription_id} {state}")
    return found


def check_plan_fits(sub: Subscription, plan: Plan) -> None:
    """Refuse a plan of another currency or period; raises PreconditionError."""
    if plan.currency != sub.currency:
        raise PreconditionError(
            f"plan {plan.plan_key!r} is in {plan.currency}, subscription {sub.subscription_id} in "
            f"{sub.currency}: choose another",
            field="plan_key",
        )
    if plan.billing_cadence != sub.billing_cadence:
        raise PreconditionError(
            f"plan {plan.plan_key!r} bills each {plan.billing_cadence}, subscription {sub.subscription_id} "
            f"each {sub.billing_cadence}, and periods do not change under a subscription: "
            "cancel it at its period's end and subscribe anew from there",
            field="plan_key",
        )


def on_plan(sub: Subscription, plan: Plan, phase: int, quantity: int, time: datetime) -> Subscription:
    """Put a subscription on a plan's phase, and those after it, from a time on.

    What was planned from then on is dropped. Raises PreconditionError when
    nothing would change.
    """
    check_plan_fits(sub, plan)
    following = plan_spans(plan, time, sub.time_zone, phase=phase, quantity=quantity)
    here = span_at(sub.course, time)
    rest = [span for span in sub.course if span.start_time > time]
    if here.stage == (plan.plan_id, phase) and here.quantity == quantity and not rest:
        raise PreconditionError(
            f"subscription {sub.subscription_id} is on version {plan.version} of plan {plan.plan_key!r} "
            "then: there is nothing to change",
            field="plan_key",
        )
    return replace(sub, spans=joined(spliced(sub.course, time, following)))


def with_quantity(sub: Subscription, quantity: int, time: datetime) -> Subscription:
    """Set the quantity from a time on, whatever was planned for later."""
    return replace(sub, spans=joined(_quantity_from(sub.course, quantity, time)))


def check_quantity(quantity: int) -> None:
    """Raise InvalidInputError for a quantity that cannot be."""
    if not 0 <= quantity <= MAX_QUANTITY:
        raise invalid("quantity", f"must be 0-{MAX_QUANTITY}")


def _quantity_from(spans: Sequence[Span], quantity: int, time: datetime) -> list[Span]:
    after = [
        replace(span, start_time=max(span.start_time, time), quantity=quantity)
        for span in spans
        if span.end_time is None or span.end_time > time
    ]
    return [*cut(spans, time), *after]


def joined(spans: Sequence[Span]) -> tuple[Span, ...]:
    """Make one of spans that follow each other and say the same."""
    found: list[Span] = []
    for span in spans:
        last = found[-1] if found else None
        if last is not None and (last.stage, last.quantity) == (span.stage, span.quantity):
            found[-1] = replace(last, end_time=span.end_time)
        else:
            found.append(span)
    return tuple(found)


def migrated(sub: Subscription, old: Plan, new: Plan, time: datetime) -> Subscription | None:
    """Put a subscription on another version of the plan that it is on at a time; None if it is on that.

    It stays in its phase, which ends when it would have; phases after it are
    the new version's. Who is in the last, open phase comes into the last one.
    What was planned for later (quantities, another plan) stays. Raises
    PreconditionError when the new version has no such phase.
    """
    course = sub.course
    here = span_at(course, time)
    if here.plan_id == new.plan_id:
        return None
    check_plan_fits(sub, new)
    following = [span for span in course if span.start_time > time]
    same = list(takewhile(lambda span: span.plan_id == here.plan_id, following))
    later = following[len(same) :]
    phase = _phase_in(sub, old, new, here)
    spans = plan_spans(new, time, sub.time_zone, phase=phase, quantity=here.quantity)
    phase_end = next((span.start_time for span in same if span.phase != here.phase), None)
    if phase_end is not None and phase + 1 < len(new.phases):
        rest = plan_spans(new, phase_end, sub.time_zone, phase=phase + 1, quantity=here.quantity)
        spans = [replace(spans[0], end_time=phase_end), *rest]
    for span in same:
        spans = _quantity_from(spans, span.quantity, span.start_time)
    if later:
        spans = [*cut(spans, later[0].start_time), *later]
    return replace(sub, spans=joined((*cut(course, time), *spans)))


def _phase_in(sub: Subscription, old: Plan, new: Plan, here: Span) -> int:
    """Find the phase of a new version for whoever is in a phase of the old one."""
    if not old.phases[here.phase].duration:
        return len(new.phases) - 1
    found = phase_named(new, here.phase_key)
    if found is None:
        raise PreconditionError(
            f"subscription {sub.subscription_id} is in phase {here.phase_key!r} then, which version "
            f"{new.version} of plan {new.plan_key!r} does not have: wait until it is over"
        )
    return found
