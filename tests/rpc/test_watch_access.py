"""WatchAccess: what is, then what changes; one slow reader hurts only itself."""

import threading
from collections.abc import Iterator

import pytest

from ammeter.v1 import access_pb2 as pb
from ammeter.v1 import entitlement_pb2, reservation_pb2
from tests.rpc.shop import Shop, unique
from tests.rpc.terminal import Terminal
from tests.rpc.wire import refusal
from tests.serving import ServerProcess, Stubs


@pytest.fixture(scope="module")
def shop(stubs: Stubs) -> Shop:
    return Shop(stubs, "watch")


@pytest.fixture(scope="module")
def feature(shop: Shop) -> str:
    return shop.feature(shop.meter())


def entitled(shop: Shop, feature: str, allowance: str = "100") -> tuple[str, str]:
    """Make a customer who may use a feature; returns it and its subject."""
    subject = unique("user")
    customer = shop.customer(subject)
    metered = {"allowance": allowance, "usage_period": {"cadence": "P1M"}}
    draft = entitlement_pb2.Entitlement(customer_key=customer, feature_key=feature, metered=metered)  # type: ignore[arg-type]
    shop.stubs.entitlements.CreateEntitlement(entitlement_pb2.CreateEntitlementRequest(entitlement=draft))
    return customer, subject


def until(stream: Iterator[pb.WatchAccessResponse], **access: object) -> pb.WatchAccessResponse:
    """Read until a state says this."""
    for response in stream:
        if all(getattr(response.state.access, name) == value for name, value in access.items()):
            return response
    raise AssertionError("the stream ended")


def opening(stream: Iterator[pb.WatchAccessResponse]) -> list[pb.WatchAccessResponse]:
    """What comes at once, its end included."""
    found = []
    for response in stream:
        found.append(response)
        if response.HasField("complete"):
            return found
    raise AssertionError("the stream ended")


def test_first_comes_all_that_is_then_what_changes(shop: Shop, feature: str) -> None:
    customer, subject = entitled(shop, feature)
    request = pb.WatchAccessRequest(customer_keys=[customer, "nobody"], feature_keys=[feature])
    stream = shop.stubs.access.WatchAccess(request, timeout=60)
    *states, _ = opening(stream)
    reasons = {one.state.customer_key: one.state.access.reason for one in states}
    assert reasons == {
        customer: entitlement_pb2.ACCESS_REASON_ALLOWED,
        "nobody": entitlement_pb2.ACCESS_REASON_CUSTOMER_UNKNOWN,
    }
    shop.record(shop.event(subject, 30))
    assert until(stream, usage="30").state.access.balance == "70"
    shop.record(shop.event(subject, 70))
    assert until(stream, usage="100").state.access.reason == entitlement_pb2.ACCESS_REASON_LIMIT_REACHED
    shop.record(shop.event(subject, -50))
    until(stream, balance="50")
    reserving = reservation_pb2.ReserveRequest(
        customer_key=customer, feature_key=feature, amount="20", lifetime_ms=60_000
    )
    shop.stubs.reservations.Reserve(reserving)
    assert until(stream, balance="30").state.access.held == "20"
    stream.cancel()


def test_what_is_given_and_taken_by_hand_is_told(shop: Shop) -> None:
    feature, customer = shop.feature(), shop.customer()
    request = pb.WatchAccessRequest(customer_keys=[customer])
    stream = shop.stubs.access.WatchAccess(request, timeout=60)
    assert len(opening(stream)) == 1, "it has nothing"
    draft = entitlement_pb2.Entitlement(
        customer_key=customer, feature_key=feature, boolean=entitlement_pb2.BooleanEntitlement()
    )
    made = shop.stubs.entitlements.CreateEntitlement(
        entitlement_pb2.CreateEntitlementRequest(entitlement=draft)
    )
    until(stream, access=True)
    shop.stubs.entitlements.DeleteEntitlement(
        entitlement_pb2.DeleteEntitlementRequest(entitlement_id=made.entitlement.entitlement_id)
    )
    until(stream, access=False)
    stream.cancel()


def test_only_decisions_if_asked_for(shop: Shop, feature: str) -> None:
    customer, subject = entitled(shop, feature)
    request = pb.WatchAccessRequest(customer_keys=[customer], decisions_only=True)
    stream = shop.stubs.access.WatchAccess(request, timeout=60)
    opening(stream)
    everything = shop.stubs.access.WatchAccess(pb.WatchAccessRequest(customer_keys=[customer]), timeout=60)
    for tokens in (10, 20, 70):
        shop.record(shop.event(subject, tokens))
        until(everything, usage=str({10: 10, 20: 30, 70: 100}[tokens]))
    assert next(stream).state.access.usage == "100", "what changed the answer, and nothing before it"
    stream.cancel()
    everything.cancel()


def test_who_comes_again_is_told_what_may_have_changed_or_that_there_is_a_gap(
    shop: Shop, server: ServerProcess
) -> None:
    features = [shop.feature() for _ in range(3)]
    customer = shop.customer()
    made = []
    for feature in features:
        draft = entitlement_pb2.Entitlement(
            customer_key=customer, feature_key=feature, boolean=entitlement_pb2.BooleanEntitlement()
        )
        request = entitlement_pb2.CreateEntitlementRequest(entitlement=draft)
        made.append(shop.stubs.entitlements.CreateEntitlement(request).entitlement)
    watching = pb.WatchAccessRequest(customer_keys=[customer])
    stream = shop.stubs.access.WatchAccess(watching, timeout=60)
    *states, last = opening(stream)
    assert len(states) == len(features)
    stream.cancel()
    watching.resume_token = last.resume_token
    shop.stubs.entitlements.DeleteEntitlement(
        entitlement_pb2.DeleteEntitlementRequest(entitlement_id=made[1].entitlement_id)
    )
    stream = shop.stubs.access.WatchAccess(watching, timeout=60)
    again = opening(stream)
    assert not any(one.HasField("gap") for one in again)
    assert features[1] in [one.state.feature_key for one in again if not one.state.access.access]
    stream.cancel()
    server.restart()
    stream = server.stubs().access.WatchAccess(watching, timeout=60)
    gap, *states, _ = opening(stream)
    assert gap.HasField("gap")
    assert len(states) == len(features)
    stream.cancel()


def test_fifty_hear_all_while_one_never_reads(shop: Shop, feature: str, server: ServerProcess) -> None:
    customer, subject = entitled(shop, feature, "1000000")
    request = pb.WatchAccessRequest(customer_keys=[customer])
    deaf = server.stubs().access.WatchAccess(request, timeout=120)
    rounds, heard = 300, []

    def listen() -> None:
        stream = shop.stubs.access.WatchAccess(request, timeout=120)
        until(stream, usage=str(rounds))
        heard.append(1)
        stream.cancel()

    threads = [threading.Thread(target=listen) for _ in range(50)]
    for thread in threads:
        thread.start()
    for _ in range(rounds):
        assert shop.record(shop.event(subject, 1)).accepted_count == 1
    for thread in threads:
        thread.join(60)
    assert len(heard) == len(threads)
    deaf.cancel()


def test_what_cannot_be_watched_is_refused(shop: Shop) -> None:
    watch = shop.stubs.access.WatchAccess
    for request, faulty in (
        (pb.WatchAccessRequest(), "customer_keys"),
        (pb.WatchAccessRequest(customer_keys=["a"] * 1001), "customer_keys"),
        (pb.WatchAccessRequest(customer_keys=["a", ""]), "customer_keys[1]"),
        (pb.WatchAccessRequest(customer_keys=["a"], feature_keys=["f"] * 101), "feature_keys"),
        (pb.WatchAccessRequest(customer_keys=["a"], resume_token=unique("x")), "resume_token"),
    ):
        failure = refusal(watch, request)
        assert (failure.code, set(failure.fields)) == ("INVALID_ARGUMENT", {faulty})


def test_the_command_line_watches(shop: Shop, server: ServerProcess) -> None:
    feature, customer = shop.feature(), shop.customer()
    draft = entitlement_pb2.Entitlement(
        customer_key=customer, feature_key=feature, boolean=entitlement_pb2.BooleanEntitlement()
    )
    shop.stubs.entitlements.CreateEntitlement(entitlement_pb2.CreateEntitlementRequest(entitlement=draft))
    child = Terminal(server.address).popen("watch", customer)
    assert child.stdout is not None
    assert child.stdout.readline() == f"{customer} {feature}: yes, allowed\n"
    child.terminate()
    child.communicate()
