"""SubscriptionService and EntitlementService over the wire."""

import time
from collections.abc import Iterator

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from ammeter.v1 import catalog_pb2, customer_pb2, usage_pb2
from ammeter.v1 import entitlement_pb2 as ent
from ammeter.v1 import subscription_pb2 as pb
from tests.rpc.test_catalog import create_feature, create_meter
from tests.rpc.wire import refusal
from tests.serving import ServerProcess, Stubs


@pytest.fixture(scope="module")
def shop(stubs: Stubs) -> Stubs:
    """A tenant with a metered, a static and a boolean feature, and a plan of all three."""
    create_meter(stubs, "tokens")
    create_feature(stubs, "tokens", "tokens")
    create_feature(stubs, "models")
    create_feature(stubs, "sso")
    plan = catalog_pb2.Plan(plan_key="basic")
    metered = plan.rate_cards.add(rate_card_key="tokens", feature_key="tokens")
    metered.entitlement.metered.allowance = "100.5"
    static = plan.rate_cards.add(rate_card_key="models", feature_key="models")
    static.entitlement.static.config.update({"max": 3})
    plan.rate_cards.add(rate_card_key="sso", feature_key="sso").entitlement.boolean.SetInParent()
    stubs.catalog.CreatePlan(catalog_pb2.CreatePlanRequest(plan=plan))
    return stubs


_numbers: Iterator[int] = iter(range(1000))


def create_customer(stubs: Stubs) -> str:
    key = f"customer-{next(_numbers)}"
    customer = customer_pb2.Customer(customer_key=key)
    stubs.customers.CreateCustomer(
        customer_pb2.CreateCustomerRequest(customer=customer, subjects=[f"{key}-user"])
    )
    return key


def subscribe(
    stubs: Stubs, customer: str, *, start_time: Timestamp | None = None, anchor_time: Timestamp | None = None
) -> pb.Subscription:
    request = pb.CreateSubscriptionRequest(
        customer_key=customer, plan_key="basic", start_time=start_time, anchor_time=anchor_time
    )
    return stubs.subscriptions.CreateSubscription(request).subscription


def use(stubs: Stubs, subject: str, amount: str) -> int:
    event = usage_pb2.UsageEvent(
        id=f"{subject}-{time.monotonic_ns()}",
        source="test",
        type="use",
        subject=subject,
        properties={"n": amount},
    )
    answer = stubs.usage.RecordUsage(usage_pb2.RecordUsageRequest(events=[event]))
    assert answer.accepted_count == 1
    return answer.position


def check(stubs: Stubs, feature: str, amount: str = "", **who: str) -> ent.Access:
    asked = ent.EntitlementCheck(feature_key=feature, amount=amount, **who)
    return stubs.entitlements.CheckEntitlement(ent.CheckEntitlementRequest(check=asked)).access


def test_a_subscription_shows_the_period_around_now(shop: Stubs) -> None:
    customer = create_customer(shop)
    now = int(time.time())
    made = subscribe(shop, customer, anchor_time=Timestamp(seconds=now - 86_400 * 3))
    assert made.start_time.seconds == made.period_start_time.seconds
    assert now - 120 <= made.start_time.seconds <= now + 60
    assert 24 * 86_400 < made.period_end_time.seconds - now < 32 * 86_400
    assert not made.HasField("end_time")
    request = pb.GetSubscriptionRequest(subscription_id=made.subscription_id)
    assert shop.subscriptions.GetSubscription(request).subscription == made
    listed = shop.subscriptions.ListSubscriptions(
        pb.ListSubscriptionsRequest(customer_key=customer)
    ).subscriptions
    assert list(listed) == [made]


def test_a_future_subscription_has_no_period_yet(shop: Stubs) -> None:
    made = subscribe(shop, create_customer(shop), start_time=Timestamp(seconds=int(time.time()) + 86_400))
    assert not made.HasField("period_start_time")


def test_a_check_after_an_acknowledgement_sees_the_event(shop: Stubs) -> None:
    customer = create_customer(shop)
    subscribe(shop, customer)
    total = 0
    for number in range(1, 12):
        position = use(shop, f"{customer}-user", str(number))
        total += number
        asked = ent.EntitlementCheck(subject=f"{customer}-user", feature_key="tokens")
        answer = shop.entitlements.CheckEntitlement(ent.CheckEntitlementRequest(check=asked))
        assert answer.position >= position
        assert answer.access.usage == str(total)
        assert answer.access.balance == f"{100 - total}.5"
        assert answer.access.allowance == "100.5"
    assert check(shop, "tokens", "34.5", customer_key=customer).access
    refused = check(shop, "tokens", "34.500000000001", customer_key=customer)
    assert (refused.access, refused.reason) == (False, ent.ACCESS_REASON_LIMIT_REACHED)
    assert refused.message
    use(shop, f"{customer}-user", "40")
    assert check(shop, "tokens", customer_key=customer).overage == "5.5"


def test_static_and_boolean_checks_answer_without_quantities(shop: Stubs) -> None:
    customer = create_customer(shop)
    subscribe(shop, customer)
    static = check(shop, "models", customer_key=customer)
    assert static.access
    assert static.config["max"] == 3
    boolean = check(shop, "sso", customer_key=customer)
    assert boolean == ent.Access(
        access=True, reason=ent.ACCESS_REASON_ALLOWED, fail_mode=catalog_pb2.FAIL_MODE_CLOSED
    )


def test_unknown_things_are_answers_in_a_batch_in_the_order_asked(shop: Stubs) -> None:
    customer = create_customer(shop)
    checks = [
        ent.EntitlementCheck(customer_key="nobody", feature_key="tokens"),
        ent.EntitlementCheck(subject="nobody", feature_key="nothing"),
        ent.EntitlementCheck(customer_key=customer, feature_key="nothing"),
        ent.EntitlementCheck(subject=f"{customer}-user", feature_key="tokens"),
    ]
    answer = shop.entitlements.BatchCheckEntitlements(ent.BatchCheckEntitlementsRequest(checks=checks * 250))
    assert [access.reason for access in answer.accesses] == [
        ent.ACCESS_REASON_CUSTOMER_UNKNOWN,
        ent.ACCESS_REASON_CUSTOMER_UNKNOWN,
        ent.ACCESS_REASON_FEATURE_UNKNOWN,
        ent.ACCESS_REASON_NOT_ENTITLED,
    ] * 250


def test_malformed_checks_fail_the_call_and_are_named(shop: Stubs) -> None:
    checks = [
        ent.EntitlementCheck(customer_key="a", feature_key="b", amount="0"),
        ent.EntitlementCheck(feature_key="b"),
        ent.EntitlementCheck(subject="a", amount="many"),
    ]
    request = ent.BatchCheckEntitlementsRequest(checks=checks, min_position=-1)
    assert sorted(refusal(shop.entitlements.BatchCheckEntitlements, request).fields) == [
        "checks[0].amount",
        "checks[1].customer_key",
        "checks[2].amount",
        "checks[2].feature_key",
        "min_position",
    ]
    too_many = ent.BatchCheckEntitlementsRequest(checks=checks * 400)
    assert list(refusal(shop.entitlements.BatchCheckEntitlements, too_many).fields) == ["checks"]


def test_a_position_out_of_reach_is_refused_with_a_delay(shop: Stubs) -> None:
    asked = ent.EntitlementCheck(customer_key="a", feature_key="b")
    request = ent.CheckEntitlementRequest(check=asked, min_position=10**12)
    failure = refusal(shop.entitlements.CheckEntitlement, request)
    assert (failure.code, failure.reason) == ("FAILED_PRECONDITION", "POSITION_NOT_REACHED")
    assert failure.retry_seconds


def test_cancelling_ends_access_and_entitlements(shop: Stubs) -> None:
    customer = create_customer(shop)
    made = subscribe(shop, customer, start_time=Timestamp(seconds=int(time.time()) - 3600))
    request = pb.CancelSubscriptionRequest(
        subscription_id=made.subscription_id, timing=pb.CANCEL_TIMING_PERIOD_END
    )
    later = shop.subscriptions.CancelSubscription(request).subscription
    assert later.end_time == later.period_end_time
    assert check(shop, "sso", customer_key=customer).access
    request.timing = pb.CANCEL_TIMING_NOW
    ended = shop.subscriptions.CancelSubscription(request).subscription
    assert ended.end_time.seconds % 60 == 0
    for feature in ("sso", "models", "tokens"):
        assert check(shop, feature, customer_key=customer).reason == ent.ACCESS_REASON_ENTITLEMENT_NOT_ACTIVE
    listed = shop.entitlements.ListEntitlements(
        ent.ListEntitlementsRequest(customer_key=customer)
    ).entitlements
    assert {entitlement.feature_key for entitlement in listed} == {"sso", "models", "tokens"}
    assert {entitlement.to_time.seconds for entitlement in listed} == {ended.end_time.seconds}
    (metered,) = (entitlement for entitlement in listed if entitlement.HasField("metered"))
    assert metered.metered.allowance == "100.5"
    again = refusal(shop.subscriptions.CancelSubscription, request)
    assert (again.code, again.reason) == ("FAILED_PRECONDITION", "WRONG_STATE")
    subscribe(shop, customer)
    assert check(shop, "sso", customer_key=customer).access


def test_two_plans_with_one_feature_are_refused(shop: Stubs) -> None:
    customer = create_customer(shop)
    subscribe(shop, customer)
    failure = refusal(
        shop.subscriptions.CreateSubscription,
        pb.CreateSubscriptionRequest(customer_key=customer, plan_key="basic"),
    )
    assert (failure.code, failure.reason) == ("FAILED_PRECONDITION", "FEATURE_OVERLAP")
    assert failure.fields == {"plan_key": failure.message}


def test_checks_answer_the_same_after_a_restart(shop: Stubs, server: ServerProcess) -> None:
    customer = create_customer(shop)
    subscribe(shop, customer)
    use(shop, f"{customer}-user", "12.25")
    before = check(shop, "tokens", customer_key=customer)
    server.kill()
    server.start()
    assert check(server.stubs(), "tokens", customer_key=customer) == before
