"""An engine with everything around it that a database would do, beside the oracle that knows the answers."""

import itertools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from ammeter.usecases.engine import (
    QUANTITY_SCALE,
    Block,
    Engine,
    EngineError,
    Frozen,
    MeterBuilder,
    MeterSpec,
    SealedGroup,
    Segment,
    merge_blocks,
)
from ammeter.v1.usage_pb2 import EventOutcome, RecordUsageResponse, StreamUsageResponse
from tests.model import Event, Ledger, Meter, Row, usage
from tests.native.encoding import event_bytes, request_bytes

TENANT = 7
KEY = b"0123456789abcdef"
PAST_SECONDS = 35 * 86_400
FUTURE_SECONDS = 300
LIMIT = 10**26
# Of a stored row; the parts, which only packs have, come last.
_ROW = ("position", "codec", "payload", "raw_bytes", "event_count", "recorded_us", "digest")


def spec_of(number: int, meter: Meter) -> MeterSpec:
    return MeterSpec(
        number,
        meter.key,
        meter.event_type,
        meter.aggregation,
        meter.value_property,
        meter.dimensions,
        meter.filters,
    )


@dataclass
class Measured:
    """A meter as it was put: its blocks reach `built`, so replay counts it only from there on."""

    meter: Meter
    built: int


@dataclass
class Counter:
    """What a counter was put with."""

    meter: int
    customer: str
    filters: list[tuple[str, list[str]]]
    edges: list[int]


class Bench:
    """One tenant. What is "in the database" survives `crash`, what is in the engine does not."""

    def __init__(self, now_us: int, shuffle: random.Random) -> None:
        self.now_us = now_us
        self.shuffle = shuffle
        self.engine = self._new_engine()
        self.engine.open_tenant(TENANT, 0, bytes(32))
        self.ledger = Ledger(PAST_SECONDS * 1_000_000, FUTURE_SECONDS * 1_000_000)
        self.durable_events = 0
        self.meters: dict[int, Measured] = {}
        self.owners: dict[str, list[tuple[int, int, str]]] = {}
        self.counters: dict[int, Counter] = {}
        # The database.
        self.segments: list[Segment] = []
        self.blocks: dict[tuple[int, int], list[bytes]] = {}
        self.checkpoint = 0
        self.unwritten: list[Frozen] = []

    def _new_engine(self) -> Engine:
        return Engine(
            hash_key=KEY,
            horizon_past_seconds=PAST_SECONDS,
            horizon_future_seconds=FUTURE_SECONDS,
            max_pending_bytes=1 << 26,
            codec=self.shuffle.randrange(3),
        )

    # Ingest

    def admit(self, events: Sequence[Event], sequence: int = 0) -> None:
        """Send a request; every outcome is the oracle's."""
        body = request_bytes((event_bytes(event, self.shuffle) for event in events), sequence)
        meters = [one.meter for one in self.meters.values()]
        expected = [self.ledger.judge(event, self.now_us, meters) for event in events]
        receipt = self.engine.admit(TENANT, body, self.now_us)
        answer = (StreamUsageResponse if sequence else RecordUsageResponse).FromString(receipt.encode(99))
        results = {result.index: result for result in answer.results}
        for index, (event, (outcome, reasons)) in enumerate(zip(events, expected, strict=True)):
            result = results.pop(index, None)
            assert (EventOutcome.Name(result.outcome)[14:] if result else "ACCEPTED") == outcome, event
            if result is not None:
                assert (result.reason in reasons) if reasons else not result.reason
                assert result.id == (event.id if len(event.id.encode()) <= 256 else "")
            if result is not None and outcome == "CONFLICT":
                assert result.stored_digest == self.digest(self.ledger.first[event.source, event.id])
        assert not results
        words = [outcome for outcome, _ in expected]
        counts = [words.count(word) for word in ("ACCEPTED", "DUPLICATE", "CONFLICT", "REJECTED")]
        assert counts == [receipt.accepted, receipt.duplicates, receipt.conflicts, receipt.rejected]
        assert counts == [
            answer.accepted_count,
            answer.duplicate_count,
            answer.conflict_count,
            answer.rejected_count,
        ]
        assert answer.position == 99
        assert receipt.sequence == sequence
        if receipt.accepted or self._stands_in_flight(events, expected):
            assert receipt.group > 0
        if words.count("REJECTED") == len(words):
            assert receipt.group == 0
        assert sum(count for _, count in receipt.rejections) == receipt.rejected

    def _stands_in_flight(self, events: Sequence[Event], expected: Sequence[tuple[str, object]]) -> bool:
        """Whether an answer leans on an event that is not durable: then it has to wait for that."""
        in_flight = [one.event for one in self.ledger.counted[self.durable_events :]]
        return any(
            outcome in ("DUPLICATE", "CONFLICT") and self.ledger.first[event.source, event.id] in in_flight
            for event, (outcome, _) in zip(events, expected, strict=True)
        )

    def digest(self, event: Event) -> str:
        """The content digest that a fresh engine, which saw this event alone, shows for it."""
        raw = request_bytes([event_bytes(event)])
        if event.time is None:  # as stored: stamped
            raw = request_bytes([event_bytes(event) + bytes.fromhex("7a020801")])
        found = self.engine.scan(
            TENANT, 1, 0, raw, len(raw), None, -(2**62), 2**62, "", "", "", "", (2, 0), 1
        )
        return found.digests[0]

    def seal(self) -> SealedGroup | None:
        group = self.engine.seal(self.now_us)
        again = self.engine.seal(self.now_us + 1)
        if group is None:
            assert again is None
            return None
        assert again is not None
        assert [s.digest for s in again.segments] == [s.digest for s in group.segments]
        return group

    def commit(self) -> bool:
        """Make one group durable and fold it; False if there was none."""
        group = self.seal()
        if group is None:
            return False
        self._append(group)
        self.engine.fold(group)
        self.check_counters()
        return True

    def commit_all(self) -> None:
        while self.commit():
            pass
        assert self.durable_events == len(self.ledger.counted)
        assert self.engine.pending_bytes == 0

    def _append(self, group: SealedGroup) -> None:
        for segment in group.segments:
            assert segment.position == len(self.segments) + 1
            self.segments.append(segment)
        self.durable_events += group.event_count

    # Checkpoints

    def freeze(self) -> None:
        self.unwritten.append(self.engine.freeze())

    def write_checkpoint(self) -> None:
        """Write the oldest frozen table; the engine may forget it only after that."""
        frozen = self.unwritten.pop(0)
        self.store([block for block in frozen.blocks if block.meter in self.meters])
        self.checkpoint = dict(frozen.positions).get(TENANT, self.checkpoint)
        self.engine.discard(frozen)

    def store(self, blocks: Sequence[Block]) -> None:
        for block in blocks:
            self.blocks.setdefault((block.meter, block.day), []).append(block.payload)

    def merge(self) -> None:
        """Merge what lies in every day into as few blocks as it takes."""
        for (meter, day), payloads in list(self.blocks.items()):
            self.shuffle.shuffle(payloads)
            self.blocks[meter, day] = [b.payload for b in merge_blocks(TENANT, meter, day, payloads)]

    # Meters and owners

    def put_meter(self, meter: Meter) -> None:
        """Put a meter and build it from history."""
        number = max(self.meters, default=0) + 1
        spec = spec_of(number, meter)
        barrier = self.engine.put_meter(TENANT, spec)
        self.meters[number] = Measured(meter, barrier)
        while len(self.segments) < barrier:
            assert self.commit()
        builder = MeterBuilder(KEY, TENANT, spec)
        for segment in self.segments[:barrier]:
            builder.add(segment.position, segment.codec, segment.payload, segment.raw_bytes)
            if self.shuffle.random() < 0.2:
                self.store(builder.take_blocks())
        self.store(builder.take_blocks())

    def drop_meter(self, number: int) -> None:
        self.engine.drop_meter(TENANT, number)
        del self.meters[number]
        for counter in [key for key, one in self.counters.items() if one.meter == number]:
            self.engine.drop_counter(TENANT, counter)
            del self.counters[counter]
        self.blocks = {key: payloads for key, payloads in self.blocks.items() if key[0] != number}

    def own(self, subject: str, spans: list[tuple[int, int, str]]) -> None:
        self.owners[subject] = spans
        self.engine.set_subject(TENANT, subject, [(a, b, int(key)) for a, b, key in spans])
        for number, counter in self.counters.items():
            self.put_counter(number, counter)

    # Counters

    def put_counter(self, number: int, counter: Counter) -> None:
        """Count from blocks and memory as they are, and from now on at every fold."""
        self.counters[number] = counter
        self.engine.put_counter(
            TENANT,
            number,
            counter.meter,
            int(counter.customer),
            counter.filters,
            counter.edges,
            self.blocks_of(counter.meter, counter.edges),
            self.checkpoint,
        )

    def check_counters(self) -> None:
        """Every span of every counter holds what the oracle adds up, folded events and no others."""
        folded = sum(segment.event_count for segment in self.segments)
        for number, counter in self.counters.items():
            rows = usage(
                self.ledger.counted[:folded],
                self.meters[counter.meter].meter,
                counter.edges,
                filters=counter.filters,
                customers=[counter.customer],
                owners=self.owners,
            )
            found = {row[0]: row[3] for row in rows}
            for start, end in itertools.pairwise(counter.edges):
                expected = found.get(start) or Fraction(0)
                if abs(expected) < LIMIT:
                    quantity, *span = self.engine.usage(TENANT, number, end - 1)
                    assert Fraction(quantity, QUANTITY_SCALE) == expected
                    assert span == [start, end]

    # The end of a process

    def crash(self, *, sealed_is_durable: bool) -> None:
        """Lose the engine; the group in flight may have become durable all the same."""
        group = self.engine.seal(self.now_us)
        if group is not None and sealed_is_durable:
            self._append(group)
        self.ledger.forget_after(self.durable_events)
        self.unwritten.clear()
        self.counters.clear()
        self.engine = self._new_engine()
        self.engine.open_tenant(TENANT, 0, bytes(32))
        for number, measured in self.meters.items():
            if measured.built <= self.checkpoint:
                self.engine.put_meter(TENANT, spec_of(number, measured.meter))
        for segment in self.segments:
            for number, measured in self.meters.items():
                if self.checkpoint < measured.built == segment.position - 1:
                    self.engine.put_meter(TENANT, spec_of(number, measured.meter))
            row = (*(getattr(segment, name) for name in _ROW), None)
            fold = segment.position > self.checkpoint
            self.engine.replay(TENANT, [row], segment.position, 0, fold, self.now_us)
        for number, measured in self.meters.items():
            if measured.built == len(self.segments) > self.checkpoint:
                self.engine.put_meter(TENANT, spec_of(number, measured.meter))
        for subject, spans in self.owners.items():
            self.own(subject, spans)

    # Answers

    def durable(self) -> list[Any]:
        return self.ledger.counted[: self.durable_events]

    def query(self, number: int, edges: Sequence[int], **wanted: Any) -> None:  # noqa: ANN401
        """Ask engine and oracle the same; both refuse a sum that is too great."""
        self.commit_all()
        rows = usage(self.durable(), self.meters[number].meter, edges, owners=self.owners, **wanted)
        read = self.blocks_of(number, edges)

        def ask() -> list[Row]:
            result = self.engine.query(
                TENANT,
                number,
                read,
                self.checkpoint,
                edges,
                wanted.get("group_by", ()),
                wanted.get("filters", ()),
                wanted.get("subjects", ()),
                [int(key) for key in wanted.get("customers", ())],
            )
            assert result.position == len(self.segments)
            groups = list(zip(*result.groups, strict=True)) or [()] * len(result.windows)
            columns = (result.windows, groups, result.values, result.event_counts)
            return [
                (edges[window], edges[window + 1], group, Fraction(value, QUANTITY_SCALE), count)
                for window, group, value, count in zip(*columns, strict=True)
            ]

        same_or_out_of_range(rows, ask)

    def blocks_of(self, number: int, edges: Sequence[int]) -> list[bytes]:
        days = range(edges[0] // 1440, (edges[-1] - 1) // 1440 + 1)
        found = [
            p for (meter, day), some in self.blocks.items() if meter == number and day in days for p in some
        ]
        self.shuffle.shuffle(found)
        return found


def same_or_out_of_range(rows: list[Row], ask: Callable[[], list[Row]]) -> None:
    if any(row[3] is not None and abs(row[3]) >= LIMIT for row in rows):
        try:
            ask()
        except EngineError as error:
            assert error.reason == "OUT_OF_RANGE"  # noqa: PT017 - either way is checked
            return
        raise AssertionError("a sum too great was answered")
    assert ask() == rows
