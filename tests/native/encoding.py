"""Usage messages as bytes, in any order of fields, by hand: the generated code would always sort them."""

import random
from collections.abc import Iterable

from tests.model import Event


def varint(number: int) -> bytes:
    number &= 2**64 - 1
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def nested(number: int, body: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(body)) + body


def text(number: int, value: str) -> bytes:
    return nested(number, value.encode()) if value else b""


def timestamp(number: int, time: tuple[int, int]) -> bytes:
    seconds, nanos = time
    return nested(number, b"".join(varint(n << 3) + varint(v) for n, v in ((1, seconds), (2, nanos)) if v))


def event_bytes(event: Event, shuffle: random.Random | None = None) -> bytes:
    """A UsageEvent; with `shuffle`, its fields and properties in any order."""
    parts = [text(1, event.id), text(2, event.source), text(3, event.type), text(4, event.subject)]
    if event.time is not None:
        parts.append(timestamp(5, event.time))
    entries = [[text(1, key), text(2, value)] for key, value in event.properties.items()]
    if shuffle is not None:
        for entry in entries:
            shuffle.shuffle(entry)
    parts += [nested(6, b"".join(entry)) for entry in entries]
    if shuffle is not None:
        shuffle.shuffle(parts)
    return b"".join(parts)


def request_bytes(events: Iterable[bytes], sequence: int = 0) -> bytes:
    """A RecordUsageRequest, or a StreamUsageRequest if it has a sequence."""
    return b"".join(nested(1, event) for event in events) + (
        varint(16) + varint(sequence) if sequence else b""
    )
