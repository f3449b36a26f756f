"""Billing periods: where they begin and end.

Boundary k of a subscription, for any integer k, is the wall-clock time of its
anchor in the customer's zone, k cadences later: the same local clock, the day
clamped to the month (always from the anchor's own day: 31, 28, 31). A local
time that the zone skips moves forward by the gap; one that occurs twice is
the first. Boundary 0 is the anchor itself. Every boundary is computed from
the anchor; nothing is stepped through.
"""

import calendar
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property, lru_cache
from typing import Protocol
from zoneinfo import ZoneInfo

from ammeter.domain.minute import minute_of

MAX_CADENCE = 1000
_CADENCE = re.compile(r"P([1-9][0-9]{0,3})([DWMY])", re.ASCII)
_DAYS = {"D": 1, "W": 7}
_MONTHS = {"M": 1, "Y": 12}

# Boundaries beyond are held here, where every zone can still be computed.
_FIRST = datetime(2, 1, 1, tzinfo=UTC)
_LAST = datetime(9998, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Cadence:
    """The length of a period: `days` or `months`, the other is 0."""

    days: int
    months: int


class Rhythmic(Protocol):
    """What decides boundaries: see the top of this file."""

    @property
    def anchor_time(self) -> datetime:
        """Boundary 0."""

    @property
    def time_zone(self) -> str:
        """Whose clock it is."""

    @property
    def billing_cadence(self) -> str:
        """From one boundary to the next."""


class Course(Rhythmic, Protocol):
    """What has periods over [start_time, end_time): a subscription, an entitlement."""

    @property
    def start_time(self) -> datetime:
        """Where period 0 begins."""

    @property
    def end_time(self) -> datetime | None:
        """Where the last one is cut; None while open."""


@dataclass(frozen=True)
class Period:
    """[start, end) of a subscription, numbered from 0.

    full_seconds is the length of the whole period that this one may be cut
    from: a month in which the clock is put forward has 3,600 fewer. A part of
    a period that begins `inside` of it does so where plan, phase or quantity
    changed.
    """

    index: int
    start: datetime
    end: datetime
    full_seconds: int
    inside: bool = False

    @cached_property
    def covered_seconds(self) -> int:
        """The length that is left after cutting."""
        return _seconds(self.start, self.end)

    @cached_property
    def minutes(self) -> tuple[int, int]:
        """Its edges as numbers of minutes."""
        return minute_of(self.start), minute_of(self.end)


def part_of(period: Period, start: datetime, end: datetime) -> Period:
    """Cut a part out of a period; one that begins inside of it is marked so."""
    if (start, end) == (period.start, period.end):
        return period
    return Period(period.index, start, end, period.full_seconds, period.inside or start > period.start)


@lru_cache(1024)
def parse_cadence(text: str) -> Cadence:
    """Read an ISO 8601 duration of whole days, weeks, months or years, 1 to 1000 of one unit.

    Raises ValueError, which says what to do.
    """
    found = _CADENCE.fullmatch(text)
    if found is None or int(found[1]) > MAX_CADENCE:
        message = f"{text!r} is no cadence: give 1 to {MAX_CADENCE} days, weeks, months or years, such as P1M"
        raise ValueError(message)
    count, unit = int(found[1]), found[2]
    return Cadence(days=count * _DAYS.get(unit, 0), months=count * _MONTHS.get(unit, 0))


def after(instant: datetime, time_zone: str, *, days: int = 0, months: int = 0) -> datetime:
    """Return the instant some days or months later on a zone's clock: a boundary anchored at it."""
    return _Grid(instant, ZoneInfo(time_zone), Cadence(days, months)).boundary(1)


def period_at(sub: Course, instant: datetime) -> Period | None:
    """Return the period around an instant; None before the start and from the end on."""
    if instant < sub.start_time or (sub.end_time is not None and instant >= sub.end_time):
        return None
    grid = _grid_of(sub)
    return _cut(sub, grid, grid.index(instant) - grid.index(sub.start_time))


def period_number(sub: Course, index: int) -> Period | None:
    """Return a period by its number; None if it does not exist.

    A period does not exist before 0, from the end of the subscription on, or
    where nothing is left of it (a day that the zone skipped).
    """
    return _cut(sub, _grid_of(sub), index)


def periods_from(sub: Course, first: int, until: datetime) -> Iterator[Period]:
    """Yield the periods from number `first` on that have ended by `until`, in order."""
    grid = _grid_of(sub)
    origin = grid.index(sub.start_time)
    index = max(first, 0)
    while (start := grid.boundary(origin + index)) < until and (sub.end_time is None or start < sub.end_time):
        period = _cut(sub, grid, index)
        if period is not None:
            if period.end > until:
                return
            yield period
        index += 1


def boundaries(sub: Course, from_instant: datetime, count: int) -> list[datetime]:
    """Return up to `count` edges of periods, increasing.

    The first is the start of the period around from_instant (of period 0 when
    that lies ahead); the last of all is the subscription's end, if it has one.
    Empty when the subscription has ended by then.
    """
    grid = _grid_of(sub)
    period = period_at(sub, max(from_instant, sub.start_time))
    if period is None or count < 1:
        return []
    edges = [period.start, period.end]
    index = grid.index(period.end)
    while len(edges) < count and edges[-1] != sub.end_time and edges[-1] < _LAST:
        index += 1
        edge = grid.boundary(index) if sub.end_time is None else min(grid.boundary(index), sub.end_time)
        if edge > edges[-1]:
            edges.append(edge)
    return edges[:count]


def boundaries_around(rhythm: Rhythmic, first: datetime, last: datetime) -> list[datetime]:
    """Return the boundaries from the last one at or before `first` to the first one after `last`.

    The ends of time count as boundaries.
    """
    grid = _grid_of(rhythm)
    index = grid.index(first)
    found = [grid.boundary(index)]
    while found[-1] <= last and found[-1] < _LAST:
        index += 1
        boundary = grid.boundary(index)
        if boundary > found[-1]:
            found.append(boundary)
    return found


def _cut(sub: Course, grid: "_Grid", index: int) -> Period | None:
    number = grid.index(sub.start_time) + index
    whole_start, whole_end = grid.boundary(number), grid.boundary(number + 1)
    start = max(whole_start, sub.start_time)
    end = whole_end if sub.end_time is None else min(whole_end, sub.end_time)
    if index < 0 or start >= end:
        return None
    return Period(index, start, end, _seconds(whole_start, whole_end))


def _seconds(start: datetime, end: datetime) -> int:
    return (end - start) // timedelta(seconds=1)


class _Grid:
    """The boundaries of one rhythm."""

    def __init__(self, anchor: datetime, zone: ZoneInfo, cadence: Cadence) -> None:
        self.anchor = anchor
        self.zone = zone
        self.cadence = cadence
        self.wall = anchor.astimezone(zone).replace(tzinfo=None, fold=0)

    def boundary(self, number: int) -> datetime:
        """Return boundary `number` in UTC, a whole minute."""
        return self.anchor if number == 0 else _boundary(self.wall, self.zone, self.cadence, number)

    def index(self, instant: datetime) -> int:
        """Return the number of the last boundary at or before an instant."""
        if instant == self.anchor:
            return 0
        instant = max(_FIRST, min(instant, _LAST - timedelta(minutes=1)))
        wall = instant.astimezone(self.zone)
        if self.cadence.months:
            months = (wall.year - self.wall.year) * 12 + wall.month - self.wall.month
            number = months // self.cadence.months
        else:
            number = (wall.date() - self.wall.date()).days // self.cadence.days
        while self.boundary(number) > instant:
            number -= 1
        while self.boundary(number + 1) <= instant:
            number += 1
        return number


def _grid_of(rhythm: Rhythmic) -> _Grid:
    return _grid(rhythm.anchor_time, rhythm.time_zone, rhythm.billing_cadence)


@lru_cache(4096)
def _grid(anchor: datetime, time_zone: str, billing_cadence: str) -> _Grid:
    return _Grid(anchor, ZoneInfo(time_zone), parse_cadence(billing_cadence))


# Each is asked for several times while an invoice is made, and many subscriptions share them.
@lru_cache(16_384)
def _boundary(wall: datetime, zone: ZoneInfo, cadence: Cadence, number: int) -> datetime:
    if cadence.months:
        moved = _add_months(wall, number * cadence.months)
    else:
        moved = _add_days(wall, number * cadence.days)
    if moved is None:
        return _LAST if number > 0 else _FIRST
    # Zones had offsets with seconds, long ago; fold=0 gives both rules for the hours of a change.
    return moved.replace(tzinfo=zone).astimezone(UTC).replace(second=0, microsecond=0)


def _add_months(wall: datetime, months: int) -> datetime | None:
    year, month = divmod(wall.year * 12 + wall.month - 1 + months, 12)
    if not _FIRST.year < year < _LAST.year:
        return None
    day = min(wall.day, calendar.monthrange(year, month + 1)[1])
    return wall.replace(year=year, month=month + 1, day=day)


def _add_days(wall: datetime, days: int) -> datetime | None:
    try:
        moved = wall + timedelta(days=days)
    except OverflowError:
        return None
    return moved if _FIRST.year < moved.year < _LAST.year else None
