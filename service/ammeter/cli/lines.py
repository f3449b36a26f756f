"""Reads usage events from JSON lines, exactly: no number ever becomes a float.

A line is {"id", "source", "type", "subject", "time", "properties": {}}; time
is RFC 3339 and may be left out. Property values may be text, numbers (kept
digit by digit) or true and false.
"""

import json
import os
import select
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal

from google.protobuf.timestamp_pb2 import Timestamp

from ammeter.v1.usage_pb2 import UsageEvent

_TEXTS = ("id", "source", "type", "subject")
_FIELDS = frozenset({*_TEXTS, "time", "properties"})
_MAX_BYTES = 1 << 20  # far above the server's limit for an event, far below its limit for a message
_CHUNK_BYTES = 1 << 16
_IDLE_SECONDS = 0.2
_MAX_PLACES = 64  # an exponent beyond is nobody's quantity; the server says so, naming the meter


class LineError(Exception):
    """A line is no event; the text says why."""


class _Number(str):
    """A JSON number as written, told apart from a JSON text."""

    __slots__ = ()


@dataclass(frozen=True)
class Line:
    """One line's event, or what is wrong with it; `end` is the offset of the byte after it."""

    number: int
    end: int
    event: UsageEvent | None
    error: str = ""


def live(descriptor: int) -> Iterator[bytes | None]:
    """Yield the lines of a pipe as they come, and None whenever none came for a moment."""
    rest = b""
    while True:
        if not select.select([descriptor], [], [], _IDLE_SECONDS)[0]:
            yield None
            continue
        chunk = os.read(descriptor, _CHUNK_BYTES)
        if not chunk:
            break
        *whole, rest = (rest + chunk).split(b"\n")
        yield from (line + b"\n" for line in whole)
    if rest:
        yield rest


def read_lines(raw: Iterable[bytes | None], id_prefix: str | None) -> Iterator[Line | None]:
    """Read events one by one, passing over blank lines; a None stays what it is: nothing came.

    With an `id_prefix`, an event without an id gets "prefix:line", the same on
    every run over the same file.
    """
    number = end = 0
    for line in raw:
        if line is None:
            yield None
            continue
        number += 1
        end += len(line)
        if not line.strip():
            continue
        try:
            event = read_event(line, default_id="" if id_prefix is None else f"{id_prefix}:{number}")
        except LineError as error:
            yield Line(number, end, None, str(error))
        else:
            yield Line(number, end, event)


def read_event(line: bytes, default_id: str = "") -> UsageEvent:
    """Read one event; raises LineError."""
    facts = _parse(line)
    if unknown := sorted(facts.keys() - _FIELDS):
        raise LineError(f"unknown field {unknown[0]!r}: facts to measure go into properties")
    event = UsageEvent()
    try:
        for name in _TEXTS:
            setattr(event, name, _text(facts, name))
        for name, value in _properties(facts).items():
            event.properties[name] = value
    except (UnicodeEncodeError, ValueError) as error:
        raise LineError(f"text that is not Unicode: {error}") from None
    if "time" in facts:
        event.time.CopyFrom(_time(facts["time"]))
    event.id = event.id or default_id
    if not event.id:
        raise LineError(
            "id is missing: it makes the event count once; --assign-ids makes one from file and line"
        )
    if event.ByteSize() > _MAX_BYTES:
        raise LineError(f"the event has {event.ByteSize()} bytes, more than a server takes")
    return event


def _parse(line: bytes) -> dict[str, object]:
    try:
        facts = json.loads(
            line, parse_float=_Number, parse_int=_Number, parse_constant=_refuse, object_pairs_hook=_once
        )
    except (ValueError, RecursionError) as error:
        raise LineError(f"not JSON: {error}") from None
    if not isinstance(facts, dict):
        raise LineError("not a JSON object")
    return facts


def _refuse(constant: str) -> object:
    raise LineError(f"{constant} is not a number")


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    facts = dict(pairs)
    if len(facts) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise LineError(f"{twice!r} is there twice")
    return facts


def _text(facts: dict[str, object], name: str) -> str:
    value = facts.get(name, "")
    if not isinstance(value, str) or isinstance(value, _Number):
        raise LineError(f"{name} is not a text: put it in quotes")
    return value


def _time(value: object) -> Timestamp:
    moment = Timestamp()
    try:
        moment.FromJsonString(value if isinstance(value, str) else "")
    except ValueError:
        raise LineError(f"time {value!r} is not RFC 3339, for example 2026-01-31T12:00:00Z") from None
    return moment


def _properties(facts: dict[str, object]) -> dict[str, str]:
    values = facts.get("properties", {})
    if not isinstance(values, dict):
        raise LineError("properties is not an object")
    return {name: _property(name, value) for name, value in values.items()}


def _property(name: str, value: object) -> str:
    match value:
        case _Number():
            return _digits(value)
        case str():
            return value
        case True:
            return "true"
        case False:
            return "false"
        case _:
            raise LineError(f"properties[{name}] is not a text, a number, true or false")


def _digits(number: str) -> str:
    """Write a number without an exponent, which quantities do not have; exact either way."""
    if "e" not in number and "E" not in number:
        return number
    value = Decimal(number)
    places = value.as_tuple().exponent
    if not isinstance(places, int) or abs(places) > _MAX_PLACES:
        return number
    return format(value, "f")
