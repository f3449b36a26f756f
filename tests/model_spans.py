"""The oracle of spans: what a subscription is on, minute by minute, and what flat prices that makes.

Nothing here cuts, joins or prorates: each minute is looked at by itself.
"""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from fractions import Fraction
from typing import NamedTuple

MINUTE = timedelta(minutes=1)


class ModelPlan(NamedTuple):
    """A plan by name, with phases of so many days; the last has None. A fee for each seat, by phase."""

    name: str
    days: tuple[int | None, ...]
    fees: tuple[int, ...] = ()


class Entry(NamedTuple):
    """From a time on: this plan, begun in this phase (or, without one, only other seats)."""

    time: datetime
    plan: ModelPlan | None
    phase: int
    seats: int


def stage(diary: Sequence[Entry], minute: datetime) -> tuple[str, int, int]:
    """Say plan, phase and seats in a minute: what the diary said last, and how long ago that was."""
    plan, phase, since, seats = None, 0, minute, 0
    for entry in diary:
        if entry.time > minute:
            break
        seats = entry.seats
        if entry.plan is not None:
            plan, phase, since = entry.plan, entry.phase, entry.time
    assert plan is not None, "the diary begins with a plan"
    day = since
    while plan.days[phase] is not None and minute >= day + timedelta(days=plan.days[phase] or 0):
        day += timedelta(days=plan.days[phase] or 0)
        phase += 1
    return plan.name, phase, seats


def flat_amount(
    start: datetime,
    end: datetime,
    whole: timedelta,
    fee: Callable[[datetime], Fraction],
    step: timedelta = MINUTE,
) -> Fraction:
    """Add up a fee over the minutes of [start, end), each its share of the whole period.

    A greater step is enough where nothing changes in between.
    """
    total = Fraction(0)
    minute = start
    while minute < end:
        total += fee(minute) * Fraction(int(step.total_seconds()), int(whole.total_seconds()))
        minute += step
    return total
