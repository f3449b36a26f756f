"""Queries over the wire give the oracle's rows: windows in any zone, groups, filters, pages, history."""

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from functools import cache
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from ammeter.v1 import customer_pb2, meter_pb2, usage_pb2
from tests import model
from tests.model import Counted, Event, Meter
from tests.serving import ServerProcess, Stubs

ZONES = ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "UTC")
SUBJECTS = ("alice", "bob", "carol", "dave")
DAYS = 380
EVENTS = 1500
AGGREGATIONS = ("COUNT", "SUM", "MIN", "MAX", "AVG", "UNIQUE_COUNT", "LATEST")


def _meter(aggregation: str, **more: Any) -> Meter:  # noqa: ANN401 - fields of Meter by name
    value = "" if aggregation == "COUNT" else "amount"
    key = aggregation.lower().replace("_", "-")
    return replace(Meter(key, "used", aggregation, value, ("model", "zone")), **more)


class World(NamedTuple):
    """What is in the server, and what the oracle knows of it."""

    stubs: Stubs
    counted: list[Counted]
    owners: dict[str, list[tuple[int, int, str]]]
    first_minute: int
    last_minute: int
    shifts: list[int]


@pytest.fixture(scope="module")
def server(
    new_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    directory = tmp_path_factory.mktemp("queries")
    settings = {"event_horizon_days": DAYS + 20, "checkpoint_interval_seconds": 0.3}
    with ServerProcess(new_database(), directory, **settings) as process:
        yield process


@pytest.fixture(scope="module")
def world(server: ServerProcess) -> World:
    """Meters, a year of events around the changes of clocks, subjects that change hands."""
    seed = random.SystemRandom().getrandbits(32)
    print(f"world: seed {seed}")  # noqa: T201 - pytest shows it when a test fails
    rng = random.Random(seed)  # noqa: S311 - to be repeated
    stubs = server.stubs()
    now = int(time.time()) // 60
    shifts = _clock_changes(now - DAYS * 1440, now)
    counted = [_event(rng, number, now, shifts) for number in range(EVENTS)]
    for aggregation in AGGREGATIONS:
        create(stubs, _meter(aggregation))
    for start in range(0, EVENTS, 100):
        record(stubs, counted[start : start + 100])
    owners = _hand_out_subjects(stubs, now)
    return World(stubs, counted, owners, now - DAYS * 1440, now, shifts)


def _clock_changes(first: int, last: int) -> list[int]:
    """The minutes at which any of the zones changes its offset."""
    found = []
    for zone in map(ZoneInfo, ZONES):
        before = None
        for minute in range(first // 30 * 30, last, 30):
            offset = _local(minute, zone).utcoffset()
            if before is not None and offset != before:
                found.append(minute)
            before = offset
    assert len(found) >= 5, "a year has clock changes"
    return found


def _local(minute: int, zone: ZoneInfo) -> datetime:
    return datetime.fromtimestamp(minute * 60, UTC).astimezone(zone)


def _event(rng: random.Random, number: int, now: int, shifts: list[int]) -> Counted:
    near = (
        rng.choice(shifts) + rng.choice((-1440, -90, -60, -30, -1, 0, 1, 30, 60, 90)) + rng.randrange(-2, 3)
    )
    minute = rng.choice((near, now - 1 - rng.randrange(DAYS * 1440), now - 1 - rng.randrange(60)))
    time_us = min(minute, now - 1) * 60_000_000 + rng.choice((0, 1, 59_999_999, rng.randrange(60_000_000)))
    properties = {"model": rng.choice("abc")}
    if rng.random() < 0.9:
        properties["amount"] = rng.choice(("0", "-1.5", "0.000000000001", str(rng.randrange(1000)), "7"))
    if rng.random() < 0.5:
        properties["zone"] = rng.choice(("eu", "us", ""))
    # Read by no meter yet: not every one is a number.
    properties["later"] = rng.choice(("1", "2.5", "many", "1e3"))
    when = (time_us // 1_000_000, time_us % 1_000_000 * 1000)
    event = Event(f"e{number}", rng.choice(("gw1", "gw2")), "used", rng.choice(SUBJECTS), when, properties)
    return Counted(event, time_us)


def _hand_out_subjects(stubs: Stubs, now: int) -> dict[str, list[tuple[int, int, str]]]:
    """alice stays, bob moves twice, carol is released, dave is nobody's."""
    for key, subjects in (("acme", ["alice", "bob", "carol"]), ("birch", []), ("cobalt", [])):
        customer = customer_pb2.Customer(customer_key=key)
        stubs.customers.CreateCustomer(
            customer_pb2.CreateCustomerRequest(customer=customer, subjects=subjects)
        )
    first, second, ended = now - 200 * 1440, now - 30, now - 90 * 1440 - 7
    for key, minute in (("birch", first), ("cobalt", second)):
        request = customer_pb2.AssignSubjectRequest(customer_key=key, subject="bob", from_time=stamp(minute))
        stubs.customers.AssignSubject(request)
    stubs.customers.ReleaseSubject(
        customer_pb2.ReleaseSubjectRequest(customer_key="acme", subject="carol", to_time=stamp(ended))
    )
    start, end = -(2**31), 2**31
    return {
        "alice": [(start, end, "acme")],
        "bob": [(start, first, "acme"), (first, second, "birch"), (second, end, "cobalt")],
        "carol": [(start, ended, "acme")],
    }


def stamp(minute: int) -> Timestamp:
    return Timestamp(seconds=minute * 60)


def record(stubs: Stubs, counted: list[Counted]) -> None:
    events = [
        usage_pb2.UsageEvent(
            id=event.id,
            source=event.source,
            type=event.type,
            subject=event.subject,
            time=Timestamp(seconds=event.time[0], nanos=event.time[1]) if event.time else None,
            properties=event.properties,
        )
        for event in (one.event for one in counted)
    ]
    answer = stubs.usage.RecordUsage(usage_pb2.RecordUsageRequest(events=events))
    assert answer.accepted_count == len(counted), answer


def _wait(stubs: Stubs, meter_key: str, dimensions: tuple[str, ...]) -> meter_pb2.Meter:
    deadline = time.monotonic() + 30
    while True:
        meter = stubs.meters.GetMeter(meter_pb2.GetMeterRequest(meter_key=meter_key)).meter
        if meter.state == meter_pb2.Meter.STATE_ACTIVE and tuple(meter.dimensions) == dimensions:
            return meter
        assert time.monotonic() < deadline, "the build does not end"
        time.sleep(0.02)


def create(stubs: Stubs, meter: Meter) -> meter_pb2.Meter:
    message = meter_pb2.Meter(
        meter_key=meter.key,
        event_type=meter.event_type,
        aggregation=meter_pb2.Aggregation.Value(f"AGGREGATION_{meter.aggregation}"),
        value_property=meter.value_property,
        dimensions=meter.dimensions,
        filters=[
            meter_pb2.PropertyFilter(
                property=name,
                operator=meter_pb2.PropertyFilter.Operator.Value(f"OPERATOR_{operator}"),
                values=values,
            )
            for name, operator, values in meter.filters
        ],
    )
    stubs.meters.CreateMeter(meter_pb2.CreateMeterRequest(meter=message))
    return _wait(stubs, meter.key, meter.dimensions)


class Question(NamedTuple):
    """A query in the oracle's words."""

    meter: Meter
    first: int
    last: int
    size: str = "TOTAL"
    zone: str = "UTC"
    group_by: tuple[str, ...] = ()
    subjects: tuple[str, ...] = ()
    customers: tuple[str, ...] = ()
    filters: tuple[tuple[str, tuple[str, ...]], ...] = ()
    fill: bool = False


def ask(stubs: Stubs, question: Question, page_size: int = 10_000) -> list[model.Row]:
    """All rows, page by page."""
    size = "UNSPECIFIED" if question.size == "TOTAL" else question.size
    request = usage_pb2.QueryUsageRequest(
        meter_key=question.meter.key,
        from_time=stamp(question.first),
        to_time=stamp(question.last),
        window_size=usage_pb2.WindowSize.Value(f"WINDOW_SIZE_{size}"),
        time_zone=question.zone,
        group_by=question.group_by,
        subjects=question.subjects,
        customer_keys=question.customers,
        filters=[
            usage_pb2.DimensionFilter(dimension=name, values=values) for name, values in question.filters
        ],
        fill=question.fill,
        page_size=page_size,
    )
    rows: list[model.Row] = []
    while True:
        answer = stubs.usage.QueryUsage(request)
        assert len(answer.rows) <= page_size
        for row in answer.rows:
            span = (row.from_time.seconds // 60, row.to_time.seconds // 60)
            value = Fraction(row.value) if row.HasField("value") else None
            rows.append((*span, tuple(row.group_values), value, row.event_count))
        if not answer.next_page_token:
            return rows
        assert len(answer.rows) == page_size, "a page that is not the last is full"
        request.page_token = answer.next_page_token


@cache
def _edges(first: int, last: int, size: str, zone: str) -> list[int]:
    return model.window_edges(first, last, size, ZoneInfo(zone))


def expected(world: World, question: Question) -> list[model.Row]:
    edges = _edges(question.first, question.last, question.size, question.zone)
    rows = model.usage(
        world.counted,
        question.meter,
        edges,
        group_by=question.group_by,
        filters=question.filters,
        subjects=question.subjects,
        customers=question.customers,
        owners=world.owners,
    )
    return model.filled(rows, question.meter, edges) if question.fill else rows


def same(world: World, question: Question, page_size: int = 10_000) -> int:
    rows = ask(world.stubs, question, page_size)
    assert rows == expected(world, question), question
    return len(rows)


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("size", ["HOUR", "DAY"])
def test_windows_around_every_change_of_clocks_are_those_of_the_zone(
    world: World, zone: str, size: str, rng: random.Random
) -> None:
    for shift in world.shifts:
        first = shift - rng.randrange(1000, 4000)
        last = min(shift + rng.randrange(1000, 4000), world.last_minute)
        meter = _meter(rng.choice(AGGREGATIONS))
        same(world, Question(meter, first, last, size, zone, fill=rng.random() < 0.3))


@pytest.mark.parametrize("zone", ["Europe/Berlin", "Australia/Lord_Howe"])
@pytest.mark.parametrize("size", ["WEEK", "MONTH"])
def test_weeks_and_months_of_a_year_are_those_of_the_zone(world: World, zone: str, size: str) -> None:
    for aggregation in AGGREGATIONS:
        question = Question(_meter(aggregation), world.first_minute, world.last_minute, size, zone)
        assert same(world, question._replace(group_by=("customer",))) > 10
        same(world, question._replace(fill=True, group_by=("model",)), page_size=7)


def test_random_queries_in_pages_of_random_size_equal_the_oracle(world: World, rng: random.Random) -> None:
    names = ("subject", "customer", "model", "zone")
    for _ in range(60):
        size = rng.choice(("TOTAL", "MINUTE", "HOUR", "DAY"))
        length = rng.choice((60, 1440) if size in ("MINUTE", "HOUR") else (60, 5000, 40_000))
        last = rng.choice((world.last_minute, rng.choice(world.shifts) + 90))
        question = Question(
            _meter(rng.choice(AGGREGATIONS)),
            last - length,
            last,
            size,
            rng.choice(ZONES),
            group_by=tuple(rng.sample(names, rng.randrange(4))),
            subjects=tuple(rng.sample((*SUBJECTS, "nobody"), rng.choice((0, 0, 1, 2)))),
            customers=tuple(rng.sample(("acme", "birch", "cobalt"), rng.choice((0, 0, 1, 2)))),
            filters=(("model", tuple(rng.sample("abcx", 2))),) if rng.random() < 0.4 else (),
            fill=rng.random() < 0.2,
        )
        rows = len(expected(world, question))
        same(world, question, rng.choice((rows // 3 + 1, 10_000)))


def test_a_meter_created_after_its_events_counts_what_one_created_before_counts(world: World) -> None:
    for aggregation in AGGREGATIONS:
        before = _meter(aggregation)
        after = replace(before, key=f"{before.key}-after")
        assert create(world.stubs, after).skipped_count == 0
        question = Question(after, world.first_minute, world.last_minute, "DAY", "Europe/Berlin", ("model",))
        assert ask(world.stubs, question) == ask(world.stubs, question._replace(meter=before))
        assert same(world, question) > 100


def test_a_meter_built_from_history_skips_what_is_no_number_and_says_so(world: World) -> None:
    filters = (("zone", "NOT_EQUALS", ("us",)), ("model", "IN", ("a", "b")), ("amount", "EXISTS", ()))
    later = _meter("SUM", key="later", value_property="later", filters=filters, dimensions=())
    made = create(world.stubs, later)
    skipped = [
        f"{one.event.source}/{one.event.id}"
        for one in world.counted
        if model.applies(later, one.event) and model.measured(later, one.event) is None
    ]
    assert made.skipped_count == len(skipped) > 100
    assert list(made.skipped_events) == skipped[:10]
    same(world, Question(later, world.first_minute, world.last_minute, "DAY"))
    world.stubs.meters.DeleteMeter(meter_pb2.DeleteMeterRequest(meter_key="later"))


def test_added_dimensions_are_built_from_history(world: World) -> None:
    narrow = _meter("SUM", key="narrow", dimensions=("model",))
    create(world.stubs, narrow)
    wide = replace(narrow, dimensions=("model", "zone"))
    request = meter_pb2.UpdateMeterRequest(
        meter=meter_pb2.Meter(meter_key="narrow", dimensions=wide.dimensions)
    )
    request.update_mask.paths.append("dimensions")
    world.stubs.meters.UpdateMeter(request)
    _wait(world.stubs, "narrow", wide.dimensions)
    question = Question(wide, world.first_minute, world.last_minute, "TOTAL", group_by=("zone", "model"))
    assert same(world, question) > 5


def test_a_deleted_meter_is_gone_its_events_stay_and_it_can_be_made_again(world: World) -> None:
    gone = _meter("SUM", key="gone")
    question = Question(gone, world.first_minute, world.last_minute, "DAY")
    create(world.stubs, gone)
    same(world, question)
    world.stubs.meters.DeleteMeter(meter_pb2.DeleteMeterRequest(meter_key="gone"))
    with pytest.raises(grpc.RpcError) as refused:
        ask(world.stubs, question)
    assert refused.value.code() == grpc.StatusCode.NOT_FOUND
    create(world.stubs, gone)
    same(world, question)


def _list(stubs: Stubs, **wanted: object) -> list[usage_pb2.StoredEvent]:
    request = usage_pb2.ListEventsRequest(**wanted)  # type: ignore[arg-type]  # fields by name
    found: list[usage_pb2.StoredEvent] = []
    while True:
        page = stubs.usage.ListEvents(request)
        found += page.events
        if not page.next_page_token:
            return found
        request.page_token = page.next_page_token


def test_events_are_listed_whole_newest_first_whatever_the_filter(world: World, rng: random.Random) -> None:
    everything = _list(world.stubs, page_size=1000)
    newest_first = [one.event.id for one in reversed(world.counted)]
    assert [one.event.id for one in everything] == newest_first
    places = [(one.position, one.index) for one in everything]
    assert places == sorted(places, reverse=True)
    for one, stored in zip(reversed(world.counted), everything, strict=True):
        minute = one.time_us // 60_000_000
        assert stored.customer_key == model.owner(world.owners, one.event.subject, minute)
        assert dict(stored.event.properties) == one.event.properties
        assert ("sum" in stored.meter_keys) == ("amount" in one.event.properties)
    middle = world.last_minute - 100 * 1440
    first_us, end_us = (middle - 9999) * 60_000_000, middle * 60_000_000
    cases: list[tuple[dict[str, object], Callable[[Counted], bool]]] = [
        ({"subject": "bob"}, lambda one: one.event.subject == "bob"),
        ({"source": "gw1"}, lambda one: one.event.source == "gw1"),
        ({"id": "e7"}, lambda one: one.event.id == "e7"),
        ({"type": "used"}, lambda _: True),
        ({"type": "unused"}, lambda _: False),
        ({"from_time": stamp(middle)}, lambda one: one.time_us >= end_us),
        ({"to_time": stamp(middle)}, lambda one: one.time_us < end_us),
        (
            {"from_time": stamp(middle - 9999), "to_time": stamp(middle), "subject": "alice"},
            lambda one: first_us <= one.time_us < end_us and one.event.subject == "alice",
        ),
    ]
    for wanted, holds in cases:
        found = _list(world.stubs, page_size=rng.choice((1, 13, 100, 1000)), **wanted)
        assert [one.event.id for one in found] == [
            one.event.id for one in reversed(world.counted) if holds(one)
        ]


def test_what_comes_late_is_counted_where_it_belongs_at_once(world: World, rng: random.Random) -> None:
    stubs = world.stubs
    late = _meter("SUM", key="late", event_type="late")
    create(stubs, late)
    counted = []
    for number in range(60):
        minute = world.last_minute - rng.randrange(1, timedelta(days=DAYS) // timedelta(minutes=1))
        event = Event(
            f"late-{number}", "gw", "late", "alice", (minute * 60, 0), {"amount": "1", "model": "a"}
        )
        counted.append(Counted(event, minute * 60_000_000))
        record(stubs, counted[-1:])
        question = Question(late, world.first_minute, world.last_minute, "DAY", "America/New_York")
        same(world._replace(counted=counted), question)
