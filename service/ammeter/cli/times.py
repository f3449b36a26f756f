"""Times as people type them."""

import re
from datetime import UTC, datetime, timedelta

import typer
from google.protobuf.timestamp_pb2 import Timestamp

FORMS = "RFC 3339, 2026-01-31, now, today, 36h (ago), 7d, or +30d (ahead); units m h d w; UTC"

_RELATIVE = re.compile(r"([+-]?)(\d{1,6})([mhdw])( ago)?")
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def parse_time(text: str) -> Timestamp:
    """Read an option's time; relative ones fall on whole minutes."""
    moment = Timestamp()
    moment.FromDatetime(_read(text.strip(), datetime.now(UTC)))
    return moment


def _read(text: str, now: datetime) -> datetime:
    minute = now.replace(second=0, microsecond=0)
    if text == "now":
        return minute
    if text == "today":
        return minute.replace(hour=0, minute=0)
    if match := _RELATIVE.fullmatch(text):
        sign, count, unit, _ = match.groups()
        span = timedelta(**{_UNITS[unit]: int(count)})
        return minute + span if sign == "+" else minute - span
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a time: {FORMS}") from None
    if len(text) == len("2026-01-31"):
        return moment.replace(tzinfo=UTC)
    if moment.tzinfo is None:
        raise typer.BadParameter(f"{text!r} has no zone: add Z or an offset")
    return moment


def minute_from_now(minutes: int) -> Timestamp:
    """Return the whole minute that lies so many from the current one."""
    return parse_time(f"+{minutes}m" if minutes >= 0 else f"{-minutes}m")


def show_time(moment: Timestamp) -> str:
    """Write a time for people: UTC, to the second where it is not a whole minute."""
    if not moment.ByteSize():
        return ""
    text = moment.ToDatetime(tzinfo=UTC)
    return text.strftime("%Y-%m-%d %H:%M:%S" if text.second else "%Y-%m-%d %H:%M")
