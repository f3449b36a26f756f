"""Add-ons over the wire and on the command line: billed with their subscription, entitled meanwhile."""

import pytest

from ammeter.v1 import add_on_pb2, entitlement_pb2, invoice_pb2
from tests.rpc.shop import Shop, flat, minutes_ago, per_unit, stamp, unique
from tests.rpc.terminal import Terminal
from tests.rpc.wire import refusal
from tests.serving import ServerProcess, Stubs


@pytest.fixture(scope="module")
def shop(stubs: Stubs) -> Shop:
    return Shop(stubs, "extra")


@pytest.fixture(scope="module")
def terminal(server: ServerProcess) -> Terminal:
    return Terminal(server.address)


def access(shop: Shop, customer: str, feature: str) -> bool:
    check = entitlement_pb2.EntitlementCheck(customer_key=customer, feature_key=feature)
    request = entitlement_pb2.CheckEntitlementRequest(check=check)
    return shop.stubs.entitlements.CheckEntitlement(request).access.access


def test_an_add_on_is_priced_and_entitled_while_it_is_there(shop: Shop) -> None:
    subject = unique("s")
    customer = shop.customer(subject)
    sub = shop.subscribe(customer, shop.plan(flat("20"), billing_cadence="P1D"), minutes_ago(60 * 25))
    feature = shop.feature(shop.meter())
    seats = flat("10", key="seats")
    seats.price.flat.per_seat = True
    extra = shop.plan(seats, per_unit(feature, "0.5", "100"), billing_cadence="P1D")
    assert not access(shop, customer, feature)
    one = shop.add_on(sub.subscription_id, plan_key=extra, quantity=3)
    assert (one.plan_key, one.plan_version, one.quantity) == (extra, 1, 3)
    assert access(shop, customer, feature)
    shop.record(shop.event(subject, 4))
    request = invoice_pb2.PreviewInvoiceRequest(customer_key=customer)
    found = {line.rate_card_key: line for line in shop.stubs.invoices.PreviewInvoice(request).invoice.lines}
    assert set(found) == {"base", "seats", feature}
    assert {key: (line.plan_key, line.plan_version) for key, line in found.items()} == {
        "base": (sub.plan_key, 1),
        "seats": (extra, 1),
        feature: (extra, 1),
    }
    assert (found["seats"].quantity, found[feature].amount) == ("3", "2.00")
    request_end = add_on_pb2.DetachAddOnRequest(add_on_id=one.add_on_id)
    ended = shop.stubs.add_ons.DetachAddOn(request_end).add_on
    assert ended.HasField("to_time")
    assert not access(shop, customer, feature)
    listed = shop.stubs.add_ons.ListAddOns(add_on_pb2.ListAddOnsRequest(subscription_id=sub.subscription_id))
    assert list(listed.add_ons) == [ended]


def test_what_cannot_go_beside_a_subscription_is_refused(shop: Shop) -> None:
    feature = shop.feature()
    base = flat("20")
    base.feature_key = feature
    plan = shop.plan(base)
    sub = shop.subscribe(shop.customer(), plan, minutes_ago(120))

    def refused(**fields: object) -> tuple[str, str, list[str]]:
        request = add_on_pb2.AttachAddOnRequest(subscription_id=sub.subscription_id, **fields)  # type: ignore[arg-type]
        failed = refusal(shop.stubs.add_ons.AttachAddOn, request)
        return failed.code, failed.reason, list(failed.fields)

    other = flat("1", key="other")
    other.feature_key = feature
    overlap = ("FAILED_PRECONDITION", "FEATURE_OVERLAP", ["plan_key"])
    assert refused(plan_key=shop.plan(other)) == overlap
    one_key_twice = ("FAILED_PRECONDITION", "WRONG_STATE", ["plan_key"])
    assert refused(plan_key=shop.plan(flat("1"))) == one_key_twice
    assert refused(plan_key=plan)[0] == "FAILED_PRECONDITION"
    yearly = shop.plan(flat("1", key="year"), billing_cadence="P1Y")
    assert refused(plan_key=yearly)[0] == "FAILED_PRECONDITION"
    single = shop.plan(flat("1", key="single"))
    assert refused(plan_key=single, quantity=2) == ("INVALID_ARGUMENT", "INVALID_FIELD", ["quantity"])
    early = stamp(minutes_ago(60 * 24))
    assert refused(plan_key=single, from_time=early) == ("INVALID_ARGUMENT", "INVALID_FIELD", ["from_time"])
    assert refused(plan_key="nothing")[0] == "NOT_FOUND"
    listed = shop.stubs.add_ons.ListAddOns(add_on_pb2.ListAddOnsRequest(subscription_id=sub.subscription_id))
    assert not listed.add_ons, "and nothing was kept"


def test_a_feature_of_an_add_on_is_in_no_other_subscription(shop: Shop) -> None:
    feature = shop.feature()
    card = flat("1", key="extra")
    card.feature_key = feature
    customer = shop.customer()
    first = shop.subscribe(customer, shop.plan(flat("20")), minutes_ago(120))
    second = shop.subscribe(customer, shop.plan(flat("20")), minutes_ago(120))
    shop.add_on(first.subscription_id, plan_key=shop.plan(card))
    request = add_on_pb2.AttachAddOnRequest(subscription_id=second.subscription_id, plan_key=shop.plan(card))
    assert refusal(shop.stubs.add_ons.AttachAddOn, request).reason == "FEATURE_OVERLAP"


def test_the_command_line_attaches_and_detaches(shop: Shop, terminal: Terminal) -> None:
    sub = shop.subscribe(shop.customer(), shop.plan(flat("20")), minutes_ago(120))
    plan = shop.plan(flat("5", key="extra"))
    one = terminal.json("add-on", "attach", sub.subscription_id, plan)
    assert plan in terminal.run("add-on", "list", sub.subscription_id).stdout
    assert terminal.json("add-on", "detach", one["add_on_id"])["to_time"]
