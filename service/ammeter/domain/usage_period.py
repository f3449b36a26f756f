"""Usage periods: from one reset of an entitlement to the next.

Resets fall on the boundaries of a cadence (domain/period.py) and wherever
somebody reset by hand. A reset by hand either leaves the boundaries where
they are or moves the anchor to itself.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import NamedTuple

from ammeter.domain.minute import END, minute_of
from ammeter.domain.period import boundaries_around

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Reset(NamedTuple):
    """A reset by hand. `preserve_overage` None: as the entitlement says."""

    minute: int
    moves_anchor: bool
    preserve_overage: bool | None = None


class UsagePeriod(NamedTuple):
    """Minutes [start, end); `due_minute` is the boundary after the start, wherever the end was cut to."""

    start_minute: int
    end_minute: int
    due_minute: int


@dataclass(frozen=True)
class Rhythm:
    """A cadence, counted from an anchor on a zone's clock."""

    anchor_time: datetime
    time_zone: str
    billing_cadence: str

    def minutes_around(self, first: int, last: int) -> list[int]:
        """Return the boundaries from the last one at or before `first` to the first one after `last`."""
        return [minute_of(each) for each in boundaries_around(self, _time(first), _time(last))]


@dataclass(frozen=True)
class OwnCourse(Rhythm):
    """The rhythm of one entitlement, over its time."""

    start_time: datetime
    end_time: datetime | None


@dataclass(frozen=True)
class Schedule:
    """When an entitlement over [start_minute, end_minute) resets; `resets` are increasing and inside."""

    start_minute: int
    end_minute: int
    rhythm: Rhythm
    resets: tuple[Reset, ...] = ()

    def periods(self, first: int, last: int) -> list[UsagePeriod]:
        """List the periods that have a minute in [first, last), in order."""
        first, last = max(first, self.start_minute), min(last, self.end_minute)
        if first >= last:
            return []
        edges: dict[int, int] = {}
        for start, end, rhythm in self._stretches():
            if end > first and start < last:
                edges.update(
                    self._edges(start, end, rhythm.minutes_around(max(first, start), min(last, end)))
                )
        starts = sorted(edges)
        starts = starts[bisect_right(starts, first) - 1 :]
        ends = [*starts[1:], min(edges[starts[-1]], self.end_minute)]
        found = zip(starts, ends, strict=True)
        return [UsagePeriod(start, end, edges[start]) for start, end in found if start < last]

    def around(self, minute: int) -> UsagePeriod | None:
        """Return the period around a minute; None before the start and from the end on."""
        found = self.periods(minute, minute + 1)
        return found[0] if found else None

    def reset_at(self, minute: int) -> Reset | None:
        """Return what was reset by hand at a minute."""
        return next((reset for reset in self.resets if reset.minute == minute), None)

    def _stretches(self) -> Iterator[tuple[int, int, Rhythm]]:
        """Yield (start, end, rhythm): a moved anchor begins another stretch."""
        moved = [reset.minute for reset in self.resets if reset.moves_anchor]
        rhythm = self.rhythm
        for start, end in pairwise([self.start_minute, *moved, self.end_minute]):
            if start != self.start_minute:
                rhythm = Rhythm(_time(start), rhythm.time_zone, rhythm.billing_cadence)
            yield start, end, rhythm

    def _edges(self, start: int, end: int, boundaries: Sequence[int]) -> Iterator[tuple[int, int]]:
        """Yield (start of a period, boundary after it) inside a stretch."""
        by_hand = (reset.minute for reset in self.resets)
        for edge in {start, *boundaries, *by_hand}:
            after = bisect_right(boundaries, edge)
            if start <= edge < end and after < len(boundaries):
                yield edge, boundaries[after]


def _time(minute: int) -> datetime:
    return _EPOCH + timedelta(minutes=max(_FIRST, min(minute, _LAST)))


# What datetime can hold, with room for every zone.
_FIRST = minute_of(datetime(2, 1, 1, tzinfo=UTC))
_LAST = min(END, minute_of(datetime(9998, 1, 1, tzinfo=UTC)))
