"""Which spans a counter keeps, and when it needs more of them."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from ammeter.domain.minute import minute_of
from ammeter.domain.period import boundaries
from ammeter.domain.subscription import Subscription

# A check that was asked just before a period ended may be answered just after.
_LOOK_BACK = timedelta(hours=1)
# The period around the look-back, then at least the one around now and two more.
_EDGES = 5
# Renewals are due when 1.1 to 1.6 periods lie ahead, spread over customers: no rush on the first of a
# month.
_SPREAD = 64
_MINUTES_PER_DAY = 1440


def counter_edges(subscription: Subscription, now: datetime) -> tuple[int, ...]:
    """List the edges of periods to count between, in minutes; empty when it is all over.

    An entitlement lasts as long as its subscription, so the subscription's
    start and end cut the first and the last period.
    """
    edges = [minute_of(edge) for edge in boundaries(subscription, now - _LOOK_BACK, _EDGES)]
    return tuple(edges) if len(edges) > 1 else ()


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
