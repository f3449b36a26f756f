"""The LLM gateway's events, encoded ahead of time, and what their counts and sums must come to.

Random UUIDs as ids, 10,000 subjects drawn evenly (the hardest case for every cache), three models,
times over the last two minutes as live traffic has them. 1 % of the events are sent twice within the
last thousand, 0.1 % carry a number that is none.
"""

import os
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

SUBJECTS = 10_000
MODELS = ("gpt-4o-mini", "claude-sonnet", "llama-3-70b")
EVENT_TYPE = "llm.completion"
FEATURE = "input-tokens"
METERS = {"requests": "", "input-tokens": "input_tokens", "output-tokens": "output_tokens"}
_DUPLICATES = 0.01
_BAD = 0.001
_RECENT = 1000
_SPAN_SECONDS = 120
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
    model: str
    input_tokens: int
    output_tokens: int


@dataclass
class Expected:
    """What sending a workload once must come to."""

    sent: int = 0
    accepted: int = 0
    duplicates: int = 0
    rejected: int = 0
    sums: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """By (meter, subject, model)."""

    def by_model(self, meter: str) -> dict[str, int]:
        """Sum over the subjects."""
        found: Counter[str] = Counter()
        for (one, _, model), value in self.sums.items():
            if one == meter:
                found[model] += value
        return dict(found)


@dataclass(frozen=True)
class Workload:
    """Events in the order sent; `rows` are the good ones, duplicates included."""

    events: list[bytes]
    rows: list[Row]
    expected: Expected


def generate(count: int, seed: int, bad_share: float = _BAD) -> Workload:
    """Make `count` events; equal seeds give equal events but for their ids' and times' base."""
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
            row = _draw(rng, now_us - _SPAN_SECONDS * 1_000_000 * (count - index) // count)
            event = _encode(row, b"many" if bad else str(row.input_tokens).encode())
            if bad:
                work.events.append(event)
                work.expected.rejected += 1
                continue
            if len(recent) < _RECENT:
                recent.append((event, row))
            else:
                recent[index % _RECENT] = (event, row)
            _count(work.expected, row)
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
    """Encode a RecordUsageRequest with an event of now."""
    identity = os.urandom(16).hex()
    row = Row(identity, subject, time.time_ns() // 1000, MODELS[0], input_tokens, 1)
    return _encode(row, str(input_tokens).encode())


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


def _draw(rng: random.Random, time_us: int) -> Row:
    raw = os.urandom(16).hex()
    return Row(
        event_id=f"{raw[:8]}-{raw[8:12]}-4{raw[13:16]}-a{raw[17:20]}-{raw[20:]}",
        subject=f"customer-{rng.randrange(SUBJECTS):05d}",
        time_us=time_us // 1000 * 1000,
        model=MODELS[rng.randrange(len(MODELS))],
        input_tokens=rng.randrange(20, 4000),
        output_tokens=rng.randrange(1, 1500),
    )


def _encode(row: Row, input_tokens: bytes) -> bytes:
    seconds, micros = divmod(row.time_us, 1_000_000)
    stamp = b"\x08" + varint(seconds) + (b"\x10" + varint(micros * 1000) if micros else b"")
    properties = (
        (b"model", row.model.encode()),
        (b"input_tokens", input_tokens),
        (b"output_tokens", str(row.output_tokens).encode()),
    )
    body = b"".join(
        [
            text(1, row.event_id.encode()),
            text(2, _MARK),
            text(3, EVENT_TYPE.encode()),
            text(4, row.subject.encode()),
            text(5, stamp),
            *(text(6, text(1, key) + text(2, value)) for key, value in properties),
        ]
    )
    return text(1, body)


def _count(expected: Expected, row: Row) -> None:
    expected.accepted += 1
    expected.sums["requests", row.subject, row.model] += 1
    expected.sums["input-tokens", row.subject, row.model] += row.input_tokens
    expected.sums["output-tokens", row.subject, row.model] += row.output_tokens
