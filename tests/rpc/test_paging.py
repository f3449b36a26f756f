"""A page token continues the question whose answer it came with, and no other."""

from collections.abc import Iterator
from datetime import timedelta

import grpc
import pytest

from ammeter.v1 import usage_pb2
from tests.rpc.shop import Shop, minutes_ago, stamp, unique
from tests.rpc.wire import BY_NAME, refused
from tests.serving import ServerProcess, Stubs


@pytest.fixture(scope="module")
def shop(stubs: Stubs) -> Shop:
    return Shop(stubs)


@pytest.fixture(scope="module")
def channel(server: ServerProcess) -> Iterator[grpc.Channel]:
    with server.open_channel(server.address) as channel:
        yield channel


def _record(shop: Shop, event_type: str) -> str:
    """Ten events of ten subjects; returns their source."""
    source = unique("source")
    events = [
        usage_pb2.UsageEvent(
            id=f"{n}",
            source=source,
            type=event_type,
            subject=f"s{n}",
            time=stamp(minutes_ago(5)),
            properties={"tokens": "1"},
        )
        for n in range(10)
    ]
    assert shop.record(*events).accepted_count == 10
    return source


def test_a_token_of_the_same_method_with_another_filter_is_refused(shop: Shop, channel: grpc.Channel) -> None:
    sources = [_record(shop, unique("paged")) for _ in range(2)]
    request = usage_pb2.ListEventsRequest(source=sources[0], page_size=4)
    request.page_token = shop.stubs.usage.ListEvents(request).next_page_token
    assert request.page_token
    request.page_size = 5
    assert len(shop.stubs.usage.ListEvents(request).events) == 5, (
        "the size of a page is no part of the question"
    )
    request.source = sources[1]
    failed = refused(channel, BY_NAME["ListEvents"], request)
    assert failed
    assert failed.reason == "INVALID_PAGE_TOKEN"


def test_a_token_of_the_same_query_over_another_span_is_refused(shop: Shop, channel: grpc.Channel) -> None:
    event_type = unique("paged")
    meter_key = shop.meter(event_type=event_type)
    _record(shop, event_type)
    begin = minutes_ago(60)
    request = usage_pb2.QueryUsageRequest(
        meter_key=meter_key, from_time=stamp(begin), group_by=["subject"], page_size=4
    )
    request.to_time.CopyFrom(stamp(begin + timedelta(hours=2)))
    request.page_token = shop.stubs.usage.QueryUsage(request).next_page_token
    assert request.page_token
    assert len(shop.stubs.usage.QueryUsage(request).rows) == 4
    request.from_time.CopyFrom(stamp(begin - timedelta(hours=1)))
    failed = refused(channel, BY_NAME["QueryUsage"], request)
    assert failed
    assert failed.reason == "INVALID_PAGE_TOKEN"
