"""A request_id makes any change safe to repeat: the first answer comes back, and nothing is done again."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import psycopg
import pytest
from google.protobuf.message import Message

from ammeter.v1 import subscription_pb2
from tests.rpc.shop import PEPPER, SCOPES, Shop, flat, key_with, new_tenant, per_unit, stubs_with, unique
from tests.rpc.wire import BY_NAME, RPCS, Failure, Rpc, attempt, call, refused
from tests.serving import ServerProcess, Stubs

WITH_ID = [rpc for rpc in RPCS if "request_id" in rpc.field_names]
# Repeating these changes nothing by what they are; their comments say so.
SAFE_BY_NATURE = {
    "RecordUsage",
    "StreamUsage",
    "GenerateInvoices",
    "IssueInvoice",
    "VoidInvoice",
    "MarkInvoicePaid",
    "MarkInvoiceUncollectible",
    "RevokeKey",
    "MigrateSubscriptions",
}
# A lost answer is a lost secret: make another key.
NEVER_REPEATED = {"CreateKey"}


@pytest.fixture(scope="module")
def shop(stubs: Stubs) -> Shop:
    return Shop(stubs, "again")


@pytest.fixture(scope="module")
def channel(server: ServerProcess) -> grpc.Channel:
    return server.channel()


# A request that will succeed, made of fresh things, for each method.
def _create_meter(_: Shop) -> dict[str, Any]:
    return {"meter": {"meter_key": unique("m"), "event_type": "t", "aggregation": 1}}


def _create_plan(shop: Shop) -> dict[str, Any]:
    return {"plan": {"plan_key": unique("p"), "rate_cards": [per_unit(shop.feature(), "", "")]}}


def _subscription(shop: Shop) -> dict[str, Any]:
    return {"customer_key": shop.customer(), "plan_key": shop.plan(flat("1"))}


def _cancel(shop: Shop) -> dict[str, Any]:
    start = datetime.now(UTC) - timedelta(days=1)
    return {"subscription_id": shop.subscribe(**_subscription(shop), start=start).subscription_id}


def _resume(shop: Shop) -> dict[str, Any]:
    made = _cancel(shop)
    shop.stubs.subscriptions.CancelSubscription(
        subscription_pb2.CancelSubscriptionRequest(timing=subscription_pb2.CANCEL_TIMING_PERIOD_END, **made)
    )
    return made


def _release(shop: Shop) -> dict[str, Any]:
    subject = unique("s")
    return {"customer_key": shop.customer(subject), "subject": subject}


def _entitlement(shop: Shop) -> dict[str, Any]:
    metered = {"allowance": "1", "usage_period": {"cadence": "P1M"}}
    feature = shop.feature(shop.meter())
    return {"entitlement": {"customer_key": shop.customer(), "feature_key": feature, "metered": metered}}


def _entitled(shop: Shop, days_ago: int = 0) -> dict[str, Any]:
    """An entitlement that is there; the fields that one like it is made of, with its id."""
    wanted = _entitlement(shop)
    start = datetime.now(UTC) - timedelta(days=days_ago)
    fields = {**wanted["entitlement"], "from_time": start}
    request: Any = BY_NAME["CreateEntitlement"].request(entitlement=fields)
    made = shop.stubs.entitlements.CreateEntitlement(request)
    return {"entitlement": {**wanted["entitlement"], "entitlement_id": made.entitlement.entitlement_id}}


def _entitlement_id(shop: Shop, days_ago: int = 0) -> dict[str, Any]:
    return {"entitlement_id": _entitled(shop, days_ago)["entitlement"]["entitlement_id"]}


def _grant(shop: Shop) -> dict[str, Any]:
    return {"grant": {**_entitlement_id(shop), "amount": "1"}}


def _granted(shop: Shop) -> dict[str, Any]:
    request: Any = BY_NAME["CreateGrant"].request(**_grant(shop))
    made = shop.stubs.entitlements.CreateGrant(request)
    return {"grant_id": made.grant.grant_id}


def _reserve(shop: Shop) -> dict[str, Any]:
    entitled = _entitled(shop)["entitlement"]
    return {"customer_key": entitled["customer_key"], "feature_key": entitled["feature_key"], "amount": "1"}


def _reserved(shop: Shop, **fields: Any) -> dict[str, Any]:  # noqa: ANN401 - fields of ReserveRequest
    request: Any = BY_NAME["Reserve"].request(**_reserve(shop), **fields)
    return {"reservation_id": shop.stubs.reservations.Reserve(request).reservation.reservation_id}


def _settle(shop: Shop) -> dict[str, Any]:
    return {**_reserved(shop), "amount": "1", "events": [shop.event("somebody")]}


def _renew(shop: Shop) -> dict[str, Any]:
    return {**_reserved(shop, lease=True), "generation": 1, "used_amount": "1", "amount": "1"}


def _credit(shop: Shop) -> dict[str, Any]:
    return {"invoice_id": shop.invoice().invoice_id, "amount": "0.10", "reason": "goodwill"}


def _lot(shop: Shop) -> dict[str, Any]:
    return {"credit_lot": {"customer_key": shop.customer(), "amount": "1"}}


def _lot_id(shop: Shop) -> dict[str, Any]:
    request: Any = BY_NAME["GrantCredit"].request(**_lot(shop))
    return {"credit_lot_id": shop.stubs.credits.GrantCredit(request).credit_lot.credit_lot_id}


def _operation_id(shop: Shop) -> dict[str, Any]:
    request: Any = BY_NAME["StartInvoiceGeneration"].request(customer_key=shop.customer())
    return {"operation_id": shop.stubs.invoices.StartInvoiceGeneration(request).operation.operation_id}


def _rule(shop: Shop) -> dict[str, Any]:
    return {"rule": {"customer_key": shop.customer(), "threshold": "1", "amount": "1"}}


def _ruled(shop: Shop) -> dict[str, Any]:
    request: Any = BY_NAME["SetTopUpRule"].request(**_rule(shop))
    return {"customer_key": shop.stubs.credits.SetTopUpRule(request).rule.customer_key}


def _override(shop: Shop) -> dict[str, Any]:
    sub = shop.subscribe(shop.customer(), shop.plan(flat("1")))
    price = {"flat": {"amount": "2"}}
    return {
        "price_override": {"subscription_id": sub.subscription_id, "rate_card_key": "base", "price": price}
    }


def _overridden(shop: Shop) -> dict[str, Any]:
    request: Any = BY_NAME["CreatePriceOverride"].request(**_override(shop))
    made = shop.stubs.price_overrides.CreatePriceOverride(request)
    return {"price_override_id": made.price_override.price_override_id}


REQUESTS: dict[str, Callable[[Shop], dict[str, Any]]] = {
    "CreateMeter": _create_meter,
    "UpdateMeter": lambda shop: {
        "meter": {"meter_key": shop.meter(), "name": "new"},
        "update_mask": {"paths": ["name"]},
    },
    "DeleteMeter": lambda shop: {"meter_key": shop.meter()},
    "CreateCustomer": lambda _: {"customer": {"customer_key": unique("c")}, "subjects": [unique("s")]},
    "UpdateCustomer": lambda shop: {
        "customer": {"customer_key": shop.customer(), "name": "new"},
        "update_mask": {"paths": ["name"]},
    },
    "AssignSubject": lambda shop: {"customer_key": shop.customer(), "subject": unique("s")},
    "ReleaseSubject": _release,
    "CreateEntitlement": _entitlement,
    "OverrideEntitlement": _entitled,
    "DeleteEntitlement": _entitlement_id,
    "CreateGrant": _grant,
    "VoidGrant": _granted,
    "ResetUsage": lambda shop: _entitlement_id(shop, days_ago=1),
    "Reserve": _reserve,
    "ExtendReservation": _reserved,
    "SettleReservation": _settle,
    "ReleaseReservation": _reserved,
    "RenewLease": _renew,
    "CreateThreshold": lambda _: {"threshold": {"kind": 4}},
    "DeleteThreshold": lambda shop: {"threshold_id": shop.threshold(kind=4).threshold_id},
    "CreateFeature": lambda _: {"feature": {"feature_key": unique("f")}},
    "UpdateFeature": lambda shop: {"feature": {"feature_key": shop.feature(), "fail_mode": 2}},
    "DeleteFeature": lambda shop: {"feature_key": shop.feature()},
    "CreatePlan": _create_plan,
    "DraftPlan": _create_plan,
    "UpdatePlan": lambda shop: {"plan": {"plan_key": shop.draft(), "name": "new"}},
    "PublishPlan": lambda shop: {"plan_key": shop.draft()},
    "ArchivePlan": lambda shop: {"plan_key": shop.plan()},
    "CreateSubscription": _subscription,
    "CancelSubscription": _cancel,
    "ResumeSubscription": _resume,
    "ChangeSubscription": lambda shop: {**_cancel(shop), "plan_key": shop.plan(flat("2"))},
    "SetSubscriptionQuantity": lambda shop: {**_cancel(shop), "quantity": 7},
    "CreateCreditNote": _credit,
    "StartInvoiceGeneration": lambda shop: {"customer_key": shop.customer()},
    "CancelOperation": _operation_id,
    "GrantCredit": _lot,
    "PurchaseCredit": _lot,
    "VoidCreditLot": _lot_id,
    "SetTopUpRule": _rule,
    "DeleteTopUpRule": _ruled,
    "SetBillingProfile": lambda shop: {"profile": {"customer_key": shop.customer(), "memo": "new"}},
    "CreateTaxRate": lambda _: {"tax_rate": {"tax_rate_key": unique("t"), "name": "T", "percentage": "1"}},
    "CreateCoupon": lambda _: {"coupon": {"coupon_key": unique("c"), "percentage": "1"}},
    "ArchiveCoupon": lambda shop: {"coupon_key": shop.coupon()},
    "AttachCoupon": lambda shop: {"coupon_key": shop.coupon(), "customer_key": shop.customer()},
    "DetachCoupon": lambda shop: {
        "attached_coupon_id": shop.attach(shop.coupon(), customer_key=shop.customer()).attached_coupon_id
    },
    "AttachAddOn": lambda shop: {
        "subscription_id": shop.subscribe(shop.customer(), shop.plan(flat("1"))).subscription_id,
        "plan_key": shop.plan(flat("1", key="extra")),
    },
    "DetachAddOn": lambda shop: {
        "add_on_id": shop.add_on(
            shop.subscribe(shop.customer(), shop.plan(flat("1"))).subscription_id
        ).add_on_id
    },
    "CreatePriceOverride": _override,
    "EndPriceOverride": _overridden,
    "CreatePriceList": lambda _: {"price_list": {"price_list_key": unique("l")}},
    "ImportPrices": lambda shop: {
        "price_list_key": shop.price_list(),
        "entries": [{"model": "m", "token_type": "input", "unit_amount": "1"}],
    },
    "ArchiveTaxRate": lambda shop: {"tax_rate_key": shop.tax_rate()},
}
# A field to change, so that the content is another: first of these that the request has.
_CHANGES = (
    "meter_key",
    "customer_key",
    "feature_key",
    "plan_key",
    "subscription_id",
    "subject",
    "entitlement_id",
    "grant_id",
    "reservation_id",
    "threshold_id",
    "tax_rate_key",
    "credit_lot_id",
    "operation_id",
    "price_list_key",
    "coupon_key",
    "attached_coupon_id",
    "price_override_id",
    "add_on_id",
    "reason",
)


def _request(rpc: Rpc, shop: Shop, request_id: str) -> Message:
    return rpc.request(**REQUESTS[rpc.name](shop), request_id=request_id)


def _changed(request: Message) -> Message:
    other = type(request).FromString(request.SerializeToString())
    holder: Any = next((value for _, value in other.ListFields() if isinstance(value, Message)), other)
    field = next(name for name in _CHANGES if hasattr(holder, name))
    setattr(holder, field, getattr(holder, field) + "x")
    return other


def test_every_change_has_a_request_id_or_a_reason_not_to() -> None:
    changes = {rpc.name for rpc in RPCS if rpc.mutates}
    assert {rpc.name for rpc in WITH_ID} == changes - SAFE_BY_NATURE - NEVER_REPEATED
    assert REQUESTS.keys() == {rpc.name for rpc in WITH_ID}


@pytest.mark.parametrize("rpc", WITH_ID, ids=str)
def test_a_repeat_returns_the_first_answer_byte_for_byte(
    rpc: Rpc, shop: Shop, channel: grpc.Channel, server: ServerProcess
) -> None:
    request = _request(rpc, shop, unique("id"))
    (first,) = call(channel, rpc, request)
    before = _rows(server)
    for _ in range(3):
        assert call(channel, rpc, request) == [first]
    assert call(server.channel(), rpc, request) == [first], "over another connection, too"
    assert _rows(server) == before, "and nothing was written"


@pytest.mark.parametrize("rpc", WITH_ID, ids=str)
def test_a_request_id_with_other_content_is_a_conflict(rpc: Rpc, shop: Shop, channel: grpc.Channel) -> None:
    request = _request(rpc, shop, unique("id"))
    (first,) = call(channel, rpc, request)
    failed = refused(channel, rpc, _changed(request))
    assert failed
    assert (failed.code, failed.reason) == ("ALREADY_EXISTS", "REQUEST_ID_CONFLICT")
    assert list(failed.fields) == ["request_id"]
    assert "use a new one" in failed.message
    assert call(channel, rpc, request) == [first], "the first stands"


@pytest.mark.parametrize("rpc", WITH_ID, ids=str)
def test_two_at_the_same_time_do_one_thing(rpc: Rpc, shop: Shop, server: ServerProcess) -> None:
    request = _request(rpc, shop, unique("id"))
    outcomes: list[list[bytes] | Failure] = []
    ready = threading.Barrier(4)

    def send() -> None:
        with server.channel() as own:
            ready.wait()
            outcomes.append(attempt(own, rpc, request))

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 4
    assert all(outcome == outcomes[0] for outcome in outcomes)
    assert isinstance(outcomes[0], list)


def test_a_request_id_of_another_method_is_a_conflict(shop: Shop, channel: grpc.Channel) -> None:
    request_id = unique("id")
    call(channel, BY_NAME["CreateFeature"], _request(BY_NAME["CreateFeature"], shop, request_id))
    failed = refused(channel, BY_NAME["CreatePlan"], _request(BY_NAME["CreatePlan"], shop, request_id))
    assert failed
    assert failed.reason == "REQUEST_ID_CONFLICT"


def test_what_failed_may_be_mended_under_the_same_request_id(channel: grpc.Channel) -> None:
    rpc, request_id = BY_NAME["CreateFeature"], unique("id")
    failed = refused(channel, rpc, rpc.request(feature={"feature_key": "NO"}, request_id=request_id))
    assert failed
    assert failed.code == "INVALID_ARGUMENT"
    assert call(channel, rpc, rpc.request(feature={"feature_key": unique("f")}, request_id=request_id))


def test_a_request_id_outlives_the_process(shop: Shop, server: ServerProcess) -> None:
    rpc = BY_NAME["CreateCustomer"]
    request = _request(rpc, shop, unique("id"))
    (first,) = call(server.channel(), rpc, request)
    server.restart()
    assert call(server.channel(), rpc, request) == [first]


def test_without_a_request_id_a_repeat_is_done_again(shop: Shop, channel: grpc.Channel) -> None:
    rpc = BY_NAME["CreateFeature"]
    request = _request(rpc, shop, "")
    assert call(channel, rpc, request)
    failed = refused(channel, rpc, request)
    assert failed
    assert (failed.code, failed.reason) == ("ALREADY_EXISTS", "ALREADY_EXISTS")


@pytest.mark.parametrize("request_id", ["x" * 129, "a\0b", "é" * 129])
def test_a_request_id_that_cannot_be_kept_is_refused(request_id: str, channel: grpc.Channel) -> None:
    rpc = BY_NAME["CreateFeature"]
    failed = refused(channel, rpc, rpc.request(feature={"feature_key": unique("f")}, request_id=request_id))
    assert failed
    assert failed.code == "INVALID_ARGUMENT"
    assert "request_id" in failed.fields


def test_the_same_request_id_in_two_tenants_is_two(
    new_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    url = new_database()
    settings = {"allow_anonymous_loopback": "false", "key_pepper": PEPPER}
    with ServerProcess(url, tmp_path_factory.mktemp("two"), **settings) as server:
        rpc = BY_NAME["CreateFeature"]
        for tenant in ("one", "two"):
            _, admin = new_tenant(url, tenant)
            _, secret = key_with(stubs_with(server, admin), *SCOPES)
            request = rpc.request(feature={"feature_key": f"of-{tenant}"}, request_id="same")
            (answer,) = call(server.channel(), rpc, request, secret=secret)
            assert f"of-{tenant}".encode() in answer


def _rows(server: ServerProcess) -> dict[str, int]:
    tables = (
        "customers",
        "customer_subjects",
        "features",
        "plans",
        "subscriptions",
        "meters",
        "requests",
        "reservations",
        "segments",
    )
    with psycopg.connect(server._environment["AMMETER_DATABASE_URL"]) as conn:
        counts = {}
        for table in tables:
            row = conn.execute(f"SELECT count(*) FROM {table}".encode()).fetchone()
            assert row is not None
            counts[table] = row[0]
        return counts
