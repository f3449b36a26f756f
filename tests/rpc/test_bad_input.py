"""Whatever is sent, the answer says what was wrong with it, and the server goes on."""

import random
import urllib.request
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from ammeter.rpc.paging import encode_token, fingerprint
from ammeter.v1 import access_pb2, usage_pb2
from tests.rpc.shop import Shop, eventually, flat, per_unit
from tests.rpc.wire import BY_NAME, ENUM, RPCS, TEXT, Leaf, Rpc, call, leaves, panics, refused, time_leaves
from tests.serving import ServerProcess

RAW = {"RecordUsage", "StreamUsage"}
DECODED = [rpc for rpc in RPCS if rpc.name not in RAW]
YEAR_1 = Timestamp(seconds=-62_135_596_800)
YEAR_9999 = Timestamp(seconds=253_402_300_799, nanos=999_999_999)
NO_TIMES = [
    Timestamp(seconds=-62_135_596_801),
    Timestamp(seconds=253_402_300_800),
    Timestamp(seconds=0, nanos=-1),
    Timestamp(seconds=0, nanos=1_000_000_000),
    Timestamp(seconds=2**63 - 1),
    Timestamp(seconds=-(2**63)),
]
# Codes that say whose fault it was, and never "ours".
HONEST = {
    "INVALID_ARGUMENT",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "FAILED_PRECONDITION",
    "OUT_OF_RANGE",
    "ABORTED",
    None,
}


@pytest.fixture(scope="module")
def channel(server: ServerProcess) -> grpc.Channel:
    return server.channel()


@pytest.fixture(scope="module", autouse=True)
def still_sound(server: ServerProcess) -> Iterator[None]:
    """After everything: the server is the same process, serves, and nothing in it panicked."""
    born = server.process.pid
    yield
    assert server.process.poll() is None
    assert server.process.pid == born
    assert server.is_serving(server.channel())
    eventually(lambda: "ammeter_engine{" in _metrics(server), 25)  # told every few seconds
    text = _metrics(server)
    assert panics(text) == 0
    for code in ("INTERNAL", "UNKNOWN"):
        assert f'code="{code}"' not in text, [line for line in text.splitlines() if code in line]
    assert '"level": "error"' not in server.log.read_text()
    assert "Traceback" not in server.log.read_text()


def _metrics(server: ServerProcess) -> str:
    with urllib.request.urlopen(f"http://{server.metrics_address}/metrics", timeout=5) as page:
        return str(page.read().decode())


def test_fields_are_found() -> None:
    # Or nothing below would be tested.
    assert len(RPCS) >= 39
    texts = {leaf.path for leaf in leaves(BY_NAME["CreatePlan"].method.input_type, kinds=TEXT)}
    assert {
        "plan.rate_cards[0].price.flat.amount",
        "plan.rate_cards[0].entitlement.static.config.fields[k]",
        "plan.rate_cards[0].entitlement.static.config.fields[k].string_value",
        "request_id",
    } <= texts


def _hostile_bodies() -> list[bytes]:
    return [
        b"\xff",
        b"\x0a\xff\xff\xff\xff\x0f",  # a length past the end
        b"\x0a\x05ab",  # truncated text
        b"\x08",  # a varint that does not come
        b"\x08" + b"\xff" * 11,  # one that does not end
        b"\x00\x00",  # field number 0
        b"\x0c",  # the end of a group that never began
        b"\x0b",  # a group that does not end
        b"\x0b" * 5000,  # many of those, nested
        b"\x0e\x01",  # wire type 6
        b"\x0a\x80\x80\x80\x80\x10",  # a length of 4 GiB
        b"\xfb\xff\xff\xff\x0f" * 1000,  # nested groups with the greatest number
    ]


@pytest.mark.parametrize("rpc", RPCS, ids=str)
def test_what_is_not_protobuf_is_an_invalid_argument(rpc: Rpc, channel: grpc.Channel) -> None:
    for body in _hostile_bodies():
        failed = refused(channel, rpc, body)
        assert failed, body[:20]
        assert (failed.code, failed.reason) == ("INVALID_ARGUMENT", "MALFORMED_REQUEST"), body[:20]
        assert list(failed.fields) == ["request"]


@pytest.mark.parametrize("rpc", DECODED, ids=str)
def test_text_that_is_not_utf8_is_an_invalid_argument(rpc: Rpc, channel: grpc.Channel) -> None:
    tried = 0
    for field in rpc.method.input_type.fields:
        if field.type == FieldDescriptor.TYPE_STRING:
            body = bytes([field.number << 3 | 2, 2]) + b"\xc3\x28"
            failed = refused(channel, rpc, body)
            assert failed
            assert (failed.code, failed.reason) == ("INVALID_ARGUMENT", "MALFORMED_REQUEST"), field.name
            tried += 1
    assert tried or rpc.name in {
        "CheckEntitlement",
        "BatchCheckEntitlements",
        "StreamChecks",
        "ExplainAccess",
    }


def test_random_bytes_never_are_a_fault_of_ours(channel: grpc.Channel, rng: random.Random) -> None:
    for rpc in RPCS:
        for _ in range(20):
            body = rng.randbytes(rng.randrange(1, 60))
            failed = refused(channel, rpc, body)
            assert (failed and failed.code) in HONEST, (str(rpc), body.hex(), failed)


@pytest.mark.parametrize("rpc", DECODED, ids=str)
def test_nothing_at_all_is_answered_or_refused_with_a_reason(rpc: Rpc, channel: grpc.Channel) -> None:
    failed = refused(channel, rpc)
    assert (failed and failed.code) in HONEST
    if rpc.name in {"CreateSubscription", "CreateEntitlement", "CreateGrant", "CreatePriceOverride"}:
        assert failed
        assert failed.code == "NOT_FOUND"  # for whom, comes first
    elif rpc.name.startswith("Create"):
        assert failed
        assert failed.code == "INVALID_ARGUMENT"
        assert failed.fields


def _texts(rpc: Rpc) -> list[Leaf]:
    return list(leaves(rpc.method.input_type, kinds=TEXT))


@pytest.mark.parametrize("rpc", DECODED, ids=str)
def test_nul_in_any_text_is_refused_by_name(rpc: Rpc, channel: grpc.Channel) -> None:
    for leaf in _texts(rpc):
        request = rpc.request()
        leaf.put(request, "a\0b")
        if rpc.name == "StreamChecks":  # a fault is an answer there
            (answer,) = call(channel, rpc, request)
            fault = access_pb2.StreamChecksResponse.FromString(answer).fault
            assert (list(fault.fields), "NUL" in fault.message) == ([leaf.path], True)
            continue
        failed = refused(channel, rpc, request)
        assert failed, leaf.path
        assert failed.code == "INVALID_ARGUMENT", (leaf.path, failed)
        path = leaf.path.replace("[k]", "[a\\x00b]") if leaf.field.name == "key" else leaf.path
        assert path in failed.fields, failed
        assert "NUL" in failed.fields[path]


@pytest.mark.parametrize("rpc", DECODED, ids=str)
def test_a_very_long_text_is_refused_or_not_found_and_the_error_fits_a_clients_limits(
    rpc: Rpc, channel: grpc.Channel
) -> None:
    for leaf in _texts(rpc):
        for text in ("x" * 100_000, "é" * 60_000, '"\\\n' * 30_000):
            request = rpc.request()
            leaf.put(request, text)
            failed = refused(channel, rpc, request)
            assert (failed and failed.code) in HONEST, (leaf.path, failed and failed.code)


def test_a_thousand_faults_are_told_in_an_error_that_fits(channel: grpc.Channel) -> None:
    rpc = BY_NAME["BatchCheckEntitlements"]
    request = rpc.request()
    for _ in range(1000):
        request.checks.add()  # type: ignore[attr-defined]
    failed = refused(channel, rpc, request)
    assert failed
    assert failed.code == "INVALID_ARGUMENT"
    assert "checks[0].feature_key" in failed.fields
    assert "more" in failed.message


@pytest.mark.parametrize("rpc", DECODED, ids=str)
def test_what_is_no_time_is_refused_by_name(rpc: Rpc, channel: grpc.Channel) -> None:
    for leaf in time_leaves(rpc.method.input_type):
        if _is_output_only(leaf):
            continue
        for time in NO_TIMES:
            request = rpc.request()
            _put_time(leaf, request, time)
            failed = refused(channel, rpc, request)
            assert failed, (leaf.path, time)
            assert failed.code == "INVALID_ARGUMENT", (leaf.path, failed)
            assert leaf.path in failed.fields


@pytest.mark.parametrize("rpc", DECODED, ids=str)
def test_times_at_the_ends_of_time_are_nobodys_accident(rpc: Rpc, channel: grpc.Channel) -> None:
    for leaf in time_leaves(rpc.method.input_type):
        for time in (YEAR_1, YEAR_9999):
            request = rpc.request()
            _put_time(leaf, request, time)
            failed = refused(channel, rpc, request)
            assert (failed and failed.code) in HONEST, (leaf.path, failed)


def _is_output_only(leaf: Leaf) -> bool:
    # What only the server sets is not read: times inside of a resource.
    return len(leaf.way) > 1


def _put_time(leaf: Leaf, request: Message, time: Timestamp) -> None:
    inner = request
    for field in leaf.way:
        following = getattr(inner, field.name)
        inner = following.add() if field.is_repeated else following
    inner.CopyFrom(time)


@pytest.mark.parametrize("rpc", [rpc for rpc in DECODED if "page_size" in rpc.field_names], ids=str)
def test_page_sizes_out_of_bounds_are_refused(rpc: Rpc, channel: grpc.Channel) -> None:
    for size in (-1, 10_001, 2**31 - 1, -(2**31)):
        request = rpc.request()
        if rpc.name == "QueryUsage":
            request.to_time.seconds = 60  # type: ignore[attr-defined]
            request.from_time.seconds = 0  # type: ignore[attr-defined]
            request.from_time.SetInParent()  # type: ignore[attr-defined]
        request.page_size = size  # type: ignore[attr-defined]
        failed = refused(channel, rpc, request)
        assert failed
        if rpc.name == "ListEntitlements":
            assert failed.code == "NOT_FOUND"  # whose, comes first
            continue
        assert (failed.code, failed.reason) == ("INVALID_ARGUMENT", "INVALID_FIELD")
        assert list(failed.fields) == ["page_size"]


@pytest.mark.parametrize("rpc", DECODED, ids=str)
def test_a_number_that_is_in_no_enum_is_refused_by_name(rpc: Rpc, channel: grpc.Channel) -> None:
    for leaf in leaves(rpc.method.input_type, kinds=ENUM):
        if leaf.path in {"meter.state", "plan.state"} or "null_value" in leaf.path:
            continue  # the server's to set
        for number in (99, -1, 2**31 - 1):
            request = rpc.request()
            leaf.put(request, number)
            failed = refused(channel, rpc, request)
            assert failed, leaf.path
            assert failed.code in {"INVALID_ARGUMENT", "NOT_FOUND"}, (leaf.path, failed)


def test_more_than_the_limit_is_refused_and_the_connection_goes_on(server: ServerProcess) -> None:
    channel = server.channel()
    for name in ("RecordUsage", "StreamUsage", "CreatePlan"):
        with pytest.raises(grpc.RpcError) as caught:
            call(channel, BY_NAME[name], b"\x7a" + b"\x80\x80\xc0\x02" + b"x" * (5 * 1024 * 1024))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        body = call(channel, BY_NAME["ListMeters"])
        assert body == [b""]


def test_unknown_fields_are_passed_over(channel: grpc.Channel) -> None:
    unknown = b"\xfa\x3f\x03abc" + b"\xf8\x3f\x01"
    event = usage_pb2.UsageEvent(id="unknown-fields", source="s", type="t", subject="u")
    body = usage_pb2.RecordUsageRequest(events=[event]).SerializeToString()
    (answer,) = call(channel, BY_NAME["RecordUsage"], body + unknown)
    assert usage_pb2.RecordUsageResponse.FromString(answer).accepted_count == 1
    assert call(channel, BY_NAME["ListMeters"], unknown)


# With things that are there, so that what is wrong is not hidden behind what is missing


@pytest.fixture(scope="module")
def shop(server: ServerProcess) -> Shop:
    return Shop(server.stubs(), "bad")


@pytest.fixture(scope="module")
def stock(shop: Shop) -> dict[str, str]:
    meter = shop.meter("COUNT")
    feature = shop.feature(meter)
    customer = shop.customer("bad-subject")
    sub = shop.subscribe(customer, shop.plan(flat("1"), per_unit(feature, "1", "5")))
    shop.record(shop.event("bad-subject"))
    return {
        "meter_key": meter,
        "feature_key": feature,
        "customer_key": customer,
        "subscription_id": sub.subscription_id,
    }


FORGED: list[tuple[Any, ...]] = [
    (),
    ("",),
    ("x" * 3000,),
    (2**70,),
    (-(2**70), 2**70, -(2**70)),
    (1,),
    (1, 2),
    (1, 2, 3),
    (2**62, 2**62, 2**62),
    (2**62, "a"),
    (1, "a", "b"),
    ("a", "b", "c", "d", "e"),
    ("2026-13-45T99:99:99", "key"),
    ("2026-01-01T00:00:00", "key"),
    ("0001-01-01T00:00:00+23:59", "key"),
    ("9999-12-31T23:59:59-23:59", "key"),
    (True,),
    ("'; DROP TABLE meters; --",),
    ("a\0b",),
    ("a\0b", "c\0d", "e"),
]


@pytest.mark.parametrize("rpc", [rpc for rpc in DECODED if "page_token" in rpc.field_names], ids=str)
def test_a_page_token_made_up_by_a_caller_is_refused_or_finds_a_page(
    rpc: Rpc, channel: grpc.Channel, stock: dict[str, str]
) -> None:
    request: Any = rpc.request()
    if "customer_key" in rpc.field_names:
        request.customer_key = stock["customer_key"]
    if rpc.name == "QueryUsage":
        request.meter_key = stock["meter_key"]
        request.to_time.seconds = 60
        request.from_time.SetInParent()
    for text in ("x", "====", "a" * 10_000, "\u00e9", "AAAAAAAAAAA", "../..", "%00", "-_-_"):
        request.page_token = text
        failed = refused(channel, rpc, request)
        assert failed, text
        assert (failed.code, failed.reason) == ("INVALID_ARGUMENT", "INVALID_PAGE_TOKEN")
        assert list(failed.fields) == ["page_token"]
        assert "repeat the query" in failed.message
    for key in FORGED:
        request.page_token = encode_token(fingerprint(request), key)
        failed = refused(channel, rpc, request)
        assert (failed and failed.code) in {None, "INVALID_ARGUMENT", "NOT_FOUND"}, (key, failed)


def test_a_page_token_of_another_question_is_refused(channel: grpc.Channel, shop: Shop) -> None:
    for _ in range(2):
        shop.feature()
    rpc = BY_NAME["ListFeatures"]
    (answer,) = call(channel, rpc, rpc.request(page_size=1))
    token = rpc.response.FromString(answer).next_page_token  # type: ignore[attr-defined]
    assert refused(channel, rpc, rpc.request(page_token=token)) is None
    failed = refused(
        channel, BY_NAME["ListInvoices"], BY_NAME["ListInvoices"].request(page_token=token, state=1)
    )
    assert failed
    assert failed.reason == "INVALID_PAGE_TOKEN"


_FAR = [
    Timestamp(seconds=-62_135_596_800),
    Timestamp(seconds=-1),
    Timestamp(seconds=32_503_680_000),
    Timestamp(seconds=253_402_300_799),
]


@pytest.mark.parametrize(
    ("name", "field", "more"),
    [
        ("AssignSubject", "from_time", {"subject": "bad-other"}),
        ("ReleaseSubject", "to_time", {"subject": "bad-subject"}),
        ("CreateSubscription", "start_time", {"plan_key": "p"}),
        ("CreateSubscription", "anchor_time", {"plan_key": "p"}),
        ("CancelSubscription", "cancel_time", {"timing": 3}),
        ("CreateKey", "expire_time", {"scopes": [1]}),
        ("ListEvents", "from_time", {}),
    ],
)
def test_dates_out_of_range_are_refused_by_name(
    name: str, field: str, more: dict[str, Any], channel: grpc.Channel, stock: dict[str, str]
) -> None:
    rpc = BY_NAME[name]
    for time in _FAR:
        known = {key: stock[key] for key in ("customer_key", "subscription_id") if key in rpc.field_names}
        failed = refused(channel, rpc, rpc.request(**known, **more, **{field: time}))
        assert failed
        assert failed.code == "INVALID_ARGUMENT", failed
        assert field in failed.fields


def test_dates_at_the_edge_of_the_range_are_kept_or_refused_with_a_reason(
    channel: grpc.Channel, shop: Shop, stock: dict[str, str]
) -> None:
    last = Timestamp(seconds=32_503_679_999)
    customer = shop.customer()
    for name, fields in (
        ("AssignSubject", {"customer_key": customer, "subject": "bad-subject", "from_time": last}),
        (
            "CancelSubscription",
            {"subscription_id": stock["subscription_id"], "timing": 3, "cancel_time": last},
        ),
        ("CreateKey", {"scopes": [1], "expire_time": last}),
    ):
        rpc = BY_NAME[name]
        assert refused(channel, rpc, rpc.request(**fields)) is None
    for name, field in (("GetCustomer", "customer_key"), ("GetSubscription", "subscription_id")):
        assert call(channel, BY_NAME[name], BY_NAME[name].request(**{field: stock[field]}))
    check = {"customer_key": stock["customer_key"], "feature_key": stock["feature_key"]}
    assert call(channel, BY_NAME["CheckEntitlement"], BY_NAME["CheckEntitlement"].request(check=check))


@pytest.mark.parametrize(
    "zone",
    [
        "../../etc/passwd",
        "/etc/passwd",
        "Europe",
        "localtime",
        "posixrules",
        "UTC\n",
        "utc ",
        "x" * 300,
        "Mars/Base",
    ],
)
def test_an_absurd_time_zone_is_refused_by_name(zone: str, channel: grpc.Channel) -> None:
    rpc = BY_NAME["CreateCustomer"]
    failed = refused(channel, rpc, rpc.request(customer={"customer_key": "zoned", "time_zone": zone}))
    assert failed
    assert failed.code == "INVALID_ARGUMENT"
    assert "Europe/Berlin" in failed.fields["customer.time_zone"]


def test_a_configuration_nested_too_deep_is_refused(channel: grpc.Channel, stock: dict[str, str]) -> None:
    rpc = BY_NAME["CreatePlan"]
    for depth in (25, 40, 90, 5000):
        body = b""
        for _ in range(depth):  # Struct{fields{key, Value{struct_value}}}, from the inside
            value = _field(5, body)
            body = _field(1, _field(1, b"k") + _field(2, value))
        card = (
            _field(1, b"card")
            + _field(3, stock["feature_key"].encode())
            + _field(5, _field(2, _field(1, body)))
        )
        plan = _field(1, f"deep-{depth}".encode()) + _field(5, card)
        failed = refused(channel, rpc, _field(1, plan))
        if depth <= 32 and failed is None:
            continue
        assert failed
        assert failed.code == "INVALID_ARGUMENT"
        assert failed.reason in {"INVALID_FIELD", "MALFORMED_REQUEST"}


def _field(number: int, inner: bytes) -> bytes:
    length, out = len(inner), bytearray([number << 3 | 2])
    while length > 0x7F:
        out.append(length & 0x7F | 0x80)
        length >>= 7
    return bytes([*out, length]) + inner


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_a_configuration_with_what_json_lacks_is_refused(
    number: float, channel: grpc.Channel, stock: dict[str, str]
) -> None:
    rpc = BY_NAME["CreatePlan"]
    request: Any = rpc.request(plan={"plan_key": "odd-number"})
    card = request.plan.rate_cards.add(rate_card_key="card", feature_key=stock["feature_key"])
    card.entitlement.static.config.update({"limit": number})
    failed = refused(channel, rpc, request)
    assert failed
    assert failed.code == "INVALID_ARGUMENT"
    assert list(failed.fields) == ["plan.rate_cards[0].entitlement.static.config"]


def test_a_configuration_with_the_greatest_numbers_comes_back(channel: grpc.Channel, shop: Shop) -> None:
    rpc = BY_NAME["CreatePlan"]
    request: Any = rpc.request(plan={"plan_key": "great-numbers"})
    card = request.plan.rate_cards.add(rate_card_key="card", feature_key=shop.feature())
    card.entitlement.static.config.update({"a": 1.7e308, "b": -5e-324, "c": 2.0**53, "d": [None, {}, [], ""]})
    assert refused(channel, rpc, request) is None
    (answer,) = call(channel, BY_NAME["GetPlan"], BY_NAME["GetPlan"].request(plan_key="great-numbers"))
    plan: Any = BY_NAME["GetPlan"].response.FromString(answer)
    assert plan.plan.rate_cards[0].entitlement == card.entitlement


AMOUNTS = [
    "NaN",
    "Infinity",
    "1e3",
    "",
    " 1",
    "1,0",
    "-1",
    "0x1",
    "1" * 27,
    "9" * 40,
    "0.1234567890123",
    "\u0661",
]


@pytest.mark.parametrize("amount", AMOUNTS)
def test_an_amount_that_is_no_amount_is_refused_wherever_one_goes(
    amount: str, channel: grpc.Channel, stock: dict[str, str]
) -> None:
    rpc = BY_NAME["CreatePlan"]
    request: Any = rpc.request(plan={"plan_key": "odd-amounts"})
    flat_card = request.plan.rate_cards.add(rate_card_key="flat")
    flat_card.price.flat.amount = amount
    card = request.plan.rate_cards.add(rate_card_key="unit", feature_key=stock["feature_key"])
    card.price.unit.unit_amount = amount
    card.entitlement.metered.allowance = amount
    failed = refused(channel, rpc, request)
    assert failed
    assert failed.code == "INVALID_ARGUMENT"
    assert failed.fields.keys() == {
        "plan.rate_cards[0].price.flat.amount",
        "plan.rate_cards[1].price.unit.unit_amount",
        "plan.rate_cards[1].entitlement.metered.allowance",
    }
    if amount:
        check = {"customer_key": "c", "feature_key": "f", "amount": amount}
        failed = refused(
            channel, BY_NAME["CheckEntitlement"], BY_NAME["CheckEntitlement"].request(check=check)
        )
        assert failed
        assert list(failed.fields) == ["check.amount"]
