"""Checks that the core answers by itself are byte for byte what they were when they were looked up."""

import asyncio
import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from ammeter.domain.catalog import FailMode, FailRule
from ammeter.domain.catalog_rules import RateCardDraft
from ammeter.domain.key import Caller
from ammeter.rpc.entitlement import EntitlementRpc
from ammeter.v1 import catalog_pb2, reservation_pb2
from ammeter.v1 import entitlement_pb2 as pb
from tests.rpc.shop import Shop, unique
from tests.rpc.test_grants import entitle
from tests.serving import Stubs
from tests.usecases.world import World, metered

CUSTOMERS = 8


class Desk:
    """Asks a service in this process, bytes for bytes, and knows which questions the core answered."""

    def __init__(self, world: World) -> None:
        self.rpc = EntitlementRpc(world.live, world.db, 0.2)
        self.caller = Caller(world.tenant_id, "tenant", "key", frozenset({"check"}))

    def ask(self, body: bytes) -> bytes:
        return asyncio.run(self.rpc.check(self.caller, body))

    def ask_many(self, body: bytes) -> bytes:
        return asyncio.run(self.rpc.check_batch(self.caller, body))

    def knows(self, body: bytes) -> bool:
        known = self.rpc._answers.known(self.caller, body)
        return known is not None and not known.missing


@pytest.fixture
def world(new_database: Callable[[], str]) -> Iterator[World]:
    world = World(new_database(), f"{datetime.now(UTC):%Y-%m-%dT%H:%M}")
    yield world
    world.close()


def _question(customer: str, feature: str, amount: str = "", subject: str = "") -> pb.EntitlementCheck:
    if subject:
        return pb.EntitlementCheck(subject=subject, feature_key=feature, amount=amount)
    return pb.EntitlementCheck(customer_key=customer, feature_key=feature, amount=amount)


def _populate(world: World, rng: random.Random) -> list[pb.EntitlementCheck]:
    world.meter("tokens")
    keys = ["tokens", "soft", "small"]
    for key in keys:
        world.feature(key, "tokens")
    world.feature("sso")
    world.feature("models")
    allowances = ["0", "7", "12.5", "0.000000000001", "99999999999999999999999999"]
    plain = [RateCardDraft("sso", feature_key="sso", template_kind="boolean")]
    static = RateCardDraft("models", feature_key="models", template_kind="static", config={"a": [1, "é"]})
    for number in range(CUSTOMERS):
        cards = [metered(key, rng.choice(allowances), soft=key == "soft") for key in keys]
        world.plan(f"plan-{number}", *cards, *plain, static)
        world.customer(f"customer-{number}", f"user-{number}")
        world.subscribe(f"customer-{number}", f"plan-{number}")
        for _ in range(rng.randrange(3)):
            world.use(f"user-{number}", rng.choice(["1", "0.1", "-3", "12.500000000001", "8", "1000000.5"]))
    asked = []
    for number in range(CUSTOMERS):
        for key in [*keys, "sso", "models", "nothing"]:
            amount = rng.choice(["", "1", "0.000000000001", "5000"])
            subject = rng.choice(["", f"user-{number}"])
            asked.append(_question(f"customer-{number}", key, amount, subject))
    return [*asked, _question("nobody", "tokens"), _question("", "sso", "", "stranger")]


def test_what_is_known_is_answered_as_what_is_looked_up(world: World, rng: random.Random) -> None:
    asked = _populate(world, rng)
    desk = Desk(world)
    rule = FailRule(FailMode.OPEN_WITHIN, None)
    world.live.features[world.tenant_id, "small"] = rule
    bodies = [pb.CheckEntitlementRequest(check=one).SerializeToString() for one in asked]
    first = [desk.ask(body) for body in bodies]
    known = [desk.knows(body) for body in bodies]
    assert sum(known) == CUSTOMERS * 5, "all that is decided by a right"
    for body, answer in zip(bodies, first, strict=True):
        assert desk.ask(body) == answer
        assert desk.ask(body + b"\x10\x00") == answer
    many = pb.BatchCheckEntitlementsRequest(checks=asked).SerializeToString()
    together = pb.BatchCheckEntitlementsResponse.FromString(desk.ask_many(many))
    world.live.checks.forget_all()
    assert desk.ask_many(many) == together.SerializeToString()
    singly = [pb.CheckEntitlementResponse.FromString(answer).access for answer in first]
    assert list(together.accesses) == singly
    reasons = {one.reason for one in singly}
    assert len(reasons) >= 5, reasons


def test_usage_is_in_the_next_answer(world: World, rng: random.Random) -> None:
    _populate(world, rng)
    desk = Desk(world)
    body = pb.CheckEntitlementRequest(check=_question("customer-1", "tokens")).SerializeToString()
    before = pb.CheckEntitlementResponse.FromString(desk.ask(body))
    for number in range(1, 20):
        position = world.use("user-1", "2")
        assert desk.knows(body)
        later = pb.CheckEntitlementRequest(check=_question("customer-1", "tokens"), min_position=position)
        for sent in (body, later.SerializeToString()):
            answer = pb.CheckEntitlementResponse.FromString(desk.ask(sent))
            assert answer.position == position
            assert Decimal(answer.access.usage) == Decimal(before.access.usage) + 2 * number


def test_two_questions_in_a_request_for_one_are_read_as_protobuf_reads_them(world: World) -> None:
    world.feature("sso")
    world.feature("other")
    world.plan("plan", RateCardDraft("sso", feature_key="sso", template_kind="boolean"))
    world.customer("acme")
    world.subscribe("acme", "plan")
    desk = Desk(world)
    first = pb.CheckEntitlementRequest(check=_question("acme", "sso")).SerializeToString()
    second = pb.CheckEntitlementRequest(check=_question("acme", "other")).SerializeToString()
    assert pb.CheckEntitlementResponse.FromString(desk.ask(first)).access.access
    answer = pb.CheckEntitlementResponse.FromString(desk.ask(first + second))
    assert answer.access.reason == pb.ACCESS_REASON_NOT_ENTITLED
    answer = pb.CheckEntitlementResponse.FromString(desk.ask(second + first))
    assert answer.access.access
    assert pb.CheckEntitlementResponse.FromString(desk.ask(first + first)).access.access


def test_what_ends_is_not_known_any_more(world: World, rng: random.Random) -> None:
    _populate(world, rng)
    desk = Desk(world)
    body = pb.CheckEntitlementRequest(check=_question("", "sso", "", "user-1")).SerializeToString()
    assert pb.CheckEntitlementResponse.FromString(desk.ask(body)).access.access
    assert desk.knows(body)
    world.release("customer-1", "user-1")
    answer = pb.CheckEntitlementResponse.FromString(desk.ask(body)).access
    assert answer.reason == pb.ACCESS_REASON_CUSTOMER_UNKNOWN
    world.live.behind.add(("customer", world.tenant_id, 1))
    assert not desk.knows(body)


# Over the wire


def _ask(stubs: Stubs, customer: str, feature: str, amount: str = "") -> pb.Access:
    """Ask again and again, singly and among others; all answers are the same."""
    one = _question(customer, feature, amount)
    request = pb.CheckEntitlementRequest(check=one)
    access = stubs.entitlements.CheckEntitlement(request).access
    stranger = _question("nobody", feature)
    for _ in range(2):
        assert stubs.entitlements.CheckEntitlement(request).access == access
        batch = pb.BatchCheckEntitlementsRequest(checks=[one, stranger, one])
        answers = stubs.entitlements.BatchCheckEntitlements(batch).accesses
        assert (answers[0], answers[2]) == (access, access)
        assert answers[1].reason == pb.ACCESS_REASON_CUSTOMER_UNKNOWN
    return access


def test_every_change_is_in_the_next_answer(stubs: Stubs) -> None:
    shop = Shop(stubs, "known")
    feature = shop.feature(shop.meter())
    subject = unique("user")
    customer = shop.customer(subject)
    assert _ask(stubs, customer, feature).reason == pb.ACCESS_REASON_NOT_ENTITLED
    made = entitle(shop, feature, customer, allowance="10")
    assert _ask(stubs, customer, feature).balance == "10"
    shop.record(shop.event(subject, "4"))
    assert _ask(stubs, customer, feature).balance == "6"
    reserve = reservation_pb2.ReserveRequest(customer_key=customer, feature_key=feature, amount="5")
    held = stubs.reservations.Reserve(reserve).reservation
    access = _ask(stubs, customer, feature)
    assert (access.balance, access.held) == ("1", "5")
    assert not _ask(stubs, customer, feature, amount="2").access
    settle = reservation_pb2.SettleReservationRequest(
        reservation_id=held.reservation_id, amount="2", events=[shop.event(subject, "2")]
    )
    stubs.reservations.SettleReservation(settle)
    access = _ask(stubs, customer, feature)
    assert (access.balance, access.held, access.usage) == ("4", "", "6")
    grant = pb.CreateGrantRequest(grant=pb.Grant(entitlement_id=made.entitlement_id, amount="3"))
    granted = stubs.entitlements.CreateGrant(grant).grant
    assert _ask(stubs, customer, feature).balance == "7"
    stubs.entitlements.VoidGrant(pb.VoidGrantRequest(grant_id=granted.grant_id))
    assert _ask(stubs, customer, feature).balance == "4"
    changed = catalog_pb2.Feature(
        feature_key=feature, fail_mode=catalog_pb2.FAIL_MODE_OPEN_WITHIN, fail_allowance="2.5"
    )
    stubs.catalog.UpdateFeature(catalog_pb2.UpdateFeatureRequest(feature=changed))
    assert _ask(stubs, customer, feature).fail_allowance == "2.5"
    stubs.entitlements.DeleteEntitlement(pb.DeleteEntitlementRequest(entitlement_id=made.entitlement_id))
    assert _ask(stubs, customer, feature).reason == pb.ACCESS_REASON_ENTITLEMENT_NOT_ACTIVE
