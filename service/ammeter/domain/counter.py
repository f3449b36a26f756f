"""Which spans a counter keeps, and when it needs more of them."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from ammeter.domain.grant import Grant, Terms, Timeline, history_start, make_timeline
from ammeter.domain.minute import minute_of
from ammeter.domain.period import Course, boundaries

# A check that was asked just before a period ended may be answered just after.
_LOOK_BACK = timedelta(hours=1)
# The period around the look-back, then at least the one around now and two more.
_EDGES = 5
# Renewals are due when 1.1 to 1.6 periods lie ahead, spread over customers: no rush on the first of a
# month.
_SPREAD = 64
_MINUTES_PER_DAY = 1440
# Long periods are not cut at grants' recurrences for years ahead; then it is renewed a month before.
_HORIZON = 400 * _MINUTES_PER_DAY
_MONTH = 30 * _MINUTES_PER_DAY


def counter_edges(course: Course, now: datetime) -> tuple[int, ...]:
    """List the edges of periods to count between, in minutes; empty when it is all over.

    The entitlement's start and end cut the first and the last period.
    """
    edges = [minute_of(edge) for edge in boundaries(course, now - _LOOK_BACK, _EDGES)]
    return tuple(edges) if len(edges) > 1 else ()


def counter_timeline(
    terms: Terms, grants: Sequence[Grant], now: datetime
) -> tuple[Timeline, tuple[int, ...]] | None:
    """Give the spans to count between and the edges to renew by; None when it is all over."""
    schedule = terms.schedule
    minute = max(minute_of(now - _LOOK_BACK), schedule.start_minute)
    first = history_start(terms, grants, minute)
    if first is None:
        return None
    edges = [minute]
    cap = minute + _HORIZON
    while len(edges) < _EDGES and edges[-1] < cap and (period := schedule.around(edges[-1])):
        edges.append(period.end_minute)
    if edges[-1] > cap:
        edges = [cap - _MONTH, cap]
    return make_timeline(terms, grants, first, edges[-1]), tuple(edges[-2:])


def renewal_minute(edges: Sequence[int], end: int, customer_id: int) -> int:
    """Say when to look again: for further edges, or, past the entitlement's end, to forget the counter."""
    last = edges[-1]
    if last >= end:
        return end + _LOOK_BACK // timedelta(minutes=1) + 1
    length = last - edges[-2]
    return last - length * (11 * _SPREAD + 5 * (customer_id % _SPREAD)) // (10 * _SPREAD)


def days_of(edges: Sequence[int]) -> tuple[int, int]:
    """Give the UTC days [from_day, to_day) that edges span, since the epoch."""
    return edges[0] // _MINUTES_PER_DAY, -(-edges[-1] // _MINUTES_PER_DAY)
