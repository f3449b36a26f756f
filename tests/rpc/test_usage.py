"""UsageService over the wire: what is taken in, how streams behave, what is read back."""

import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from itertools import pairwise
from typing import Any

import grpc
import psutil
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from ammeter.v1 import usage_pb2 as pb
from tests.rpc.shop import Shop, eventually, minutes_ago, stamp, unique
from tests.rpc.wire import BY_NAME, call, failure, refusal
from tests.serving import ServerProcess, Stubs

TYPE = "usage.test"
REJECTED = pb.EVENT_OUTCOME_REJECTED


@pytest.fixture(scope="module")
def shop(stubs: Stubs) -> Shop:
    return Shop(stubs, "usage")


@pytest.fixture(scope="module")
def meter(shop: Shop) -> str:
    return shop.meter(event_type=TYPE, dimensions=["model"])


def event(**fields: Any) -> pb.UsageEvent:  # noqa: ANN401 - fields of UsageEvent
    """A good event, but for what is said."""
    whole = {"id": unique("e"), "source": "s", "type": TYPE, "subject": "u", "properties": {"tokens": "1"}}
    return pb.UsageEvent(**whole | fields)


# One bad event among ten thousand


def _value(text: str) -> bytes:
    return event(properties={"tokens": text}).SerializeToString()


def _time(seconds: int, nanos: int = 0) -> bytes:
    return event(time=Timestamp(seconds=seconds, nanos=nanos)).SerializeToString()


def _instead(field: int, text: bytes) -> bytes:
    # The last of a repeated field counts.
    return event().SerializeToString() + bytes([field << 3 | 2, len(text)]) + text


_NOW = int(time.time())
_VALUE = ("EVENT_INVALID_VALUE", "properties[tokens]")
BAD: dict[str, tuple[bytes, str, str]] = {
    **{
        f"value {name}": (_value(text), *_VALUE)
        for name, text in {
            "NaN": "NaN",
            "nan": "nan",
            "infinity": "Infinity",
            "minus infinity": "-inf",
            "text": "many",
            "exponent": "1e5",
            "leading space": " 1",
            "trailing newline": "1\n",
            "empty": "",
            "only a point": ".",
            "only a sign": "-",
            "two points": "1.2.3",
            "two signs": "--1",
            "13 fractional digits": "0.1234567890123",
            "27 integer digits": "1" * 27,
            "40 digits": "9" * 40,
            "hexadecimal": "0x10",
            "digits of another script": "\u0661\u0662",
            "thousands separators": "1,000",
            "underscores": "1_000",
            "NUL": "1\0",
        }.items()
    },
    **{
        f"no {name}": (event(**{name: ""}).SerializeToString(), "EVENT_FIELD_MISSING", name)
        for name in ("id", "source", "type", "subject")
    },
    **{
        f"long {name}": (event(**{name: "x" * 257}).SerializeToString(), "EVENT_TOO_LARGE", name)
        for name in ("id", "source", "type", "subject")
    },
    **{
        f"no UTF-8 in {name}": (_instead(number, b"\xc3\x28"), "EVENT_INVALID_UTF8", name)
        for number, name in enumerate(("id", "source", "type", "subject"), start=1)
    },
    "no UTF-8 in a property": (
        _instead(6, b"\x0a\x06tokens\x12\x02\xc3\x28"),
        "EVENT_INVALID_UTF8",
        "properties[tokens]",
    ),
    "no UTF-8 in a property's name": (
        _instead(6, b"\x0a\x01\xff\x12\x011"),
        "EVENT_INVALID_UTF8",
        "properties",
    ),
    "too many properties": (
        event(properties={f"p{n}": "" for n in range(65)}).SerializeToString(),
        "EVENT_TOO_LARGE",
        "properties",
    ),
    "too large": (
        event(properties={"tokens": "1", "blob": "x" * 17_000}).SerializeToString(),
        "EVENT_TOO_LARGE",
        "",
    ),
    "year 1": (_time(-62_135_596_800), "EVENT_TOO_OLD", "time"),
    "year 9999": (_time(253_402_300_799), "EVENT_IN_FUTURE", "time"),
    "year 0": (_time(-62_135_596_801), "EVENT_INVALID_TIME", "time"),
    "year 10000": (_time(253_402_300_800), "EVENT_INVALID_TIME", "time"),
    "end of int64": (_time(2**63 - 1), "EVENT_INVALID_TIME", "time"),
    "negative nanos": (_time(_NOW, -1), "EVENT_INVALID_TIME", "time"),
    "a second of nanos": (_time(_NOW, 1_000_000_000), "EVENT_INVALID_TIME", "time"),
    "36 days ago": (_time(_NOW - 36 * 86_400), "EVENT_TOO_OLD", "time"),
    # An hour: this is made long before it is sent, when all tests run.
    "ahead": (_time(_NOW + 3600), "EVENT_IN_FUTURE", "time"),
    "received_time set": (
        event(received_time=Timestamp(seconds=_NOW)).SerializeToString(),
        "EVENT_RESERVED_FIELD",
        "received_time",
    ),
    "truncated": (event().SerializeToString() + b"\x0a\x7fx", "EVENT_MALFORMED", ""),
    "no wire type": (b"\x0f" + event().SerializeToString(), "EVENT_MALFORMED", ""),
    "an open group": (event().SerializeToString() + b"\xa3\x06", "EVENT_MALFORMED", ""),
    "a time that is no message": (event().SerializeToString() + b"\x2a\x01\xff", "EVENT_MALFORMED", ""),
    "nested groups": (event().SerializeToString() + b"\xa3\x06" * 200, "EVENT_MALFORMED", ""),
}


def _crowd(name: str, bad: bytes) -> bytes:
    """9,999 good events and a bad one at place 5,000."""
    good = event(id="@").SerializeToString()
    head, _, tail = good.partition(b"\x0a\x01@")
    parts = []
    for number in range(10_000):
        identity = f"{name}/{number}".encode()
        one = bad if number == 5000 else b"\x0a" + bytes([len(identity)]) + identity + head + tail
        parts.append(b"\x0a" + _varint(len(one)) + one)
    return b"".join(parts)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def test_one_bad_event_of_any_kind_leaves_9999_counted(
    stubs: Stubs, server: ServerProcess, shop: Shop, meter: str
) -> None:
    assert len(BAD) >= 40
    channel = server.channel()
    for name, (bad, reason, field) in BAD.items():
        (body,) = call(channel, BY_NAME["RecordUsage"], _crowd(name, bad))
        answer = pb.RecordUsageResponse.FromString(body)
        assert (answer.accepted_count, answer.rejected_count) == (9999, 1), name
        (result,) = answer.results
        assert (result.index, result.outcome) == (5000, REJECTED), name
        assert (result.reason, result.field) == (reason, field), name
        assert len(result.message) > 15, name
    assert shop.total(meter) == str(9999 * len(BAD))
    # And the same over a stream, none of which ends for it.
    several = [pb.StreamUsageRequest(events=[event()], sequence=number) for number in range(1, len(BAD) + 1)]
    bodies = [
        message.SerializeToString() + b"\x0a" + _varint(len(bad)) + bad
        for message, (bad, *_) in zip(several, BAD.values(), strict=True)
    ]
    stream: Any = channel.stream_stream(BY_NAME["StreamUsage"].path, bytes, pb.StreamUsageResponse.FromString)
    answers = list(stream(iter(bodies), timeout=20))
    assert [(one.accepted_count, one.rejected_count) for one in answers] == [(1, 1)] * len(BAD)
    del stubs


def test_duplicates_and_conflicts_inside_a_batch_touch_nothing_else(shop: Shop) -> None:
    first = event()
    other = event(id=first.id, properties={"tokens": "2"})
    answer = shop.record(event(), first, first, other, event())
    assert (answer.accepted_count, answer.duplicate_count, answer.conflict_count) == (3, 1, 1)
    duplicate, conflict = answer.results
    assert (duplicate.index, duplicate.outcome, duplicate.id) == (2, pb.EVENT_OUTCOME_DUPLICATE, first.id)
    assert (conflict.index, conflict.outcome) == (3, pb.EVENT_OUTCOME_CONFLICT)
    (stored,) = _every_event(shop, pb.ListEventsRequest(id=first.id))
    assert conflict.stored_digest == stored.content_digest
    assert stored.event == first or stored.event.HasField("received_time")


def test_numbers_at_the_edge_of_the_form_are_counted_exactly(shop: Shop) -> None:
    key = shop.meter(event_type="edges")
    values = ["9" * 26, "0.000000000001", "-0", "-1", "000", "-" + "9" * 25 + "." + "9" * 12]
    events = [event(type="edges", properties={"tokens": value}) for value in values]
    assert shop.record(*events).accepted_count == len(values)
    whole, rest = divmod(int(sum(map(Fraction, values)) * 10**12), 10**12)
    assert shop.total(key) == f"{whole}.{rest:012d}"


def test_a_sum_beyond_the_form_is_an_error_and_not_a_wrong_number(shop: Shop) -> None:
    key = shop.meter(event_type="giants")
    shop.record(*(event(type="giants", properties={"tokens": "9" * 26}) for _ in range(3)))
    failed = refusal(shop.stubs.usage.QueryUsage, _span(key))
    assert (failed.code, failed.reason) == ("OUT_OF_RANGE", "OUT_OF_RANGE")


def test_an_empty_request_is_answered(shop: Shop) -> None:
    answer = shop.record()
    assert not answer.results
    assert answer.accepted_count == 0


def test_more_than_50000_events_are_refused_whole(server: ServerProcess, shop: Shop, meter: str) -> None:
    before = shop.total(meter)
    body = pb.RecordUsageRequest(events=[event()]).SerializeToString() + b"\x0a\x00" * 50_000
    failed = refusal(_bytes(server, "RecordUsage"), body)
    assert (failed.code, failed.reason) == ("INVALID_ARGUMENT", "LIMIT_EXCEEDED")
    assert "events" in failed.fields
    assert shop.total(meter) == before


def _bytes(server: ServerProcess, name: str) -> Callable[..., Any]:
    unary: Callable[..., Any] = server.channel().unary_unary(BY_NAME[name].path, bytes, bytes)
    return unary


# Streams


def _message(sequence: int, *events: pb.UsageEvent) -> pb.StreamUsageRequest:
    return pb.StreamUsageRequest(events=events or [event()], sequence=sequence)


def _until_error(answers: Iterator[pb.StreamUsageResponse]) -> tuple[list[int], grpc.RpcError]:
    sequences = []
    try:
        for answer in answers:
            sequences.append(answer.sequence)  # noqa: PERF401 - what came before the error counts
    except grpc.RpcError as error:
        return sequences, error
    raise AssertionError(f"no error after {sequences}")


@pytest.mark.parametrize("start", [0, 1, -5, 2**62])
def test_a_stream_is_answered_in_order_and_drains_when_the_client_closes(start: int, stubs: Stubs) -> None:
    messages = [_message(start + number * (number + 1)) for number in range(200)]
    answers = list(stubs.usage.StreamUsage(iter(messages), timeout=20))
    assert [answer.sequence for answer in answers] == [message.sequence for message in messages]
    assert all(answer.accepted_count == 1 for answer in answers)
    assert all(first.position <= second.position for first, second in pairwise(answers))


def test_a_stream_answers_while_it_is_open(stubs: Stubs) -> None:
    answered = threading.Event()

    def send() -> Iterator[pb.StreamUsageRequest]:
        yield _message(1)
        assert answered.wait(10)
        yield _message(2)

    answers = stubs.usage.StreamUsage(send(), timeout=20)
    assert next(answers).sequence == 1
    answered.set()
    assert [answer.sequence for answer in answers] == [2]


@pytest.mark.parametrize("following", [3, 2, 1, -9])
def test_a_sequence_that_does_not_increase_ends_the_stream_after_what_came_before(
    following: int, stubs: Stubs, shop: Shop, meter: str
) -> None:
    before = int(shop.total(meter))
    messages = [_message(1), _message(3), _message(following), _message(100)]
    sequences, error = _until_error(stubs.usage.StreamUsage(iter(messages), timeout=20))
    assert sequences == [1, 3]
    failed = failure(error)
    assert (failed.code, failed.reason) == ("INVALID_ARGUMENT", "SEQUENCE_NOT_INCREASING")
    assert "sequence" in failed.fields
    assert int(shop.total(meter)) == before + 2
    # As the contract says: what was not answered is sent again, over a new stream, and counts once.
    again = [_message(number, *message.events) for number, message in enumerate(messages[2:], start=1)]
    list(stubs.usage.StreamUsage(iter(again), timeout=20))
    assert int(shop.total(meter)) == before + 4


@pytest.mark.parametrize(
    ("body", "reason"),
    [(b"\xff", "MALFORMED_REQUEST"), (b"\x0a\x00" * 50_001 + b"\x10\x15", "LIMIT_EXCEEDED")],
)
def test_a_broken_message_ends_the_stream_after_what_came_before(
    body: bytes, reason: str, server: ServerProcess
) -> None:
    bodies = [_message(number).SerializeToString() for number in range(1, 21)]
    stream: Any = server.channel().stream_stream(
        BY_NAME["StreamUsage"].path, bytes, pb.StreamUsageResponse.FromString
    )
    sequences, error = _until_error(stream(iter([*bodies, body, bodies[0]]), timeout=20))
    assert sequences == list(range(1, 21))
    failed = failure(error)
    assert (failed.code, failed.reason) == ("INVALID_ARGUMENT", reason)


def test_a_client_that_does_not_read_is_not_read_beyond_the_window(
    new_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    window = 256 * 1024
    directory = tmp_path_factory.mktemp("window")
    with ServerProcess(new_database(), directory, stream_window_bytes=window) as server:
        rejected = pb.UsageEvent(id="x", source="s", type="t")  # small to send, long to answer
        large = pb.UsageEvent(properties={"blob": "x" * 100_000})
        sent: list[int] = []

        def send() -> Iterator[pb.StreamUsageRequest]:
            for number in range(1, 501):
                message = _message(number, large, *[rejected] * 400)
                sent.append(message.ByteSize())
                yield message

        resident = psutil.Process(server.process.pid).memory_info().rss
        answers = server.stubs().usage.StreamUsage(send(), timeout=50)
        still = _standing_still(sent)
        # What is under way is in buffers: ours, gRPC's and the two sockets'.
        assert still < 250
        assert psutil.Process(server.process.pid).memory_info().rss - resident < 100 * 1024 * 1024
        # Others are served meanwhile.
        assert server.stubs().usage.RecordUsage(pb.RecordUsageRequest(events=[event()])).accepted_count == 1
        assert [answer.sequence for answer in answers] == list(range(1, 501))


def _standing_still(sent: list[int]) -> int:
    """Wait until nothing more is sent for a second; returns how much was."""
    last, since = -1, time.monotonic()
    while time.monotonic() - since < 1:
        if len(sent) != last:
            last, since = len(sent), time.monotonic()
        time.sleep(0.02)
    return last


def test_many_streams_at_once_count_each_event_once(stubs: Stubs, shop: Shop, meter: str) -> None:
    before = int(shop.total(meter))
    shared = [event() for _ in range(50)]
    totals: list[int] = []

    def send() -> None:
        messages = [_message(number, one) for number, one in enumerate(shared, start=1)]
        answers = list(stubs.usage.StreamUsage(iter(messages), timeout=20))
        totals.append(sum(answer.accepted_count for answer in answers))

    threads = [threading.Thread(target=send) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(totals) == 50
    assert int(shop.total(meter)) == before + 50


# Queries


def _span(meter_key: str, **fields: Any) -> pb.QueryUsageRequest:  # noqa: ANN401 - fields of QueryUsageRequest
    request = pb.QueryUsageRequest(
        meter_key=meter_key, from_time=stamp(minutes_ago(120)), to_time=stamp(minutes_ago(-5))
    )
    request.MergeFrom(pb.QueryUsageRequest(**fields))
    return request


_YEAR_1970 = Timestamp(seconds=0)
_YEAR_2999 = Timestamp(seconds=32_503_679_940)
BAD_QUERIES: dict[str, tuple[dict[str, Any], str]] = {
    "not a whole minute": ({"from_time": Timestamp(seconds=61)}, "from_time"),
    "nanos": ({"to_time": Timestamp(seconds=60, nanos=1)}, "to_time"),
    "no such size": ({"window_size": 6}, "window_size"),
    "a negative size": ({"window_size": -1}, "window_size"),
    "a path for a zone": ({"time_zone": "../../etc/passwd"}, "time_zone"),
    "an absolute path": ({"time_zone": "/etc/passwd"}, "time_zone"),
    "a directory": ({"time_zone": "Europe"}, "time_zone"),
    "the machine's own zone": ({"time_zone": "localtime"}, "time_zone"),
    "a file that is no zone": ({"time_zone": "zone.tab"}, "time_zone"),
    "a long zone": ({"time_zone": "x" * 5000}, "time_zone"),
    "no letters": ({"time_zone": "\ufffe\U0010ffff"}, "time_zone"),
    "no such dimension": ({"group_by": ["model", "region"]}, "group_by[1]"),
    "a dimension twice": ({"group_by": ["model", "model"]}, "group_by"),
    "nine groups": ({"group_by": ["model"] * 9}, "group_by"),
    "no such filter": ({"filters": [pb.DimensionFilter(dimension="subject")]}, "filters[0].dimension"),
    "no such customer": ({"customer_keys": ["nobody"]}, "customer_keys[0]"),
    "too many subjects": ({"subjects": ["s"] * 1001}, "subjects"),
    "a negative page": ({"page_size": -1}, "page_size"),
    "a large page": ({"page_size": 10_001}, "page_size"),
    "a negative position": ({"min_position": -1}, "min_position"),
    "a thousand years by the minute": (
        {"from_time": Timestamp(seconds=60), "to_time": _YEAR_2999, "window_size": pb.WINDOW_SIZE_MINUTE},
        "window_size",
    ),
}


@pytest.mark.parametrize("what", BAD_QUERIES)
def test_a_query_that_makes_no_sense_is_told_where(what: str, shop: Shop, meter: str) -> None:
    fields, field = BAD_QUERIES[what]
    failed = refusal(shop.stubs.usage.QueryUsage, _span(meter, **fields))
    assert failed.code == "INVALID_ARGUMENT"
    assert field in failed.fields
    assert len(failed.fields[field]) > 10


@pytest.mark.parametrize("size", [0, 3, 4, 5])
@pytest.mark.parametrize("zone", ["UTC", "Asia/Kathmandu", "America/Los_Angeles"])
def test_a_query_over_all_of_time_is_answered(size: int, zone: str, shop: Shop, meter: str) -> None:
    request = pb.QueryUsageRequest(meter_key=meter, window_size=size, time_zone=zone)  # type: ignore[arg-type]
    request.from_time.CopyFrom(_YEAR_1970)
    request.to_time.CopyFrom(_YEAR_2999)
    rows = shop.stubs.usage.QueryUsage(request, timeout=20).rows
    assert sum(int(row.value) for row in rows) >= 1


@pytest.mark.parametrize("field", ["from_time", "to_time"])
def test_times_outside_of_1970_to_2999_are_refused_by_name(field: str, shop: Shop, meter: str) -> None:
    for seconds in (_YEAR_1970.seconds - 60, _YEAR_2999.seconds + 60):
        request = _span(meter, **{field: Timestamp(seconds=seconds)})
        failed = refusal(shop.stubs.usage.QueryUsage, request)
        assert failed.code == "INVALID_ARGUMENT"
        assert field in failed.fields
        listing = pb.ListEventsRequest(**{field: Timestamp(seconds=seconds)})  # type: ignore[arg-type]
        assert field in refusal(shop.stubs.usage.ListEvents, listing).fields


def test_a_span_must_be_given_and_be_one(shop: Shop, meter: str) -> None:
    for request, field in (
        (pb.QueryUsageRequest(meter_key=meter), "from_time"),
        (pb.QueryUsageRequest(meter_key=meter, from_time=Timestamp()), "to_time"),
        (pb.QueryUsageRequest(meter_key=meter, from_time=Timestamp(), to_time=Timestamp()), "to_time"),
    ):
        failed = refusal(shop.stubs.usage.QueryUsage, request)
        assert failed.code == "INVALID_ARGUMENT"
        assert field in failed.fields
    failed = refusal(shop.stubs.usage.QueryUsage, _span("nothing"))
    assert (failed.code, failed.reason) == ("NOT_FOUND", "NOT_FOUND")


def test_what_was_acknowledged_is_in_the_next_query(shop: Shop) -> None:
    key = shop.meter(event_type="fresh")
    for expected in range(1, 101):
        answer = shop.record(event(type="fresh"))
        read = shop.stubs.usage.QueryUsage(_span(key, min_position=answer.position))
        assert read.rows[0].value == str(expected)
        assert read.position >= answer.position


def test_a_position_that_does_not_come_is_a_failed_precondition(shop: Shop, meter: str) -> None:
    failed = refusal(shop.stubs.usage.QueryUsage, _span(meter, min_position=2**62))
    assert (failed.code, failed.reason) == ("FAILED_PRECONDITION", "POSITION_NOT_REACHED")


def test_rows_are_ordered_grouped_filled_and_paged_the_same(shop: Shop) -> None:
    key = shop.meter(event_type="rows", dimensions=["model"])
    at = minutes_ago(20)
    for minute, model, subject in ((0, "b", "u1"), (0, "a", "u2"), (2, "a", "u1"), (2, "", "u1")):
        fields = {"tokens": "2.50"} | ({"model": model} if model else {})
        shop.record(
            event(type="rows", subject=subject, time=stamp(at + timedelta(minutes=minute)), properties=fields)
        )
    request = pb.QueryUsageRequest(
        meter_key=key,
        from_time=stamp(at),
        to_time=stamp(at + timedelta(minutes=3)),
        window_size=pb.WINDOW_SIZE_MINUTE,
        group_by=["model", "subject"],
    )
    rows = shop.stubs.usage.QueryUsage(request).rows
    start = int(at.timestamp())
    assert [
        (row.from_time.seconds - start, *row.group_values, row.value, row.event_count) for row in rows
    ] == [
        (0, "a", "u2", "2.5", 1),
        (0, "b", "u1", "2.5", 1),
        (120, "", "u1", "2.5", 1),
        (120, "a", "u1", "2.5", 1),
    ]
    request.fill = True
    whole = list(shop.stubs.usage.QueryUsage(request).rows)
    assert len(whole) == 12
    paged: list[pb.UsageRow] = []
    request.page_size = 5
    while True:
        answer = shop.stubs.usage.QueryUsage(request)
        paged += answer.rows
        if not answer.next_page_token:
            break
        request.page_token = answer.next_page_token
    assert paged == whole


# Events read back


def _every_event(shop: Shop, request: pb.ListEventsRequest) -> list[pb.StoredEvent]:
    """All pages: one call looks at a bounded amount of history."""
    found: list[pb.StoredEvent] = []
    while True:
        answer = shop.stubs.usage.ListEvents(request)
        found += answer.events
        if not answer.next_page_token:
            return found
        request.page_token = answer.next_page_token


def test_events_are_found_by_any_of_their_fields_newest_first(shop: Shop) -> None:
    source = unique("source")
    at = minutes_ago(30)
    sent = [
        event(
            source=source, subject=f"u{n % 2}", type=f"{TYPE}.{n % 3}", time=stamp(at + timedelta(minutes=n))
        )
        for n in range(6)
    ]
    for one in sent:
        shop.record(one)

    def found(**fields: Any) -> list[pb.UsageEvent]:  # noqa: ANN401 - fields of ListEventsRequest
        request = pb.ListEventsRequest(source=source, **fields)
        return [stored.event for stored in _every_event(shop, request)]

    assert found() == sent[::-1]
    assert found(subject="u1") == [sent[5], sent[3], sent[1]]
    assert found(type=f"{TYPE}.0") == [sent[3], sent[0]]
    assert found(id=sent[2].id) == [sent[2]]
    assert found(from_time=sent[2].time, to_time=sent[4].time) == [sent[3], sent[2]]
    assert found(id="nothing") == []


def test_paging_through_events_shows_each_once(shop: Shop) -> None:
    source = unique("paged")
    sent = [event(source=source) for _ in range(25)]
    for some in (sent[:10], sent[10:11], sent[11:]):
        shop.record(*some)
    request = pb.ListEventsRequest(source=source, page_size=4)
    ids: list[str] = []
    while True:
        answer = shop.stubs.usage.ListEvents(request)
        ids += [stored.event.id for stored in answer.events]
        shop.record(event(source=source))  # newer ones do not shift the pages
        if not answer.next_page_token:
            break
        request.page_token = answer.next_page_token
    assert ids == [one.id for one in reversed(sent)]


def test_texts_of_events_with_nul_and_all_of_unicode_are_kept_as_sent(shop: Shop) -> None:
    source = unique("odd")
    texts = [
        "a\0b",
        "\0",
        "\U0010ffff",
        "é",
        "e\u0301",
        "\u202e",
        "'; DROP TABLE segments; --",
        "\x7f\x1b[31m",
    ]
    sent = [event(source=source, id=text, subject=text, type=text, properties={text: text}) for text in texts]
    assert shop.record(*sent).accepted_count == len(texts)
    found = _every_event(shop, pb.ListEventsRequest(source=source))
    assert [stored.event.id for stored in found] == texts[::-1]


def test_a_meter_built_from_odd_history_names_what_it_skipped(shop: Shop) -> None:
    # The property means nothing until a meter reads it.
    kind = unique("odd")
    shop.record(*(event(type=kind, id=name, properties={"tokens": "no number"}) for name in ("a\0b", "c")))
    key = shop.meter(event_type=kind)
    meter = shop.built(key)
    assert meter.skipped_count == 2
    assert len(meter.skipped_events) == 2
    assert "s/c" in meter.skipped_events


@pytest.mark.parametrize("field", ["from_time", "to_time"])
def test_listing_events_from_the_ends_of_time_is_answered(field: str, shop: Shop) -> None:
    for time_ in (_YEAR_1970, _YEAR_2999):
        shop.stubs.usage.ListEvents(pb.ListEventsRequest(**{field: time_}))  # type: ignore[arg-type]


def test_an_event_shows_its_meters_owner_and_delay(shop: Shop, meter: str) -> None:
    subject = unique("subject")
    customer = shop.customer(subject)
    sent = event(subject=subject, time=stamp(datetime.now(UTC) - timedelta(minutes=10)))
    shop.record(sent)
    (stored,) = _every_event(shop, pb.ListEventsRequest(id=sent.id))
    assert list(stored.meter_keys) == [meter]
    assert stored.customer_key == customer
    assert 590 < stored.delay.seconds < 700
    assert stored.position > 0
    eventually(lambda: shop.total(meter, customer_keys=[customer]) == "1")


def test_an_answer_to_fifty_thousand_bad_events_stays_within_what_a_client_takes(stubs: Stubs) -> None:
    bad = pb.UsageEvent(id="x" * 40, source="s", type="t")
    response = stubs.usage.RecordUsage(pb.RecordUsageRequest(events=[bad] * 50_000), timeout=20)
    assert (response.rejected_count, len(response.results)) == (50_000, 50_000)
    assert response.ByteSize() < 4 * 1024 * 1024
    assert all(result.message and result.id for result in response.results[:1000])
    last = response.results[-1]
    assert (last.index, last.reason, last.field) == (49_999, "EVENT_FIELD_MISSING", "subject")
    assert not last.message
