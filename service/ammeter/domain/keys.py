"""What keys and texts may look like; each function lists what is wrong."""

import re
from functools import cache
from zoneinfo import available_timezones

from ammeter.domain.money import currency_exponent
from ammeter.errors import Violation

MAX_TEXT = 256
MAX_SUBJECT_BYTES = 256
DEFAULT_CURRENCY = "USD"
DEFAULT_ZONE = "UTC"

_CATALOG_KEY = re.compile(r"[a-z][a-z0-9_-]{0,63}", re.ASCII)
_CUSTOMER_KEY = re.compile(r"[A-Za-z0-9_\-.:@/]{1,128}", re.ASCII)


def catalog_key(field: str, key: str) -> list[Violation]:
    """Check the key of a meter, feature, plan or rate card."""
    if _CATALOG_KEY.fullmatch(key):
        return []
    return [Violation(field, "must be 1-64 of a-z, 0-9, '_' and '-', starting with a letter")]


def customer_key(field: str, key: str) -> list[Violation]:
    """Check a customer's key."""
    if _CUSTOMER_KEY.fullmatch(key):
        return []
    return [Violation(field, "must be 1-128 of A-Z, a-z, 0-9 and '_-.:@/'")]


def text(field: str, value: str) -> list[Violation]:
    """Check a free text: bounded, and without NUL, which Postgres cannot hold."""
    if len(value) > MAX_TEXT:
        return [Violation(field, f"must be at most {MAX_TEXT} characters, not {len(value)}: shorten it")]
    if "\0" in value:
        return [Violation(field, "must not contain NUL (U+0000): remove it")]
    return []


def subject(field: str, value: str) -> list[Violation]:
    """Check a subject: as events carry it."""
    if not 1 <= len(value.encode()) <= MAX_SUBJECT_BYTES:
        return [Violation(field, f"must be 1-{MAX_SUBJECT_BYTES} bytes of UTF-8")]
    if "\0" in value:
        return [Violation(field, "must not contain NUL (U+0000): remove it")]
    return []


def currency(field: str, code: str) -> list[Violation]:
    """Check an ISO 4217 code."""
    try:
        currency_exponent(code)
    except ValueError as error:
        return [Violation(field, str(error)[:MAX_TEXT])]
    return []


@cache
def _zones() -> frozenset[str]:
    # Left out are names that mean the setting of whatever machine reads them.
    return frozenset(available_timezones() - {"localtime", "Factory", "posixrules"})


def time_zone(field: str, name: str) -> list[Violation]:
    """Check the IANA name of a time zone."""
    if name in _zones():
        return []
    return [Violation(field, "is no IANA time zone: give a name such as Europe/Berlin or UTC")]
