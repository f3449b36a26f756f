"""Encodings of usage that no generated code would write: legal ones, and ones that are broken somewhere."""

import random

from tests.model import Event
from tests.native.encoding import event_bytes, nested, request_bytes, timestamp, varint

_UNKNOWN = (
    b"\x98\x06\x01",  # 99: a varint
    b"\x99\x06" + bytes(8),  # fixed 64
    b"\x9d\x06" + bytes(4),  # fixed 32
    b"\x9a\x06\x03abc",
    b"\x9b\x06\x08\x01\x9b\x06\x9c\x06\x9c\x06",  # groups, nested
    b"\xfa\xff\xff\xff\x0f\x00",  # the greatest field number
    b"\x98\x06" + b"\xff" * 9 + b"\x01",
)


def legal(rng: random.Random, event: Event) -> bytes:
    """The same event in a way that means the same to a parser."""
    body = event_bytes(event, rng)
    if event.time is not None and rng.random() < 0.3:
        # A message field sent in two parts is merged.
        seconds, nanos = event.time
        body += timestamp(5, (seconds, 0)) + timestamp(5, (0, nanos))
    if rng.random() < 0.3:
        body = rng.choice(_UNKNOWN) + body + rng.choice(_UNKNOWN)
    if rng.random() < 0.2:
        # Of a field sent twice the last one stands.
        body = nested(1, b"former") + nested(4, b"former") + body
    if rng.random() < 0.2 and event.properties:
        key = rng.choice(list(event.properties))
        former = nested(6, nested(1, key.encode()) + nested(2, b"999"))
        body = former + body
    return body


def overlong(rng: random.Random, body: bytes) -> bytes:
    """A field in front whose length is spelt with more bytes than it takes."""
    inner = b"over" + bytes([rng.randrange(97, 123)])
    padding = rng.randrange(1, 6)
    spelt = bytes([len(inner) | 0x80]) + b"\x80" * (padding - 1) + b"\x00"
    return b"\x0a" + spelt + inner + body


def broken(rng: random.Random, body: bytes) -> bytes:
    """Change bytes without a thought for what they mean."""
    out = bytearray(body)
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        at = rng.randrange(len(out) + 1)
        match rng.randrange(6):
            case 0 if at < len(out):
                out[at] ^= 1 << rng.randrange(8)
            case 1:
                del out[at:]
            case 2:
                out[at:at] = rng.randbytes(rng.randrange(1, 4))
            case 3:
                del out[at : at + rng.randrange(1, 6)]
            case 4:
                out[at:at] = out[at : at + rng.randrange(1, 40)]
            case _:
                out[at:at] = varint(rng.getrandbits(rng.choice((7, 14, 32, 64))))
        if not out:
            break
    return bytes(out)


def request(rng: random.Random, events: list[Event]) -> bytes:
    """A request that is legal, or broken within one event, or as a whole."""
    bodies = [legal(rng, event) for event in events]
    fate = rng.random()
    if fate < 0.35:
        at = rng.randrange(len(bodies))
        bodies[at] = broken(rng, bodies[at])
    if 0.35 <= fate < 0.45:
        bodies[0] = overlong(rng, bodies[0])
    body = request_bytes(bodies, sequence=rng.choice((0, 0, 3)))
    if rng.random() < 0.2:
        body = rng.choice(_UNKNOWN) + body
    return broken(rng, body) if fate > 0.7 else body
