"""Identifiers that sort by the time they were made."""

import secrets
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's base 32
_RANDOM_BITS = 80
_CHARACTERS = 26
_BITS_PER_CHARACTER = 5


def new_id(prefix: str, now: datetime) -> str:
    """Make an id such as sub_01JD...: a prefix and a ULID (48 bits of milliseconds, 80 random bits)."""
    milliseconds = (now - _EPOCH) // timedelta(milliseconds=1)
    number = milliseconds << _RANDOM_BITS | secrets.randbits(_RANDOM_BITS)
    digits = (number >> _BITS_PER_CHARACTER * place & 31 for place in reversed(range(_CHARACTERS)))
    return f"{prefix}_" + "".join(_ALPHABET[digit] for digit in digits)
