"""Whole minutes: what subject spans and counters are cut at.

As ints they count from the Unix epoch. The ends of time are the limits of
Postgres' int4, far outside the years 1 to 9999.
"""

from datetime import UTC, datetime, timedelta

BEGINNING = -(2**31)
END = 2**31 - 1

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MINUTE = timedelta(minutes=1)


def truncate(time: datetime) -> datetime:
    """Cut an aware time down to its minute, in UTC."""
    return time.astimezone(UTC).replace(second=0, microsecond=0)


def minute_of(time: datetime) -> int:
    """Number the minute that an aware time lies in."""
    return (time - _EPOCH) // _MINUTE


def time_of(minute: int) -> datetime | None:
    """Give a minute's first instant; None for the ends of time."""
    return None if minute in {BEGINNING, END} else _EPOCH + minute * _MINUTE
