"""MeterService over the wire."""

from typing import Any

import pytest

from ammeter.v1 import meter_pb2 as pb
from ammeter.v1 import usage_pb2
from tests.rpc.shop import Shop, eventually, unique
from tests.rpc.wire import refusal
from tests.serving import ServerProcess, Stubs


@pytest.fixture(scope="module")
def shop(stubs: Stubs) -> Shop:
    return Shop(stubs, "m")


def whole(**fields: Any) -> pb.Meter:  # noqa: ANN401 - fields of Meter
    good: dict[str, Any] = {
        "meter_key": unique("m"),
        "event_type": "t",
        "aggregation": pb.AGGREGATION_SUM,
        "value_property": "tokens",
    }
    return pb.Meter(**good | fields)


def condition(operator: int, *values: str, property: str = "p") -> pb.PropertyFilter:  # noqa: A002 - its name there
    return pb.PropertyFilter(property=property, operator=operator, values=values)  # type: ignore[arg-type]


def test_a_meter_is_read_back_as_created(stubs: Stubs, shop: Shop) -> None:
    filters = [condition(1, "a"), condition(2, ""), condition(3, "a", "b"), condition(4)]
    sent = whole(name="Né", description="d", dimensions=["a", "b b"], filters=filters)
    made = stubs.meters.CreateMeter(pb.CreateMeterRequest(meter=sent)).meter
    assert made.state == pb.Meter.STATE_BUILDING
    read = shop.built(sent.meter_key)
    for field in (
        "name",
        "description",
        "event_type",
        "aggregation",
        "value_property",
        "dimensions",
        "filters",
    ):
        assert getattr(read, field) == getattr(sent, field)
    assert read.etag
    assert read.create_time.seconds


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no key": ({"meter_key": ""}, "meter.meter_key"),
    "a key with capitals": ({"meter_key": "Tokens"}, "meter.meter_key"),
    "a key that begins with a digit": ({"meter_key": "1a"}, "meter.meter_key"),
    "a key with a newline": ({"meter_key": "a\n"}, "meter.meter_key"),
    "a long key": ({"meter_key": "a" * 65}, "meter.meter_key"),
    "no type": ({"event_type": ""}, "meter.event_type"),
    "a long type": ({"event_type": "é" * 129}, "meter.event_type"),
    "no aggregation": ({"aggregation": 0}, "meter.aggregation"),
    "no such aggregation": ({"aggregation": 8}, "meter.aggregation"),
    "no value": ({"value_property": ""}, "meter.value_property"),
    "a value for COUNT": ({"aggregation": 1}, "meter.value_property"),
    "17 dimensions": ({"dimensions": [f"d{n}" for n in range(17)]}, "meter.dimensions"),
    "a dimension twice": ({"dimensions": ["a", "a"]}, "meter.dimensions[1]"),
    "a dimension of the house": ({"dimensions": ["customer"]}, "meter.dimensions[0]"),
    "an empty dimension": ({"dimensions": [""]}, "meter.dimensions[0]"),
    "no operator": ({"filters": [condition(0)]}, "meter.filters[0].operator"),
    "no property": ({"filters": [condition(4, property="")]}, "meter.filters[0].property"),
    "EQUALS without a value": ({"filters": [condition(1)]}, "meter.filters[0].values"),
    "EXISTS with a value": ({"filters": [condition(4, "a")]}, "meter.filters[0].values"),
    "IN with too many": ({"filters": [condition(3, *map(str, range(101)))]}, "meter.filters[0].values"),
    "17 filters": ({"filters": [condition(4)] * 17}, "meter.filters"),
    "a long name": ({"name": "x" * 257}, "meter.name"),
    "a long description": ({"description": "x" * 2001}, "meter.description"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_definition_that_cannot_be_is_refused_by_name(what: str, stubs: Stubs) -> None:
    fields, path = BAD[what]
    failed = refusal(stubs.meters.CreateMeter, pb.CreateMeterRequest(meter=whole(**fields)))
    assert (failed.code, failed.reason) == ("INVALID_ARGUMENT", "INVALID_FIELD")
    assert path in failed.fields
    assert len(failed.fields[path]) > 8


def test_all_faults_are_told_at_once(stubs: Stubs) -> None:
    failed = refusal(stubs.meters.CreateMeter, pb.CreateMeterRequest())
    assert failed.fields.keys() == {"meter.meter_key", "meter.event_type", "meter.aggregation"}


def test_a_key_is_taken_once(stubs: Stubs) -> None:
    request = pb.CreateMeterRequest(meter=whole())
    stubs.meters.CreateMeter(request)
    failed = refusal(stubs.meters.CreateMeter, request)
    assert (failed.code, failed.reason) == ("ALREADY_EXISTS", "ALREADY_EXISTS")


@pytest.mark.parametrize("name", ["GetMeter", "UpdateMeter", "DeleteMeter"])
def test_what_is_not_there_is_not_found(name: str, stubs: Stubs) -> None:
    requests = {
        "GetMeter": pb.GetMeterRequest(meter_key="nothing"),
        "UpdateMeter": pb.UpdateMeterRequest(meter=pb.Meter(meter_key="nothing")),
        "DeleteMeter": pb.DeleteMeterRequest(meter_key="nothing"),
    }
    request: Any = requests[name]
    if name == "UpdateMeter":
        request.update_mask.paths.append("name")
    failed = refusal(getattr(stubs.meters, name), request)
    assert (failed.code, failed.reason) == ("NOT_FOUND", "NOT_FOUND")


def update(stubs: Stubs, meter: pb.Meter, *paths: str) -> pb.Meter:
    request = pb.UpdateMeterRequest(meter=meter)
    request.update_mask.paths.extend(paths)
    return stubs.meters.UpdateMeter(request).meter


def test_an_update_changes_what_the_mask_names_and_the_etag(stubs: Stubs, shop: Shop) -> None:
    key = shop.meter()
    before = shop.built(key)
    after = update(stubs, pb.Meter(meter_key=key, name="new", description="not this"), "name")
    assert (after.name, after.description) == ("new", before.description)
    assert after.etag != before.etag
    request = pb.UpdateMeterRequest(meter=pb.Meter(meter_key=key, name="old", etag=before.etag))
    request.update_mask.paths.append("name")
    failed = refusal(stubs.meters.UpdateMeter, request)
    assert (failed.code, failed.reason) == ("ABORTED", "ETAG_MISMATCH")
    assert "read it again" in failed.message
    request.meter.etag = after.etag
    assert stubs.meters.UpdateMeter(request).meter.name == "old"


@pytest.mark.parametrize("path", ["", "meter_key", "event_type", "aggregation", "filters", "meter.name", "*"])
def test_what_is_immutable_is_not_updated(path: str, stubs: Stubs, shop: Shop) -> None:
    request = pb.UpdateMeterRequest(meter=pb.Meter(meter_key=shop.meter(), name="new"))
    if path:
        request.update_mask.paths.append(path)
    failed = refusal(stubs.meters.UpdateMeter, request)
    assert failed.code == "INVALID_ARGUMENT"
    assert "immutable" in failed.fields["update_mask"]


def test_dimensions_are_appended_and_built_from_history(stubs: Stubs, shop: Shop) -> None:
    kind = unique("t")
    key = shop.meter(event_type=kind, dimensions=["a"])
    for model, tokens in (("x", 1), ("y", 2), ("x", 3)):
        shop.record(shop.event("u", tokens, type=kind, properties={"a": "1", "b": model}))
    for wrong in ([], ["b"], ["b", "a"]):
        request = pb.UpdateMeterRequest(meter=pb.Meter(meter_key=key, dimensions=wrong))
        request.update_mask.paths.append("dimensions")
        assert "meter.dimensions" in refusal(stubs.meters.UpdateMeter, request).fields
    update(stubs, pb.Meter(meter_key=key, dimensions=["a", "b"]), "dimensions")
    eventually(lambda: list(shop.built(key).dimensions) == ["a", "b"])
    assert shop.total(key, filters=[usage_pb2.DimensionFilter(dimension="b", values=["x"])]) == "4"
    assert shop.total(key) == "6"


@pytest.mark.parametrize(
    ("aggregation", "expected"),
    [
        ("COUNT", "4"),
        ("SUM", "6.5"),
        ("MIN", "-1"),
        ("MAX", "4"),
        ("AVG", "1.625"),
        ("UNIQUE_COUNT", "4"),
        ("LATEST", "1.5"),
    ],
)
def test_a_meter_made_later_reads_all_of_history(aggregation: str, expected: str, shop: Shop) -> None:
    kind = unique("t")
    for value in ("2", "-1", "4", "1.5"):
        shop.record(shop.event("u", value, type=kind))
    assert shop.total(shop.meter(aggregation, event_type=kind)) == expected


def test_a_meter_in_use_stays_and_one_that_is_not_goes(stubs: Stubs, shop: Shop) -> None:
    key = shop.meter()
    feature = shop.feature(key)
    failed = refusal(stubs.meters.DeleteMeter, pb.DeleteMeterRequest(meter_key=key))
    assert (failed.code, failed.reason) == ("FAILED_PRECONDITION", "IN_USE")
    assert feature in failed.message
    free = shop.meter()
    failed = refusal(stubs.meters.DeleteMeter, pb.DeleteMeterRequest(meter_key=free, etag='"99"'))
    assert (failed.code, failed.reason) == ("ABORTED", "ETAG_MISMATCH")
    stubs.meters.DeleteMeter(pb.DeleteMeterRequest(meter_key=free))
    assert refusal(stubs.meters.GetMeter, pb.GetMeterRequest(meter_key=free)).code == "NOT_FOUND"
    assert shop.meter(meter_key=free) == free, "the key is free again"


def test_meters_are_listed_by_key_in_pages(server: ServerProcess, stubs: Stubs, shop: Shop) -> None:
    for _ in range(5):
        shop.meter()
    every = [meter.meter_key for meter in stubs.meters.ListMeters(pb.ListMetersRequest()).meters]
    assert every == sorted(every)
    paged: list[str] = []
    request = pb.ListMetersRequest(page_size=2)
    while True:
        answer = stubs.meters.ListMeters(request)
        assert len(answer.meters) <= 2
        paged += [meter.meter_key for meter in answer.meters]
        if not answer.next_page_token:
            break
        request.page_token = answer.next_page_token
    assert paged == every
    assert server.process.poll() is None
