"""A tenant's business over the wire, set up with as few words as a test needs."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from ammeter.client import _CallSettings
from ammeter.store.db import Database
from ammeter.usecases.keys import create_tenant
from ammeter.v1 import (
    add_on_pb2,
    billing_pb2,
    catalog_pb2,
    coupon_pb2,
    customer_pb2,
    invoice_pb2,
    key_pb2,
    meter_pb2,
    notification_pb2,
    price_list_pb2,
    price_pb2,
    subscription_pb2,
    usage_pb2,
)
from tests.serving import ServerProcess, Stubs

PEPPER = "0123456789abcdef0123456789abcdef"
SCOPES = {"ingest": 1, "check": 2, "read": 3, "admin": 4}
_numbers = count(1)


def unique(word: str) -> str:
    """A key that no other test uses."""
    return f"{word}-{next(_numbers)}"


def stamp(moment: datetime) -> Timestamp:
    """Write an aware time."""
    message = Timestamp()
    message.FromDatetime(moment)
    return message


def minutes_ago(number: float) -> datetime:
    return (datetime.now(UTC) - timedelta(minutes=number)).replace(second=0, microsecond=0)


def stubs_with(server: ServerProcess, secret: str) -> Stubs:
    """Stubs that send a key with every call."""
    return stubs_over(server.channel(), secret)


def stubs_over(channel: grpc.Channel, secret: str) -> Stubs:
    """As stubs_with, over a channel of one's own."""
    return Stubs(grpc.intercept_channel(channel, _CallSettings(secret)))


@contextmanager
def database(url: str) -> Iterator[Database]:
    opened = Database(url, pool_size=2)
    try:
        yield opened
    finally:
        opened.close()


def new_tenant(url: str, tenant_key: str) -> tuple[int, str]:
    """Make a tenant beside the server; returns its number and its admin key."""
    with database(url) as db:
        return create_tenant(db, PEPPER.encode(), tenant_key, datetime.now(UTC))


def key_with(admin: Stubs, *scopes: str) -> tuple[str, str]:
    """Make a key; returns its id and what a client sends."""
    made = admin.keys.CreateKey(
        key_pb2.CreateKeyRequest(name="test", scopes=[SCOPES[scope] for scope in scopes])  # type: ignore[misc]
    )
    return made.key.key_id, made.secret


class Shop:
    """What a tenant defines and sells; `mark` is in every text it writes.

    Needs stubs that may do everything: of the default tenant, or over keys.
    """

    def __init__(self, stubs: Stubs, mark: str = "shop") -> None:
        self.stubs = stubs
        self.mark = mark

    def meter(self, aggregation: str = "SUM", **fields: Any) -> str:  # noqa: ANN401 - fields of Meter
        """Create a meter over the property `tokens` and wait until it is served; returns its key."""
        key = fields.pop("meter_key", unique(f"{self.mark}-meter"))
        fields.setdefault("value_property", "" if aggregation == "COUNT" else "tokens")
        fields.setdefault("event_type", f"{self.mark}.used")
        number = meter_pb2.Aggregation.Value(f"AGGREGATION_{aggregation}")
        draft = meter_pb2.Meter(
            meter_key=key, name=self.mark, description=self.mark, aggregation=number, **fields
        )
        self.stubs.meters.CreateMeter(meter_pb2.CreateMeterRequest(meter=draft))
        self.built(key)
        return str(key)

    def built(self, meter_key: str) -> meter_pb2.Meter:
        """Wait until a meter is served and nothing of it is being built."""
        deadline = time.monotonic() + 10
        while True:
            meter = self.stubs.meters.GetMeter(meter_pb2.GetMeterRequest(meter_key=meter_key)).meter
            if meter.state == meter_pb2.Meter.STATE_ACTIVE and not meter.build_total:
                return meter
            if meter.state == meter_pb2.Meter.STATE_ACTIVE and meter.build_done == meter.build_total:
                return meter
            assert time.monotonic() < deadline, meter
            time.sleep(0.01)

    def feature(self, meter_key: str = "", **fields: Any) -> str:  # noqa: ANN401 - fields of Feature
        key = unique(f"{self.mark}-feature")
        draft = catalog_pb2.Feature(feature_key=key, name=self.mark, meter_key=meter_key, **fields)
        self.stubs.catalog.CreateFeature(catalog_pb2.CreateFeatureRequest(feature=draft))
        return key

    def plan(self, *cards: catalog_pb2.RateCard, **fields: Any) -> str:  # noqa: ANN401 - fields of Plan
        key = unique(f"{self.mark}-plan")
        draft = catalog_pb2.Plan(plan_key=key, name=self.mark, rate_cards=cards, **fields)
        self.stubs.catalog.CreatePlan(catalog_pb2.CreatePlanRequest(plan=draft))
        return key

    def draft(self, *cards: catalog_pb2.RateCard, **fields: Any) -> str:  # noqa: ANN401 - fields of Plan
        key = fields.pop("plan_key", unique(f"{self.mark}-plan"))
        draft = catalog_pb2.Plan(plan_key=key, name=self.mark, rate_cards=cards, **fields)
        self.stubs.catalog.DraftPlan(catalog_pb2.DraftPlanRequest(plan=draft))
        return str(key)

    def customer(self, *subjects: str, **fields: Any) -> str:  # noqa: ANN401 - fields of Customer
        key = unique(f"{self.mark}-customer")
        draft = customer_pb2.Customer(customer_key=key, name=self.mark, email=f"{self.mark}@test", **fields)
        self.stubs.customers.CreateCustomer(
            customer_pb2.CreateCustomerRequest(customer=draft, subjects=subjects)
        )
        return key

    def subscribe(
        self, customer_key: str, plan_key: str, start: datetime | None = None
    ) -> subscription_pb2.Subscription:
        request = subscription_pb2.CreateSubscriptionRequest(customer_key=customer_key, plan_key=plan_key)
        if start is not None:
            request.start_time.FromDatetime(start)
        return self.stubs.subscriptions.CreateSubscription(request).subscription

    def add_on(self, subscription_id: str, **fields: Any) -> add_on_pb2.AddOn:  # noqa: ANN401 - of the request
        """A plan of its own, attached."""
        plan_key = fields.pop("plan_key", "") or self.plan(flat("5", key="extra"))
        request = add_on_pb2.AttachAddOnRequest(subscription_id=subscription_id, plan_key=plan_key, **fields)
        return self.stubs.add_ons.AttachAddOn(request).add_on

    def invoice(self) -> invoice_pb2.Invoice:
        """An issued invoice of a day that cost 10.00, of a customer of its own."""
        customer = self.customer()
        self.subscribe(customer, self.plan(flat("10"), billing_cadence="P1D"), minutes_ago(60 * 25))
        request = invoice_pb2.GenerateInvoicesRequest(customer_key=customer, issue=True)
        return next(iter(self.stubs.invoices.GenerateInvoices(request))).invoice

    def tax_rate(self, percentage: str = "19", **fields: Any) -> str:  # noqa: ANN401 - fields of TaxRate
        key = unique(f"{self.mark}-tax")
        draft = billing_pb2.TaxRate(
            tax_rate_key=key, name=self.mark, note=self.mark, percentage=percentage, **fields
        )
        self.stubs.billing.CreateTaxRate(billing_pb2.CreateTaxRateRequest(tax_rate=draft))
        return key

    def price_list(self, **prices: str) -> str:
        """A price list in USD with prices of input tokens, by model; they hold since long ago."""
        key = unique(f"{self.mark}-prices")
        draft = price_list_pb2.PriceList(price_list_key=key, name=self.mark)
        self.stubs.price_lists.CreatePriceList(price_list_pb2.CreatePriceListRequest(price_list=draft))
        entries = [
            price_list_pb2.PriceEntry(model=model, token_type="input", unit_amount=amount)  # noqa: S106 - not of that kind
            for model, amount in prices.items()
        ]
        request = price_list_pb2.ImportPricesRequest(price_list_key=key, entries=entries)
        request.effective_time.FromDatetime(minutes_ago(60 * 24 * 40))
        self.stubs.price_lists.ImportPrices(request)
        return key

    def coupon(self, percentage: str = "10", **fields: Any) -> str:  # noqa: ANN401 - fields of Coupon
        key = unique(f"{self.mark}-coupon")
        draft = coupon_pb2.Coupon(coupon_key=key, name=self.mark, **fields)
        if not draft.amount:
            draft.percentage = percentage
        self.stubs.coupons.CreateCoupon(coupon_pb2.CreateCouponRequest(coupon=draft))
        return key

    def attach(self, coupon_key: str, **fields: Any) -> coupon_pb2.AttachedCoupon:  # noqa: ANN401 - of the request
        request = coupon_pb2.AttachCouponRequest(coupon_key=coupon_key, **fields)
        return self.stubs.coupons.AttachCoupon(request).attached_coupon

    def threshold(self, **fields: Any) -> notification_pb2.Threshold:  # noqa: ANN401 - fields of Threshold
        draft = notification_pb2.Threshold(**fields)
        request = notification_pb2.CreateThresholdRequest(threshold=draft)
        return self.stubs.notifications.CreateThreshold(request).threshold

    def event(self, subject: str, tokens: object = 1, **fields: Any) -> usage_pb2.UsageEvent:  # noqa: ANN401 - fields of UsageEvent
        properties = {"tokens": str(tokens), **fields.pop("properties", {})}
        fields.setdefault("id", unique(f"{self.mark}-event"))
        fields.setdefault("source", self.mark)
        fields.setdefault("type", f"{self.mark}.used")
        return usage_pb2.UsageEvent(subject=subject, properties=properties, **fields)

    def record(self, *events: usage_pb2.UsageEvent) -> usage_pb2.RecordUsageResponse:
        return self.stubs.usage.RecordUsage(usage_pb2.RecordUsageRequest(events=events))

    def total(self, meter_key: str, **fields: Any) -> str:  # noqa: ANN401 - fields of QueryUsageRequest
        """What a meter says of the days around now, in one number."""
        request = usage_pb2.QueryUsageRequest(
            meter_key=meter_key,
            from_time=stamp(minutes_ago(60 * 24 * 40)),
            to_time=stamp(minutes_ago(-60)),
            **fields,
        )
        rows = self.stubs.usage.QueryUsage(request).rows
        assert len(rows) <= 1
        return rows[0].value if rows else "0"


def flat(amount: str, key: str = "base") -> catalog_pb2.RateCard:
    price = price_pb2.Price(flat=price_pb2.FlatPrice(amount=amount))
    return catalog_pb2.RateCard(rate_card_key=key, name=key, price=price)


def per_unit(
    feature_key: str, amount: str, allowance: str = "", *, soft: bool = False
) -> catalog_pb2.RateCard:
    card = catalog_pb2.RateCard(rate_card_key=feature_key, name=feature_key, feature_key=feature_key)
    if amount:
        card.price.unit.unit_amount = amount
    if allowance:
        card.entitlement.metered.allowance = allowance
        card.entitlement.metered.soft_limit = soft
    return card


def eventually(fact: Callable[[], bool], seconds: float = 10) -> float:
    """Wait until something holds; returns after how long."""
    started = time.monotonic()
    while not fact():
        assert time.monotonic() < started + seconds, "it never came true"
        time.sleep(0.02)
    return time.monotonic() - started


class Silence:
    """Requests of a stream that do not come, until it is closed."""

    def __init__(self, *first: object) -> None:
        self._first = list(first)
        self._closed = threading.Event()

    def __iter__(self) -> Iterator[Any]:
        yield from self._first
        self._closed.wait(60)

    def close(self) -> None:
        self._closed.set()
