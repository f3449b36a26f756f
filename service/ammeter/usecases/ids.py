"""Identifiers that sort by the time they were made."""

import secrets
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's base 32
_PAIRS = [first + second for first in _ALPHABET for second in _ALPHABET]
_BITS_OF_PAIR = 10
_RANDOM_BITS = 80
# From the first of 26 characters to the last, two at a time.
_SHIFTS = range(120, -1, -_BITS_OF_PAIR)


def new_id(prefix: str, now: datetime) -> str:
    """Make an id such as sub_01JD...: a prefix and a ULID (48 bits of milliseconds, 80 random bits)."""
    milliseconds = (now - _EPOCH) // timedelta(milliseconds=1)
    number = milliseconds << _RANDOM_BITS | secrets.randbits(_RANDOM_BITS)
    return f"{prefix}_" + "".join([_PAIRS[number >> shift & 1023] for shift in _SHIFTS])
