"""Checks on a stream: in order, each with its answer or its fault."""

import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from ammeter.v1 import access_pb2, key_pb2
from ammeter.v1 import entitlement_pb2 as pb
from tests.rpc.shop import PEPPER, Shop, key_with, new_tenant, stubs_with
from tests.rpc.terminal import Terminal
from tests.rpc.wire import failure
from tests.serving import ServerProcess, Stubs


@pytest.fixture(scope="module")
def shop(stubs: Stubs) -> Shop:
    return Shop(stubs, "stream")


@pytest.fixture(scope="module")
def feature(shop: Shop) -> str:
    return shop.feature(shop.meter())


def entitled(shop: Shop, feature: str, allowance: str = "1000000") -> str:
    """A customer who is its own subject."""
    customer = shop.customer("subject-of-" + feature + allowance)
    metered = {"allowance": allowance, "usage_period": {"cadence": "P1M"}}
    draft = pb.Entitlement(customer_key=customer, feature_key=feature, metered=metered)  # type: ignore[arg-type]
    shop.stubs.entitlements.CreateEntitlement(pb.CreateEntitlementRequest(entitlement=draft))
    return customer


def asking(sequence: int, customer: str, feature: str, **fields: object) -> access_pb2.StreamChecksRequest:
    check = pb.EntitlementCheck(customer_key=customer, feature_key=feature, **fields)  # type: ignore[arg-type]
    return access_pb2.StreamChecksRequest(sequence=sequence, check=check)


def _raw(channel: grpc.Channel) -> Any:  # noqa: ANN401 - bytes in, bytes out
    return channel.stream_stream("/ammeter.v1.AccessService/StreamChecks")


class Talk:
    """A stream that a test asks and reads in turns."""

    def __init__(self, stubs: Stubs) -> None:
        self._asked: queue.SimpleQueue[access_pb2.StreamChecksRequest | None] = queue.SimpleQueue()
        self.call = stubs.access.StreamChecks(iter(self._asked.get, None), timeout=30)

    def ask(self, request: access_pb2.StreamChecksRequest) -> access_pb2.StreamChecksResponse:
        self._asked.put(request)
        return next(self.call)

    def close(self) -> list[access_pb2.StreamChecksResponse]:
        self._asked.put(None)
        return list(self.call)


def test_answers_come_in_order_and_are_those_of_single_checks(shop: Shop, feature: str) -> None:
    customer = entitled(shop, feature)
    wanted = [(customer, feature), ("nobody", feature), (customer, "nothing"), (shop.customer(), feature)]
    requests = [asking(number * 3 + 1, *wanted[number % 4]) for number in range(400)]
    answers = list(shop.stubs.access.StreamChecks(iter(requests)))
    assert [answer.sequence for answer in answers] == [request.sequence for request in requests]
    for request, answer in zip(requests[:4], answers[:4], strict=True):
        single = shop.stubs.entitlements.CheckEntitlement(pb.CheckEntitlementRequest(check=request.check))
        assert answer.access == single.access
    assert {answer.access.reason for answer in answers} == {
        pb.ACCESS_REASON_ALLOWED,
        pb.ACCESS_REASON_CUSTOMER_UNKNOWN,
        pb.ACCESS_REASON_FEATURE_UNKNOWN,
        pb.ACCESS_REASON_NOT_ENTITLED,
    }


def test_a_check_sees_what_was_acknowledged_before_it_was_sent(shop: Shop, feature: str) -> None:
    customer = entitled(shop, feature, "5000")
    talk = Talk(shop.stubs)
    for number in range(1, 51):
        position = shop.record(shop.event("subject-of-" + feature + "5000", 10)).position
        answer = talk.ask(asking(number, customer, feature))
        assert answer.access.usage == str(number * 10)
        assert answer.position >= position
    assert talk.close() == []


def test_a_check_at_fault_is_an_answer_and_the_stream_goes_on(shop: Shop, feature: str) -> None:
    talk = Talk(shop.stubs)
    customer = entitled(shop, feature, "7")
    faults = [
        (
            access_pb2.StreamChecksRequest(sequence=1),
            "INVALID_FIELD",
            ["check.customer_key", "check.feature_key"],
        ),
        (asking(2, customer, feature, amount="-1"), "INVALID_FIELD", ["check.amount"]),
        (asking(3, customer, "\0"), "INVALID_FIELD", ["check.feature_key"]),
        (asking(3, customer, feature), "SEQUENCE_NOT_INCREASING", ["sequence"]),
    ]
    for request, reason, fields in faults:
        told = talk.ask(request)
        assert told.WhichOneof("result") == "fault"
        assert (told.sequence, told.fault.reason) == (request.sequence, reason)
        assert list(told.fault.fields) == fields
        assert fields[0] in told.fault.message
        assert not told.fault.retryable
    late = asking(4, customer, feature)
    late.min_position = 10**9
    told = talk.ask(late)
    assert (told.fault.reason, told.fault.retryable) == ("POSITION_NOT_REACHED", True)
    assert talk.ask(asking(5, customer, feature)).access.balance == "7"
    assert talk.close() == []


def test_what_is_no_protobuf_ends_the_stream_after_the_answers_before_it(
    server: ServerProcess, feature: str
) -> None:
    with server.open_channel(server.address) as channel:
        call = _raw(channel)(iter([asking(1, "nobody", feature).SerializeToString(), b"\xff"]))
        assert access_pb2.StreamChecksResponse.FromString(next(call)).sequence == 1
        with pytest.raises(grpc.RpcError) as caught:
            next(call)
        assert failure(caught.value).reason == "MALFORMED_REQUEST"


def test_closing_ones_side_leaves_nothing_unanswered(shop: Shop, feature: str) -> None:
    requests = (asking(number, "nobody", feature) for number in range(1, 3001))
    answers = list(shop.stubs.access.StreamChecks(requests))
    assert [answer.sequence for answer in answers] == list(range(1, 3001))


def test_who_does_not_read_is_not_read(shop: Shop, server: ServerProcess) -> None:
    feature, customer = shop.feature(), shop.customer()
    draft = pb.Entitlement(customer_key=customer, feature_key=feature)
    draft.static.config.update({"text": "x" * 15_000})
    shop.stubs.entitlements.CreateEntitlement(pb.CreateEntitlementRequest(entitlement=draft))
    total, sent = 3000, [0]

    def requests() -> Iterator[bytes]:
        for number in range(1, total + 1):
            sent[0] = number
            # An unknown field: as wide as the answer, so that buffers on the way hold few of them.
            padding = pb.EntitlementCheck(customer_key="x" * 15_000).SerializeToString()
            yield asking(number, customer, feature).SerializeToString() + b"\x7a\x9b\x75" + padding

    with server.open_channel(server.address) as channel:
        call: Iterator[bytes] = _raw(channel)(requests())
        before = -1
        while sent[0] > before:
            before = sent[0]
            time.sleep(1)
        assert before < total, "or the server would hold all answers"
        assert sum(1 for _ in call) == total


def test_a_revoked_key_ends_an_idle_stream(
    new_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    url = new_database()
    directory: Path = tmp_path_factory.mktemp("revoked")
    settings = {"allow_anonymous_loopback": "false", "key_pepper": PEPPER}
    with ServerProcess(url, directory, **settings) as server:
        _, secret = new_tenant(url, "streaming")
        admin = stubs_with(server, secret)
        key_id, checking = key_with(admin, "check")
        talk = Talk(stubs_with(server, checking))
        assert talk.ask(asking(1, "nobody", "nothing")).access.reason == pb.ACCESS_REASON_CUSTOMER_UNKNOWN
        admin.keys.RevokeKey(key_pb2.RevokeKeyRequest(key_id=key_id))
        with pytest.raises(grpc.RpcError) as caught:
            next(talk.call)
        assert failure(caught.value).code == "UNAUTHENTICATED"


def test_a_server_that_stops_ends_idle_streams_at_once(
    new_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory: Path = tmp_path_factory.mktemp("stopping")
    with ServerProcess(new_database(), directory, drain_seconds=600) as server:
        talk = Talk(server.stubs())
        talk.ask(asking(1, "nobody", "nothing"))
        stopper = threading.Timer(0.1, server.signal, [signal.SIGTERM])
        stopper.start()
        with pytest.raises(grpc.RpcError) as caught:
            next(talk.call)
        told = failure(caught.value)
        assert (told.code, told.reason) == ("UNAVAILABLE", "NOT_SERVING")
        assert server.process.wait(60) == 0


def test_the_command_line_asks_over_a_stream(shop: Shop, server: ServerProcess) -> None:
    feature = shop.feature()
    customer = shop.customer()
    draft = pb.Entitlement(customer_key=customer, feature_key=feature, boolean=pb.BooleanEntitlement())
    shop.stubs.entitlements.CreateEntitlement(pb.CreateEntitlementRequest(entitlement=draft))
    terminal = Terminal(server.address)
    said = terminal.run(
        "checks", "-", stdin=f"{customer} {feature}\nnobody {feature} 3\n"
    ).stdout.splitlines()
    assert said == [f"{customer} {feature}: yes, allowed", f"nobody {feature} 3: no, customer unknown"]
    faulty = terminal.run("checks", "-", "--json", stdin=f"{customer}\n{customer} {feature}\n", code=1)
    first, second = faulty.stdout.splitlines()
    assert "feature_key" in first
    assert '"access": true' in second
