"""The business: what it meters and sells, and to whom. Setting it up again changes nothing."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from ammeter.cli.failure import read_failure
from ammeter.cli.meter import wait_until_built
from ammeter.client import Client, new_request_id
from ammeter.v1 import billing_pb2, catalog_pb2, customer_pb2, meter_pb2, price_pb2, subscription_pb2

EVENT_TYPE = "llm.completion"
PAYG, FREE = "payg", "free"


@dataclass(frozen=True)
class Consumer:
    """A customer of the LLM API with the subject it calls by; `share` is its part of all requests."""

    customer_key: str
    name: str
    subject: str
    plan_key: str
    share: float


CONSUMERS = (
    Consumer("acme", "Acme Search", "acme-search-prod", PAYG, 0.265),
    Consumer("birch", "Birch Legal", "birch-drafts", PAYG, 0.17),
    Consumer("cobalt", "Cobalt Games", "cobalt-npc", PAYG, 0.14),
    Consumer("delta", "Delta Health", "delta-intake", PAYG, 0.12),
    Consumer("ember", "Ember Tutor", "ember-tutor", PAYG, 0.1),
    Consumer("fjord", "Fjord Maps", "fjord-places", PAYG, 0.07),
    Consumer("grove", "Grove Labs", "grove-trial", FREE, 0.12),
    Consumer("heron", "Heron Hobby", "heron-bot", FREE, 0.015),
)
METERS = (
    meter_pb2.Meter(meter_key="requests", name="Requests", aggregation=meter_pb2.AGGREGATION_COUNT),
    meter_pb2.Meter(
        meter_key="input-tokens",
        name="Input tokens",
        aggregation=meter_pb2.AGGREGATION_SUM,
        value_property="input_tokens",
    ),
    meter_pb2.Meter(
        meter_key="output-tokens",
        name="Output tokens",
        aggregation=meter_pb2.AGGREGATION_SUM,
        value_property="output_tokens",
    ),
)
FEATURES = (
    catalog_pb2.Feature(feature_key="requests", name="Requests", meter_key="requests"),
    catalog_pb2.Feature(feature_key="input-tokens", name="Input tokens", meter_key="input-tokens"),
    catalog_pb2.Feature(feature_key="output-tokens", name="Output tokens", meter_key="output-tokens"),
)
PROFILE = billing_pb2.BillingProfile(
    supplier_name="Example LLM API",
    supplier_address="1 Ampere Street\nLyon",
    invoice_number_prefix="DEMO-",
    number_digits=6,
    due_after_days=14,
    memo="Thank you. Nobody has to pay this: it is a demo.",
    annex=billing_pb2.UsageAnnex(group_by=["model"]),
)


def _by_use(feature_key: str, name: str, price: price_pb2.Price) -> catalog_pb2.RateCard:
    return catalog_pb2.RateCard(
        rate_card_key=feature_key,
        name=name,
        feature_key=feature_key,
        price=price,
        entitlement=catalog_pb2.EntitlementTemplate(boolean=catalog_pb2.BooleanTemplate()),
    )


# Input gets cheaper with use, output costs the same for ever, requests are sold by the thousand begun.
_GRADUATED = price_pb2.Price(
    graduated=price_pb2.GraduatedPrice(
        tiers=[
            price_pb2.Tier(up_to="1000000", unit_amount="0.000003"),
            price_pb2.Tier(up_to="5000000", unit_amount="0.0000025"),
            price_pb2.Tier(unit_amount="0.000002"),
        ]
    )
)
_UNIT = price_pb2.Price(unit=price_pb2.UnitPrice(unit_amount="0.00001"))
_PACKAGE = price_pb2.Price(package=price_pb2.PackagePrice(package_size="1000", package_amount="0.40"))

PLANS = (
    catalog_pb2.Plan(
        plan_key=PAYG,
        name="Pay as you go",
        rate_cards=[
            catalog_pb2.RateCard(
                rate_card_key="platform",
                name="Platform fee",
                price=price_pb2.Price(flat=price_pb2.FlatPrice(amount="20.00")),
            ),
            _by_use("input-tokens", "Input tokens", _GRADUATED),
            _by_use("output-tokens", "Output tokens", _UNIT),
            _by_use("requests", "Requests", _PACKAGE),
        ],
    ),
    catalog_pb2.Plan(
        plan_key=FREE,
        name="Free",
        rate_cards=[
            catalog_pb2.RateCard(
                rate_card_key="input-tokens",
                name="A million input tokens a month",
                feature_key="input-tokens",
                entitlement=catalog_pb2.EntitlementTemplate(
                    metered=catalog_pb2.MeteredTemplate(allowance="1000000")
                ),
            )
        ],
    ),
)


def set_up(client: Client, today: date) -> None:
    """Create what is missing. Paid plans begin a month before `today`, so that a period has ended."""
    for meter in METERS:
        draft = meter_pb2.Meter(event_type=EVENT_TYPE, dimensions=["model"])
        draft.MergeFrom(meter)
        _create(client.meters.CreateMeter, meter_pb2.CreateMeterRequest(meter=draft))
        made = client.meters.GetMeter(meter_pb2.GetMeterRequest(meter_key=meter.meter_key)).meter
        wait_until_built(client, made)
    if not client.billing.GetBillingProfile(billing_pb2.GetBillingProfileRequest()).profile.etag:
        client.billing.SetBillingProfile(
            billing_pb2.SetBillingProfileRequest(profile=PROFILE, request_id=new_request_id())
        )
    for feature in FEATURES:
        _create(client.catalog.CreateFeature, catalog_pb2.CreateFeatureRequest(feature=feature))
    for plan in PLANS:
        _create(client.catalog.CreatePlan, catalog_pb2.CreatePlanRequest(plan=plan))
    for consumer in CONSUMERS:
        customer = customer_pb2.Customer(customer_key=consumer.customer_key, name=consumer.name)
        request = customer_pb2.CreateCustomerRequest(customer=customer, subjects=[consumer.subject])
        _create(client.customers.CreateCustomer, request)
        _subscribe(client, consumer, today)


def _create(call: Callable[[Any], object], request: Any) -> None:  # noqa: ANN401 - any Create request
    request.request_id = new_request_id()
    try:
        call(request)
    except grpc.RpcError as error:
        if read_failure(error).code is not grpc.StatusCode.ALREADY_EXISTS:
            raise


def _subscribe(client: Client, consumer: Consumer, today: date) -> None:
    existing = client.subscriptions.ListSubscriptions(
        subscription_pb2.ListSubscriptionsRequest(customer_key=consumer.customer_key)
    )
    if existing.subscriptions:
        return
    start, anchor = (
        (month_before(today), today) if consumer.plan_key == PAYG else (today - timedelta(10),) * 2
    )
    client.subscriptions.CreateSubscription(
        subscription_pb2.CreateSubscriptionRequest(
            customer_key=consumer.customer_key,
            plan_key=consumer.plan_key,
            start_time=midnight(start),
            anchor_time=midnight(anchor),
            request_id=new_request_id(),
        )
    )


def month_before(day: date) -> date:
    """Return the same day of the month before, or that month's last day."""
    last_of_previous = day.replace(day=1) - timedelta(1)
    return last_of_previous.replace(day=min(day.day, last_of_previous.day))


def midnight(day: date) -> Timestamp:
    """Return the instant at which a UTC day begins."""
    moment = Timestamp()
    moment.FromDatetime(datetime.combine(day, time(), UTC))
    return moment
