"""Opaque page tokens: where the next page starts, and of which query."""

import base64
import binascii
import hashlib
import json
from collections.abc import Callable
from typing import TypeVar

from google.protobuf.message import Message

from ammeter.errors import InvalidInputError, Violation, invalid

_FINGERPRINT_BYTES = 8
_MAX_NUMBER = 2**62

T = TypeVar("T")


def fingerprint(request: Message) -> bytes:
    """Hash what a query asks for, apart from which page."""
    bare = type(request)()
    bare.CopyFrom(request)
    for field in ("page_size", "page_token"):
        bare.ClearField(field)
    return digest(bare)


def digest(message: Message) -> bytes:
    """Hash a message, short."""
    return hashlib.sha256(message.SerializeToString(deterministic=True)).digest()[:_FINGERPRINT_BYTES]


def encode_token(query_fingerprint: bytes, key: tuple[str | int, ...]) -> str:
    """Name the last row of a page, so that the next one starts after it."""
    body = query_fingerprint + json.dumps(key, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(body).decode().rstrip("=")


def decode_token(token: str, query_fingerprint: bytes) -> tuple[str | int, ...] | None:
    """Read a token back; None for the first page.

    Raises InvalidInputError (INVALID_PAGE_TOKEN) when it is not of this query.
    """
    if not token:
        return None
    try:
        body = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
        if body[:_FINGERPRINT_BYTES] != query_fingerprint:
            raise bad_token()
        key = json.loads(body[_FINGERPRINT_BYTES:])
    except (binascii.Error, ValueError) as error:
        raise bad_token() from error
    if not isinstance(key, list) or not all(
        isinstance(part, str | int) and "\0" not in str(part) for part in key
    ):
        raise bad_token()
    return tuple(key)


def read_token(token: str, query_fingerprint: bytes, read: Callable[..., T]) -> T | None:
    """Read a token back and make its parts what they have to be; None for the first page.

    Callers can make tokens up: what `read` raises of a part that cannot be is
    INVALID_PAGE_TOKEN, too.
    """
    key = decode_token(token, query_fingerprint)
    if key is None:
        return None
    try:
        return read(*key)
    except (TypeError, ValueError, OverflowError) as error:
        raise bad_token() from error


def natural(part: object) -> int:
    """Take a part of a token as a number from 0 that the database can hold; raises ValueError."""
    if not isinstance(part, int) or not 0 <= part <= _MAX_NUMBER:
        raise ValueError(part)
    return int(part)  # JSON has true, which is a number in Python and none in SQL


def bad_token() -> InvalidInputError:
    """Make the error for a token that is not of this query."""
    why = "is not from an answer to this same query: repeat the query without it"
    return InvalidInputError([Violation("page_token", why)], reason="INVALID_PAGE_TOKEN")


def page_size(value: int, *, default: int = 100, maximum: int = 1000) -> int:
    """Apply the default and refuse what is out of bounds."""
    if value < 0 or value > maximum:
        raise invalid("page_size", f"must be between 1 and {maximum}, or 0 for {default}")
    return value or default
