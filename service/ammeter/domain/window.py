"""Windows: where spans of time are cut, by size and zone."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from ammeter.errors import invalid

MAX_WINDOWS = 600_000
MINUTES_PER_DAY = 1440
MINUTES_PER_HOUR = 60
_MONTHS_PER_YEAR = 12

SIZES = ("TOTAL", "MINUTE", "HOUR", "DAY", "WEEK", "MONTH")


def minute_time(minute: int) -> datetime:
    """Give the instant of a minute since the epoch, in UTC."""
    return datetime.fromtimestamp(minute * 60, UTC)


def boundaries(from_minute: int, to_minute: int, size: str, zone: ZoneInfo) -> list[int]:
    """Cut [from_minute, to_minute) into windows; returns their edges, both ends included.

    The first and last window may be cut short by the span. Days, weeks
    (Monday, ISO 8601) and months begin at local midnight; where the clock
    skips midnight, at the instant it skips. An hour begins where the local
    clock shows a full hour by the offset then in force, so a shift of half an
    hour makes one window longer or shorter, and an hour repeated is a window
    of its own. Raises InvalidInputError for more than MAX_WINDOWS.
    """
    least = {"MINUTE": 1, "HOUR": 60, "DAY": 1380, "WEEK": 9900, "MONTH": 40000}.get(size)
    if least and (to_minute - from_minute) / least > MAX_WINDOWS:
        raise invalid(
            "window_size", f"cuts the span into more than {MAX_WINDOWS} windows: take a larger size"
        )
    if size == "TOTAL":
        return [from_minute, to_minute]
    if size == "MINUTE":
        return list(range(from_minute, to_minute + 1))
    edges = (
        _hours(from_minute, to_minute, zone) if size == "HOUR" else _days(from_minute, to_minute, size, zone)
    )
    return [from_minute, *(edge for edge in edges if from_minute < edge < to_minute), to_minute]


def _offset(minute: int, zone: ZoneInfo) -> int:
    offset = minute_time(minute).astimezone(zone).utcoffset() or timedelta()
    return int(offset.total_seconds()) // 60


def _hours(from_minute: int, to_minute: int, zone: ZoneInfo) -> list[int]:
    edges = []
    minute = from_minute
    while minute < to_minute:
        past = (minute + _offset(minute, zone)) % MINUTES_PER_HOUR
        if past == 0:
            edges.append(minute)
        following = minute + MINUTES_PER_HOUR - past
        # A shift inside the hour moves the next full hour: look at quarter hours there.
        if _offset(following, zone) != _offset(minute, zone):
            following = minute + 15 - past % 15
        minute = following
    return edges


def _days(from_minute: int, to_minute: int, size: str, zone: ZoneInfo) -> list[int]:
    first = minute_time(from_minute).astimezone(zone).date()
    if size == "WEEK":
        first -= timedelta(days=first.weekday())
    elif size == "MONTH":
        first = first.replace(day=1)
    edges = []
    day = first
    while (edge := _midnight(day, zone)) < to_minute:
        edges.append(edge)
        day = _next_day(day, size)
    return edges


def _next_day(day: date, size: str) -> date:
    if size == "MONTH":
        return date(day.year + day.month // _MONTHS_PER_YEAR, day.month % _MONTHS_PER_YEAR + 1, 1)
    return day + timedelta(days=7 if size == "WEEK" else 1)


def _midnight(day: date, zone: ZoneInfo) -> int:
    local = datetime(day.year, day.month, day.day, tzinfo=zone)
    return int(local.astimezone(UTC).timestamp()) // 60
