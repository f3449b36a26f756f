"""Grants and how use burns them down.

A timeline cuts the life of an entitlement into spans, in which nothing
changes but usage: at the start of each, grants end, the period is reset,
grants recur, grants start, and debt is paid, in this order. Inside a span the
balance is linear in usage, so what is left is a subtraction.

Quantities are ints scaled by 10**12, times are minutes since the epoch.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

from ammeter.domain.minute import END
from ammeter.domain.usage_period import Rhythm, Schedule, UsagePeriod

# Their usage is a level that is there or not, rather than something that is burnt.
LEVELS = ("LATEST", "MAX")


@dataclass(frozen=True)
class Grant:
    """`amount` to use over [from_minute, end_minute), which is up to `expire_minute` unless it was voided.

    A recurrence sets what is left to `amount` at each boundary. At a reset
    what is left becomes min(rollover_maximum, max(rollover_minimum, left));
    a maximum of None is none. `created` and then the id break ties.
    """

    grant_id: str
    amount: int
    from_minute: int
    expire_minute: int = END
    end_minute: int = END
    priority: int = 0
    rollover_minimum: int = 0
    rollover_maximum: int | None = None
    recurrence: Rhythm | None = None
    created: int = 0

    @property
    def order(self) -> tuple[int, int, int, str]:
        """Who burns first. A void changes nothing in what was burnt before it, so it is not looked at."""
        return self.priority, self.expire_minute, self.created, self.grant_id

    def rolled_over(self, left: int) -> int:
        """Say what a reset makes of what is left."""
        kept = max(self.rollover_minimum, left)
        return kept if self.rollover_maximum is None else min(self.rollover_maximum, kept)

    @property
    def carries(self) -> bool:
        """Whether what is left after a reset depends on what was left before it."""
        return self.rollover_maximum is None or self.rollover_maximum > self.rollover_minimum

    def recurs(self, first: int, last: int) -> list[int]:
        """List when it recurs in [first, last); its own start is no recurrence."""
        first, last = max(first, self.from_minute + 1), min(last, self.end_minute)
        if self.recurrence is None or first >= last:
            return []
        return [minute for minute in self.recurrence.minutes_around(first, last) if first <= minute < last]


@dataclass(frozen=True)
class Terms:
    """What an entitlement says of its grants.

    `allowance`, if any, is issued at each reset as a grant of priority 0 that
    lasts until the next one; `changes` says (minute, allowance) of others from
    then on, each a reset of the schedule. `level`: the meter is one of LEVELS.
    """

    schedule: Schedule
    allowance: int | None
    preserve_overage: bool = False
    level: bool = False
    changes: tuple[tuple[int, int], ...] = ()

    def allowance_at(self, minute: int) -> int | None:
        """Give the allowance that a reset at a minute issues."""
        begun = [allowance for start, allowance in self.changes if start <= minute]
        return begun[-1] if begun else self.allowance

    def preserves(self, minute: int) -> bool:
        """Whether the reset at a minute keeps the overage."""
        by_hand = self.schedule.reset_at(minute)
        if self.level:
            return False
        if by_hand is None or by_hand.preserve_overage is None:
            return self.preserve_overage
        return by_hand.preserve_overage


class Span(NamedTuple):
    """Minutes [start, end) between two changes. Grants are numbers in the timeline's list.

    `active` are in the order they burn; `full` of them start or recur here.
    """

    start_minute: int
    end_minute: int
    period: UsagePeriod
    active: tuple[int, ...]
    full: frozenset[int]
    preserve_overage: bool

    @property
    def is_reset(self) -> bool:
        """Whether a period begins here."""
        return self.start_minute == self.period.start_minute


class State(NamedTuple):
    """What is left of each active grant, and the use beyond all of them."""

    balances: tuple[int, ...]
    debt: int

    @property
    def left(self) -> int:
        """The balance; below zero it is overage."""
        return sum(self.balances) - self.debt


class Step(NamedTuple):
    """What became of a span: `running` is the period's usage at its end, `used` that of the span alone."""

    running: int
    used: int
    opened: State
    closed: State


@dataclass(frozen=True)
class Timeline:
    """Spans without gaps, and the grants that they number."""

    grants: tuple[Grant, ...]
    spans: tuple[Span, ...]
    level: bool

    @cached_property
    def edges(self) -> tuple[int, ...]:
        """Where spans begin, and where the last ends."""
        return (*(span.start_minute for span in self.spans), *(span.end_minute for span in self.spans[-1:]))

    @cached_property
    def resets(self) -> tuple[int, ...]:
        """Where periods begin."""
        return tuple(span.start_minute for span in self.spans if span.is_reset)

    def index(self, minute: int) -> int | None:
        """Number the span around a minute."""
        found = bisect_right(self.edges, minute) - 1
        return found if 0 <= found < len(self.spans) else None


def history_start(terms: Terms, grants: Iterable[Grant], minute: int) -> int | None:
    """Find the last reset up to a minute that no earlier use shines through; None outside the entitlement.

    Use shines through a reset by what grants carry over, and by preserved overage.
    """
    schedule = terms.schedule
    carrying = [grant for grant in grants if grant.carries]
    period = schedule.around(minute)
    if period is None:
        return None
    start = period.start_minute
    while start > schedule.start_minute:
        across = [grant.from_minute for grant in carrying if grant.from_minute < start < grant.end_minute]
        if not across and not terms.preserves(start):
            return start
        before = schedule.around(max(min([start - 1, *across]), schedule.start_minute))
        start = before.start_minute if before else schedule.start_minute
    return start


def make_timeline(
    terms: Terms, grants: Iterable[Grant], first: int, last: int, cuts: Iterable[int] = ()
) -> Timeline:
    """Cut [first, last) at every change, and at `cuts`; `first` is a history_start."""
    periods = terms.schedule.periods(first, last)
    ours = [
        grant
        for grant in grants
        if grant.from_minute < min(grant.end_minute, last) and grant.end_minute > first
    ]
    ours += _allowances(terms, periods)
    ours.sort(key=lambda grant: grant.order)
    recurrences = [frozenset(grant.recurs(first, last)) for grant in ours]
    last = min(last, terms.schedule.end_minute)
    edges = {period.start_minute for period in periods} | {*cuts}
    edges |= {minute for grant in ours for minute in (grant.from_minute, grant.end_minute)}
    edges = edges.union(*recurrences)
    cut = sorted({first, *(edge for edge in edges if first < edge < last), last})
    spans = []
    following = iter([*periods[1:], None])
    period, upcoming = periods[0], next(following)
    for start, end in pairwise(cut):
        if upcoming is not None and start >= upcoming.start_minute:
            period, upcoming = upcoming, next(following)
        active = tuple(
            number for number, grant in enumerate(ours) if grant.from_minute <= start < grant.end_minute
        )
        full = frozenset(
            number for number in active if ours[number].from_minute == start or start in recurrences[number]
        )
        preserve = start == period.start_minute and terms.preserves(start)
        spans.append(Span(start, end, period, active, full, preserve))
    return Timeline(tuple(ours), tuple(spans), terms.level)


def _allowances(terms: Terms, periods: Sequence[UsagePeriod]) -> list[Grant]:
    issued = ((period, terms.allowance_at(period.start_minute)) for period in periods)
    return [
        Grant("", allowance, period.start_minute, period.due_minute, period.end_minute)
        for period, allowance in issued
        if allowance is not None
    ]


def burn_down(timeline: Timeline, running: Sequence[int], known: Sequence[Step] = ()) -> list[Step]:
    """Burn the first spans down; `running` is each one's usage from its period's start to its own end.

    Steps known from before are kept up to the first span whose usage has
    changed. For a level `running` is the level at the end of the span.
    """
    steps: list[Step] = []
    for step, usage in zip(known, running, strict=False):
        if step.running != usage:
            break
        steps.append(step)
    for number in range(len(steps), len(running)):
        opened = open_span(timeline, number, steps[number - 1] if number else None)
        used = running[number] - _used_before(timeline, number, steps)
        steps.append(Step(running[number], used, opened, burnt(opened, used)))
    return steps


def _used_before(timeline: Timeline, number: int, steps: Sequence[Step]) -> int:
    """Give what the running usage has burnt already when a span opens."""
    return 0 if timeline.level or timeline.spans[number].is_reset or not number else steps[number - 1].running


def open_span(timeline: Timeline, number: int, before: Step | None) -> State:
    """Apply what happens at a span's start to what the span before left."""
    span = timeline.spans[number]
    left: dict[int, int] = {}
    debt = 0
    if before is not None:
        # A level burns nothing: what it took comes back at each change, except that a reset is final.
        restored = before.opened if timeline.level and not span.is_reset else before.closed
        left = dict(zip(timeline.spans[number - 1].active, restored.balances, strict=True))
        keeps_debt = not timeline.level and (span.preserve_overage or not span.is_reset)
        debt = before.closed.debt if keeps_debt else 0
    balances = []
    for one in span.active:
        grant = timeline.grants[one]
        if one in span.full:
            balances.append(grant.amount)
        elif span.is_reset:
            balances.append(grant.rolled_over(left.get(one, 0)))
        else:
            balances.append(left[one])
    return burnt(State(tuple(balances), 0), debt)


def burnt(state: State, used: int) -> State:
    """Burn grants in order; use beyond them is debt.

    Negative use pays debt, and what it has left goes to the grant that burns
    first, even beyond its amount; without any grant there is nothing to give
    back to.
    """
    if used < 0:
        paid = min(state.debt, -used)
        first = [balance - used - paid for balance in state.balances[:1]]
        return State((*first, *state.balances[1:]), state.debt - paid)
    balances = []
    for balance in state.balances:
        paid = min(balance, used)
        used -= paid
        balances.append(balance - paid)
    return State(tuple(balances), state.debt + used)
