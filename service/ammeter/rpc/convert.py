"""Times and decimals between messages and values."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

from google.protobuf.timestamp_pb2 import Timestamp

from ammeter.domain.quantity import decimal_text, parse_decimal
from ammeter.errors import invalid

__all__ = ["from_timestamp", "parse_decimal", "to_decimal_text", "to_timestamp", "whole_minute"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_NANOS = 999_999_999
# Years 1970 to 2999: minutes of it fit everywhere, and no clock is near its end in any zone.
_MAX_SECONDS = 32_503_679_999


def to_timestamp(time: datetime | None) -> Timestamp | None:
    """Convert an aware time; None stays None, which leaves a field out."""
    if time is None:
        return None
    delta = time - _EPOCH
    return Timestamp(seconds=delta.days * 86_400 + delta.seconds, nanos=delta.microseconds * 1000)


def from_timestamp(message: Timestamp, field: str, *, present: bool) -> datetime | None:
    """Convert to an aware UTC time, floored to the microsecond; None if not present.

    Raises InvalidInputError naming `field` outside years 1970 to 2999.
    """
    if not present:
        return None
    if not (0 <= message.seconds <= _MAX_SECONDS and 0 <= message.nanos <= _MAX_NANOS):
        raise invalid(field, "must be a time of the years 1970 to 2999, with nanos in 0 to 999,999,999")
    return _EPOCH + timedelta(seconds=message.seconds, microseconds=message.nanos // 1000)


def whole_minute(time: datetime, field: str) -> int:
    """Give minutes since the epoch; raises InvalidInputError when it is not a whole minute."""
    if time.second or time.microsecond:
        raise invalid(field, "must be a whole minute: set seconds and nanos to 0")
    return int((time - _EPOCH).total_seconds()) // 60


def to_decimal_text(value: Decimal) -> str:
    """Write a decimal plainly: no exponent, no trailing zeros, "0" for zero."""
    return decimal_text(value)
