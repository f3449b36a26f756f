"""What became of an entitlement's grants over time, cut into windows and told span by span."""

from collections.abc import Iterator, Sequence
from enum import StrEnum
from itertools import pairwise
from typing import NamedTuple

from ammeter.domain.grant import Grant, Step, Timeline


class Cause(StrEnum):
    """Why a segment ended; the words of SegmentEnd.Cause without their prefix."""

    RESET = "RESET"
    GRANT_EXPIRED = "GRANT_EXPIRED"
    GRANT_VOIDED = "GRANT_VOIDED"
    GRANT_RECURRED = "GRANT_RECURRED"
    GRANT_STARTED = "GRANT_STARTED"


class Ending(NamedTuple):
    """A cause, and the grant that it was about; "" for a reset."""

    cause: Cause
    grant_id: str


class Burnt(NamedTuple):
    """What a grant had when a segment began, and paid in it; below 0: corrections gave back to it."""

    grant: Grant
    opened: int
    paid: int


class Segment(NamedTuple):
    """Minutes [start, end) between two changes, in which usage was all that happened.

    `left` is what was left at the start, `used` what was used. `endings` is
    empty where the history that was asked for ends.
    """

    start_minute: int
    end_minute: int
    used: int
    left_at_start: int
    left_at_end: int
    grants: tuple[Burnt, ...]
    endings: tuple[Ending, ...]


class Window(NamedTuple):
    """Minutes [start, end): what was used, and what was left at the start."""

    start_minute: int
    end_minute: int
    used: int
    left: int


def left_of(timeline: Timeline, steps: Sequence[Step], number: int, *, at_end: bool) -> int:
    """Say what is left at the start or the end of a span; below zero it is overage."""
    span = timeline.spans[number]
    left = steps[number].closed.left if at_end else steps[number].opened.left
    if timeline.level and number and not at_end and not span.is_reset:
        # The level so far stays where it is; a span opens with grants whole again.
        left -= steps[number - 1].running
    return left if span.active else min(left, 0)


def windows(timeline: Timeline, steps: Sequence[Step], edges: Sequence[int]) -> Iterator[Window]:
    """Sum up use between edges; the timeline is cut at them. A level is that at the end of its window."""
    for start, end in pairwise(edges):
        numbers = [
            number
            for number, span in enumerate(timeline.spans)
            if start <= span.start_minute and span.end_minute <= end
        ]
        if not numbers:
            continue
        used = [steps[number].used for number in numbers]
        left = left_of(timeline, steps, numbers[0], at_end=False)
        yield Window(start, end, used[-1] if timeline.level else sum(used), left)


def segments(timeline: Timeline, steps: Sequence[Step], first: int) -> Iterator[Segment]:
    """Tell what happened between changes, from minute `first` on; the timeline is cut there."""
    begun = [number for number, span in enumerate(timeline.spans) if span.start_minute >= first]
    while begun:
        start = begun[0]
        length = next(
            (place for place, number in enumerate(begun) if place and endings(timeline, number)), None
        )
        ours, begun = (begun, []) if length is None else (begun[:length], begun[length:])
        yield _segment(timeline, steps, start, ours[-1], endings(timeline, begun[0]) if begun else ())


def present_segment(timeline: Timeline, steps: Sequence[Step]) -> Segment:
    """Tell what the last span that was burnt down has come to so far."""
    last = len(steps) - 1
    return _segment(timeline, steps, last, last, ())


def _segment(
    timeline: Timeline, steps: Sequence[Step], first: int, last: int, ended: tuple[Ending, ...]
) -> Segment:
    opened, closed = steps[first].opened, steps[last].closed
    burnt = tuple(
        Burnt(timeline.grants[one], before, before - after)
        for one, before, after in zip(
            timeline.spans[first].active, opened.balances, closed.balances, strict=True
        )
    )
    used = [step.used for step in steps[first : last + 1]]
    return Segment(
        timeline.spans[first].start_minute,
        timeline.spans[last].end_minute,
        used[-1] if timeline.level else sum(used),
        left_of(timeline, steps, first, at_end=False),
        left_of(timeline, steps, last, at_end=True),
        burnt,
        ended,
    )


def endings(timeline: Timeline, number: int) -> tuple[Ending, ...]:
    """Say what changed where a span begins, in the order in which it takes effect; empty for a mere cut."""
    span = timeline.spans[number]
    minute = span.start_minute
    found = []
    before = set(timeline.spans[number - 1].active) if number else set()
    for one in sorted(before - set(span.active)):
        grant = timeline.grants[one]
        if grant.grant_id:
            expired = grant.end_minute == grant.expire_minute
            found.append(Ending(Cause.GRANT_EXPIRED if expired else Cause.GRANT_VOIDED, grant.grant_id))
    if span.is_reset:
        found.append(Ending(Cause.RESET, ""))
    for cause in (Cause.GRANT_RECURRED, Cause.GRANT_STARTED):
        for one in sorted(span.full):
            grant = timeline.grants[one]
            starts = grant.from_minute == minute
            if grant.grant_id and starts == (cause is Cause.GRANT_STARTED):
                found.append(Ending(cause, grant.grant_id))
    return tuple(found)
