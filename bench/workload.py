"""Events encoded ahead of time, and what their counts and sums must come to.

What they are is a kind's business (bench.kinds). Ids are random UUIDs. 1 % of the events are sent
twice within the last thousand, 0.1 % carry a number that is none.
"""

import os
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from bench.kinds import Fact, Kind, LlmGateway

_DUPLICATES = 0.01
_BAD = 0.001
_RECENT = 1000
# Every round sends the same events from another source, which makes them other events: the digits are
# replaced in the encoded bytes. No random id holds this text.
_SOURCE = "llm-gateway-%08d"
_MARK = b"llm-gateway-00000000"


@dataclass(frozen=True)
class Row:
    """An acceptable event as columns, for whoever does not speak protobuf."""

    event_id: str
    subject: str
    time_us: int
    properties: dict[str, str]


@dataclass
class Expected:
    """What sending a workload once must come to."""

    sent: int = 0
    accepted: int = 0
    duplicates: int = 0
    rejected: int = 0
    sums: Counter[tuple[str, ...]] = field(default_factory=Counter)
    """By (meter, subject, the values of the dimensions)."""

    def repeated(self, times: int) -> "Expected":
        """Count what sending it from so many sources must come to."""
        sums = Counter({key: value * times for key, value in self.sums.items()})
        good = self.accepted * times, self.duplicates * times
        return Expected(self.sent * times, *good, self.rejected * times, sums)

    def by_dimensions(self, meter: str) -> dict[tuple[str, ...], int]:
        """Sum over the subjects."""
        found: Counter[tuple[str, ...]] = Counter()
        for (one, _, *values), value in self.sums.items():
            if one == meter:
                found[tuple(values)] += value
        return dict(found)

    def by_subject(self, meter: str) -> dict[tuple[str, ...], int]:
        """Pick what one meter comes to, by (subject, the values of the dimensions)."""
        return {key[1:]: value for key, value in self.sums.items() if key[0] == meter}


@dataclass(frozen=True)
class Workload:
    """Events in the order sent; `rows` are the good ones, duplicates included."""

    events: list[bytes]
    rows: list[Row]
    expected: Expected


def generate(kind: Kind, count: int, seed: int, *, bad_share: float = _BAD, timed: bool = True) -> Workload:
    """Make `count` events; equal seeds give equal events but for their ids' and times' base.

    Those that are not `timed` leave it to the receiver to say when they happened.
    """
    rng = random.Random(seed)  # noqa: S311 - to be repeated, not to be secret
    now_us = time.time_ns() // 1000
    work = Workload([], [], Expected())
    recent: list[tuple[bytes, Row]] = []
    for index in range(count):
        chance = rng.random()
        if chance < _DUPLICATES and recent:
            event, row = rng.choice(recent)
            work.expected.duplicates += 1
        else:
            bad = chance > 1 - bad_share
            row = _row(kind.draw(rng, index, count), now_us)
            event = _encode(kind, row, bad=bad, timed=timed)
            if bad:
                work.events.append(event)
                work.expected.rejected += 1
                continue
            if len(recent) < _RECENT:
                recent.append((event, row))
            else:
                recent[index % _RECENT] = (event, row)
            _count(work.expected, kind, row)
        work.events.append(event)
        work.rows.append(row)
    work.expected.sent = len(work.events)
    return work


def bodies(events: Sequence[bytes], per_request: int) -> list[bytes]:
    """Pack events into RecordUsageRequests."""
    return [b"".join(events[at : at + per_request]) for at in range(0, len(events), per_request)]


def source_name(number: int) -> str:
    """Name the source of a round."""
    return _SOURCE % number


def from_source(body: bytes, number: int) -> bytes:
    """Make the same events come from another source."""
    return body.replace(_MARK, source_name(number).encode())


def one_event(subject: str, input_tokens: int) -> bytes:
    """Encode a RecordUsageRequest with an LLM gateway's event of now."""
    identity = os.urandom(16).hex()
    kind = LlmGateway()
    properties = {"model": kind.models[0], "input_tokens": str(input_tokens), "output_tokens": "1"}
    return _encode(kind, Row(identity, subject, time.time_ns() // 1000, properties), bad=False, timed=True)


def numbered(body: bytes, sequence: int) -> bytes:
    """Make a RecordUsageRequest a StreamUsageRequest."""
    return body + b"\x10" + varint(sequence)


def varint(number: int) -> bytes:
    """Encode as protobuf does."""
    found = bytearray()
    while number > 0x7F:  # noqa: PLR2004 - seven bits a byte
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)


def text(number: int, value: bytes) -> bytes:
    """Encode a string or message field."""
    return bytes((number << 3 | 2,)) + varint(len(value)) + value


def _row(fact: Fact, now_us: int) -> Row:
    raw = os.urandom(16).hex()
    return Row(
        event_id=f"{raw[:8]}-{raw[8:12]}-4{raw[13:16]}-a{raw[17:20]}-{raw[20:]}",
        subject=fact.subject,
        time_us=(now_us - fact.age_us) // 1000 * 1000,
        properties=fact.properties,
    )


def _encode(kind: Kind, row: Row, *, bad: bool, timed: bool) -> bytes:
    seconds, micros = divmod(row.time_us, 1_000_000)
    stamp = b"\x08" + varint(seconds) + (b"\x10" + varint(micros * 1000) if micros else b"")
    properties = row.properties | ({kind.values[0]: "many"} if bad else {})
    body = b"".join(
        [
            text(1, row.event_id.encode()),
            text(2, _MARK),
            text(3, kind.event_type.encode()),
            text(4, row.subject.encode()),
            text(5, stamp) if timed else b"",
            *(text(6, text(1, key.encode()) + text(2, value.encode())) for key, value in properties.items()),
        ]
    )
    return text(1, body)


def _count(expected: Expected, kind: Kind, row: Row) -> None:
    expected.accepted += 1
    values = tuple(row.properties[name] for name in kind.dimensions)
    for meter, value in kind.meters.items():
        expected.sums[meter, row.subject, *values] += int(row.properties[value]) if value else 1
