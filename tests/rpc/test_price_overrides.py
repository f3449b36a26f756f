"""Prices agreed on with one customer, over the wire and on the command line."""

import json
from pathlib import Path
from typing import Any

import pytest

from ammeter.v1 import entitlement_pb2, invoice_pb2, price_override_pb2, price_pb2, subscription_pb2
from tests.rpc.shop import Shop, flat, minutes_ago, per_unit, stamp, unique
from tests.rpc.terminal import Terminal
from tests.rpc.wire import refusal
from tests.serving import ServerProcess, Stubs

Override = price_override_pb2.PriceOverride


@pytest.fixture(scope="module")
def shop(stubs: Stubs) -> Shop:
    return Shop(stubs, "agreed")


@pytest.fixture(scope="module")
def terminal(server: ServerProcess) -> Terminal:
    return Terminal(server.address)


def preview(shop: Shop, customer: str) -> invoice_pb2.Invoice:
    request = invoice_pb2.PreviewInvoiceRequest(customer_key=customer)
    return shop.stubs.invoices.PreviewInvoice(request).invoice


def test_an_invoice_says_which_agreement_priced_a_line(shop: Shop) -> None:
    subject = unique("s")
    customer = shop.customer(subject)
    feature = shop.feature(shop.meter())
    use = per_unit(feature, "0.1")
    use.commitments.minimum_amount = "50"
    plan = shop.plan(flat("20"), use)
    sub = shop.subscribe(customer, plan, minutes_ago(120))
    shop.record(shop.event(subject, 100, time=stamp(minutes_ago(60))))
    start = stamp(minutes_ago(120))
    lower = Override(
        subscription_id=sub.subscription_id,
        rate_card_key="base",
        from_time=start,
        price=price_pb2.Price(flat=price_pb2.FlatPrice(amount="5")),
        reason="loyal",
    )
    request = price_override_pb2.CreatePriceOverrideRequest(price_override=lower)
    made = shop.stubs.price_overrides.CreatePriceOverride(request).price_override
    assert (made.rate_card_key, made.price, made.reason) == ("base", lower.price, "loyal")
    half = Override(
        subscription_id=sub.subscription_id,
        rate_card_key=feature,
        from_time=start,
        discounts=price_pb2.Discounts(percentage="50"),
        commitments=price_pb2.Commitments(),
    )
    request = price_override_pb2.CreatePriceOverrideRequest(price_override=half)
    second = shop.stubs.price_overrides.CreatePriceOverride(request).price_override
    assert second.HasField("commitments")
    assert not second.HasField("price")
    assert [(line.amount, line.price_override_id) for line in preview(shop, customer).lines] == [
        ("5.00", made.price_override_id),
        ("5.00", second.price_override_id),
    ]
    listed = shop.stubs.price_overrides.ListPriceOverrides(
        price_override_pb2.ListPriceOverridesRequest(subscription_id=sub.subscription_id)
    )
    assert list(listed.price_overrides) == [made, second]
    again = refusal(shop.stubs.price_overrides.CreatePriceOverride, request)
    assert (again.code, again.reason) == ("FAILED_PRECONDITION", "WRONG_STATE")


def test_a_subscription_lists_what_holds_instead_of_its_plan(shop: Shop, terminal: Terminal) -> None:
    customer, feature = shop.customer(), shop.feature(shop.meter())
    plan = shop.plan(flat("20"), flat("1", key="other"), per_unit(feature, "0.5", "100"))
    sub = shop.subscribe(customer, plan, minutes_ago(120))

    def agree(key: str, amount: str, **fields: Any) -> Override:  # noqa: ANN401 - fields of PriceOverride
        one = Override(subscription_id=sub.subscription_id, rate_card_key=key, **fields)
        one.price.flat.amount = amount
        request = price_override_pb2.CreatePriceOverrideRequest(price_override=one)
        return shop.stubs.price_overrides.CreatePriceOverride(request).price_override

    gone = agree("base", "7")
    end = price_override_pb2.EndPriceOverrideRequest(price_override_id=gone.price_override_id)
    shop.stubs.price_overrides.EndPriceOverride(end)
    holding, coming = agree("base", "5"), agree("other", "0", from_time=stamp(minutes_ago(-600)))
    more = entitlement_pb2.Entitlement(customer_key=customer, feature_key=feature)
    more.metered.allowance, more.subscription_id = "500", sub.subscription_id
    request = entitlement_pb2.OverrideEntitlementRequest(entitlement=more)
    given = shop.stubs.entitlements.OverrideEntitlement(request).entitlement

    get = subscription_pb2.GetSubscriptionRequest(subscription_id=sub.subscription_id)
    found = shop.stubs.subscriptions.GetSubscription(get).subscription.overrides
    assert [one.price_override for one in found[:2]] == [holding, coming]
    assert found[2].entitlement == given
    assert [(one.rate_card.rate_card_key, one.plan_key, one.plan_version) for one in found] == [
        (key, plan, 1) for key in ("base", "other", feature)
    ]
    assert found[0].rate_card.price.flat.amount == "20"
    assert found[2].rate_card.entitlement.metered.allowance == "100"
    shown = terminal.run("subscription", "get", sub.subscription_id).stdout
    for expected in ("agreed on", "5 a period", "20 a period", "500 a period, hard", "100 a period"):
        assert expected in shown


def test_what_is_wrong_with_an_override_is_told_with_its_path(shop: Shop) -> None:
    sub = shop.subscribe(shop.customer(), shop.plan(flat("20")), minutes_ago(120))
    wrong = Override(
        subscription_id=sub.subscription_id,
        rate_card_key="base",
        price=price_pb2.Price(unit=price_pb2.UnitPrice(unit_amount="x")),
        reason="x" * 300,
    )
    request = price_override_pb2.CreatePriceOverrideRequest(price_override=wrong)
    failed = refusal(shop.stubs.price_overrides.CreatePriceOverride, request)
    assert set(failed.fields) == {
        "price_override.reason",
        "price_override.price",
        "price_override.price.unit.unit_amount",
    }
    wrong = Override(
        subscription_id=sub.subscription_id, rate_card_key="base", from_time=stamp(minutes_ago(600))
    )
    wrong.price.flat.amount = "1"
    request = price_override_pb2.CreatePriceOverrideRequest(price_override=wrong)
    failed = refusal(shop.stubs.price_overrides.CreatePriceOverride, request)
    assert list(failed.fields) == ["price_override.from_time"]
    ghost = price_override_pb2.EndPriceOverrideRequest(price_override_id="pov_none")
    assert refusal(shop.stubs.price_overrides.EndPriceOverride, ghost).code == "NOT_FOUND"


def test_the_command_line_agrees_on_prices_and_ends_that(
    shop: Shop, terminal: Terminal, tmp_path: Path
) -> None:
    sub = shop.subscribe(shop.customer(), shop.plan(flat("20")), minutes_ago(120))
    file = tmp_path / "override.json"
    wanted = {
        "subscription_id": sub.subscription_id,
        "rate_card_key": "base",
        "price": {"flat": {"amount": "7.50"}},
        "reason": "ticket 12",
    }
    file.write_text(json.dumps(wanted))
    made = terminal.json("price-override", "create", str(file))
    listed = terminal.run("price-override", "list", sub.subscription_id).stdout
    assert "7.5 a period" in listed
    assert "ticket 12" in listed
    assert terminal.json("price-override", "end", made["price_override_id"])["to_time"]
    file.write_text('{"rate_card": 1}')
    terminal.run("price-override", "create", str(file), code=2)
