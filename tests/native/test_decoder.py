"""Our decoder takes and refuses what protobuf's own does, and reads the same out of it."""

import random
import time
from collections import Counter
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from ammeter.usecases.engine import (
    Engine,
    EngineError,
    MeterBuilder,
    compress,
    decompress,
    panic_for_test,
    parse_quantity,
    segment_digest,
)
from ammeter.v1.usage_pb2 import EventOutcome, RecordUsageRequest, RecordUsageResponse
from tests import model
from tests.crash.results import publish, time_is_up
from tests.model import Event, Ledger, Meter
from tests.native import mutation
from tests.native.bench import FUTURE_SECONDS, KEY, PAST_SECONDS, TENANT, spec_of
from tests.native.encoding import event_bytes, request_bytes

NOW_US = 1_770_000_000_000_000
CASES = 20_000
LONG_CASES = 1_000_000
METER = Meter("tokens", "t", "SUM", "v", ("model",))

_FIELD = descriptor_pb2.FieldDescriptorProto


def _loose_messages() -> tuple[Any, Any]:
    """UsageEvent and its request with bytes for text, so that UTF-8 is a question of its own."""
    file = descriptor_pb2.FileDescriptorProto(name="loose.proto", package="loose", syntax="proto3")

    def message(name: str, *fields: tuple[int, str, "_FIELD.Type.ValueType", str]) -> None:
        found = file.message_type.add(name=name)
        for number, field, kind, of in fields:
            repeated = field.endswith("s")
            label = _FIELD.LABEL_REPEATED if repeated else _FIELD.LABEL_OPTIONAL
            found.field.add(name=field, number=number, type=kind, label=label, type_name=of or None)

    message("Time", (1, "second", _FIELD.TYPE_INT64, ""), (2, "nano", _FIELD.TYPE_INT32, ""))
    message("Entry", (1, "key", _FIELD.TYPE_BYTES, ""), (2, "value", _FIELD.TYPE_BYTES, ""))
    texts = [(n, f"text{n}", _FIELD.TYPE_BYTES, "") for n in (1, 2, 3, 4)]
    times = [(n, f"time{n}", _FIELD.TYPE_MESSAGE, ".loose.Time") for n in (5, 15)]
    message("Event", *texts, *times, (6, "entries", _FIELD.TYPE_MESSAGE, ".loose.Entry"))
    message("Request", (1, "events", _FIELD.TYPE_BYTES, ""), (2, "sequence_", _FIELD.TYPE_INT64, ""))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    names = ("loose.Event", "loose.Request")
    event, request = (GetMessageClass(pool.FindMessageTypeByName(name)) for name in names)
    return event, request


LooseEvent, LooseRequest = _loose_messages()


def _new_engine() -> Engine:
    engine = Engine(
        hash_key=KEY,
        horizon_past_seconds=PAST_SECONDS,
        horizon_future_seconds=FUTURE_SECONDS,
        max_pending_bytes=1 << 28,
    )
    engine.open_tenant(TENANT, 0, bytes(32))
    engine.put_meter(TENANT, spec_of(1, METER))
    return engine


def _random_event(rng: random.Random) -> Event:
    time = (1_770_000_000 - rng.randrange(86_400), rng.randrange(10**9)) if rng.random() < 0.7 else None
    properties = {key: str(rng.randrange(1000)) for key in rng.sample(["v", "w", "é"], rng.randrange(4))}
    if rng.random() < 0.5:
        properties["model"] = rng.choice(["", "x", "gpt"])
    return Event(str(rng.randrange(10**6)), rng.choice("ab"), rng.choice("tu"), "alice", time, properties)


def _expected(ledger: Ledger, body: bytes) -> tuple[str, set[str]]:
    """What the reference parser and the oracle make of one event."""
    try:
        loose = LooseEvent.FromString(body)
    except DecodeError:
        return "REJECTED", {"EVENT_MALFORMED"}
    texts = [loose.text1, loose.text2, loose.text3, loose.text4]
    entries = [(entry.key, entry.value) for entry in loose.entries]
    reasons = set()
    if loose.HasField("time15"):
        reasons.add("EVENT_RESERVED_FIELD")
    if len(body) > 16 * 1024:
        reasons.add("EVENT_TOO_LARGE")
    try:
        RecordUsageRequest.FromString(request_bytes([body]))
    except DecodeError:
        # Well-formed, and yet refused: a text is not UTF-8.
        return "REJECTED", reasons | {"EVENT_INVALID_UTF8"}
    time = (loose.time5.second, loose.time5.nano) if loose.HasField("time5") else None
    properties = {key.decode(): value.decode() for key, value in entries}
    event_id, source, kind, subject = (text.decode() for text in texts)
    event = Event(event_id, source, kind, subject, time, properties)
    if reasons:
        found = model.faults(event, NOW_US, ledger.past_us, ledger.future_us, [METER])
        return "REJECTED", reasons | found
    return ledger.judge(event, NOW_US, [METER])


@pytest.mark.timeout(180)
def test_twenty_thousand_encodings_are_read_as_the_reference_parser_reads_them(rng: random.Random) -> None:
    _read_both_ways(rng)


@pytest.mark.long
def test_a_million_encodings_are_read_as_the_reference_parser_reads_them(rng: random.Random) -> None:
    end = time_is_up()
    total: Counter[str] = Counter()
    while total["messages"] < LONG_CASES and time.monotonic() < end:
        total.update(_read_both_ways(rng))
        publish("decoder", f"beside protobuf's own parser: {dict(total)}; 0 read otherwise, totals equal")


def _read_both_ways(rng: random.Random) -> dict[str, int]:
    """Differ in nothing over CASES messages; returns how many were what."""
    engine = _new_engine()
    ledger = Ledger(PAST_SECONDS * 1_000_000, FUTURE_SECONDS * 1_000_000)
    malformed = rejected = stored = 0
    for case in range(CASES):
        body = mutation.request(rng, [_random_event(rng) for _ in range(rng.randrange(1, 4))])
        try:
            bodies = list(LooseRequest.FromString(body).events)
        except DecodeError:
            with pytest.raises(EngineError) as refused:
                engine.admit(TENANT, body, NOW_US)
            assert refused.value.reason == "MALFORMED_REQUEST", body.hex()
            malformed += 1
            continue
        try:
            receipt = engine.admit(TENANT, body, NOW_US)
        except EngineError as error:
            assert _is_stricter(error.message, body), body.hex()  # noqa: PT017 - there need not be one
            continue
        response = RecordUsageResponse.FromString(receipt.encode(1))
        results = {result.index: result for result in response.results}
        for index, one in enumerate(bodies):
            found = results.get(index)
            if found is not None and _is_stricter(found.message, one):
                continue
            outcome, reasons = _expected(ledger, one)
            assert (EventOutcome.Name(found.outcome)[14:] if found else "ACCEPTED") == outcome, body.hex()
            assert found is None or (found.reason in reasons if reasons else not found.reason), body.hex()
            rejected += outcome == "REJECTED"
        if case % 1000 == 999:
            stored += _commit(engine)
    assert min(malformed, rejected) > CASES // 50
    stored += _commit(engine)
    assert stored == len(ledger.counted)
    _same_totals(engine, ledger)
    return {"messages": CASES, "malformed": malformed, "events rejected": rejected, "events stored": stored}


def _is_stricter(message: str, body: bytes) -> bool:
    """Field number 0 inside an unknown group, a start tag of which must be there, is refused by us alone."""
    return "field number 0" in message and any(byte & 7 == 3 for byte in body)


def _commit(engine: Engine) -> int:
    """Make all durable; any protobuf tool can read what is stored."""
    count = 0
    while group := engine.seal(NOW_US):
        for segment in group.segments:
            raw = decompress(segment.codec, segment.payload, segment.raw_bytes)
            assert len(RecordUsageRequest.FromString(raw).events) == segment.event_count
        engine.fold(group)
        count += group.event_count
    return count


def _same_totals(engine: Engine, ledger: Ledger) -> None:
    minute = NOW_US // 60_000_000
    edges = [minute - 1500, minute + 10]
    found = engine.query(TENANT, 1, [], 0, edges, ["model"], [], [], [])
    rows = model.usage(ledger.counted, METER, edges, group_by=["model"])
    assert [row[2][0] for row in rows] == found.groups[0]
    assert [row[3] for row in rows] == [value // 10**12 for value in found.values]
    assert [row[4] for row in rows] == found.event_counts


def test_random_texts_are_quantities_to_both_or_to_neither(rng: random.Random) -> None:
    for _ in range(20_000):
        text = "".join(
            rng.choices(
                "0123456789.+-eE ٣x", (8,) * 10 + (6, 1, 1, 0.3, 0.3, 0.3, 0.3, 0.3), k=rng.randrange(45)
            )
        )
        expected = model.quantity(text)
        found = parse_quantity(text)
        assert found == (None if expected is None else expected * 10**12), text


def test_a_panic_is_an_error_and_the_engine_goes_on() -> None:
    engine = _new_engine()
    for _ in range(3):
        with pytest.raises(EngineError) as caught:
            panic_for_test()
        assert caught.value.reason == "PANIC"
    assert engine.stats()["panics"] >= 3
    body = request_bytes([event_bytes(Event("1", "s", "t", "alice"))])
    assert engine.admit(TENANT, body, NOW_US).accepted == 1
    assert _commit(engine) == 1


def test_an_event_sent_again_and_again_until_it_is_too_old_is_never_counted_twice() -> None:
    engine = _new_engine()
    day = 86_400
    start = NOW_US // 1_000_000
    ages = (*range(-35 * day, FUTURE_SECONDS + 1, 7 * 3600), -35 * day, -35 * day + 1, FUTURE_SECONDS)
    events = [Event(f"{age}", "s", "t", "alice", (start + age, 0)) for age in ages]
    events = list({event.id: event for event in events}.values())
    body = request_bytes(event_bytes(event) for event in events)
    assert engine.admit(TENANT, body, NOW_US).accepted == len(events)
    _commit(engine)
    for hours in (1, 5, 23, 24, 25, *range(48, 36 * 24 + 30, 13)):
        now_us = NOW_US + hours * 3_600_000_000
        engine.expire_identities(now_us)
        receipt = engine.admit(TENANT, body, now_us)
        old = sum(
            (event.time or (0, 0))[0] * 1_000_000 < now_us - PAST_SECONDS * 1_000_000 for event in events
        )
        assert (receipt.accepted, receipt.rejected) == (0, old)
        assert receipt.duplicates == len(events) - old
    assert engine.stats()["identities"] < len(events)


def test_a_changed_byte_in_a_segment_is_found(rng: random.Random) -> None:
    engine = _new_engine()
    body = request_bytes(event_bytes(_random_event(rng)) for _ in range(50))
    engine.admit(TENANT, body, NOW_US)
    group = engine.seal(NOW_US)
    assert group is not None
    segment = group.segments[0]
    assert segment.digest == segment_digest(
        bytes(32),
        TENANT,
        1,
        segment.event_count,
        NOW_US,
        segment.raw_bytes,
        decompress(segment.codec, segment.payload, segment.raw_bytes),
    )
    for _ in range(200):
        payload = bytearray(segment.payload)
        payload[rng.randrange(len(payload))] ^= 1 << rng.randrange(8)
        fresh = _new_engine()
        row = (
            1,
            segment.codec,
            bytes(payload),
            segment.raw_bytes,
            segment.event_count,
            NOW_US,
            segment.digest,
            None,
        )
        with pytest.raises(EngineError) as caught:
            fresh.replay(TENANT, [row], 1, 0, True, NOW_US)  # noqa: FBT003 - positional in the bridge
        assert caught.value.reason == "CORRUPT"
        assert fresh.position(TENANT) == 0


def test_a_built_meter_names_the_events_whose_value_is_no_number() -> None:
    values = ["1", "x", "2", "NaN", "3", "1e9", *["?"] * 12]
    events = [Event(f"{n}", "src", "t", "a", None, {"v": value}) for n, value in enumerate(values)]
    raw = request_bytes(event_bytes(event) + bytes.fromhex("7a020801") for event in events)
    builder = MeterBuilder(KEY, TENANT, spec_of(1, METER))
    builder.add(1, 1, compress(1, raw), len(raw))
    bad = [f"src/{n}" for n, value in enumerate(values) if model.quantity(value) is None]
    assert builder.skipped_count == len(bad) == 15
    assert builder.skipped_events == bad[:10]
    assert builder.row_count == 1
