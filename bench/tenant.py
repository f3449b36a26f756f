"""What the benchmark's tenant defines, and the gate: no rate without the right numbers."""

import time
from datetime import UTC, datetime, timedelta

from google.protobuf.timestamp_pb2 import Timestamp

from ammeter.client import Client
from ammeter.v1 import catalog_pb2, customer_pb2, entitlement_pb2, meter_pb2, subscription_pb2, usage_pb2
from bench.workload import EVENT_TYPE, FEATURE, METERS, Expected

CUSTOMERS = 100
_PAGE = 10_000


def set_up(client: Client) -> None:
    """Create three meters by model, a metered feature, and customers who own a hundred of the subjects."""
    for key, value in METERS.items():
        draft = meter_pb2.Meter(
            meter_key=key,
            name=key,
            event_type=EVENT_TYPE,
            aggregation=meter_pb2.AGGREGATION_SUM if value else meter_pb2.AGGREGATION_COUNT,
            value_property=value,
            dimensions=["model"],
        )
        client.meters.CreateMeter(meter_pb2.CreateMeterRequest(meter=draft))
        _wait_until_built(client, key)
    feature = catalog_pb2.Feature(feature_key=FEATURE, name=FEATURE, meter_key="input-tokens")
    client.catalog.CreateFeature(catalog_pb2.CreateFeatureRequest(feature=feature))
    card = catalog_pb2.RateCard(rate_card_key=FEATURE, name=FEATURE, feature_key=FEATURE)
    card.entitlement.metered.allowance = "1000000000000"
    client.catalog.CreatePlan(
        catalog_pb2.CreatePlanRequest(plan=catalog_pb2.Plan(plan_key="plan", name="plan", rate_cards=[card]))
    )
    for number in range(CUSTOMERS):
        _customer(client, f"customer-{number:05d}")


def checks(count: int) -> list[bytes]:
    """Encode a check for each of the first customers."""
    return [
        entitlement_pb2.CheckEntitlementRequest(check=_check(at)).SerializeToString() for at in range(count)
    ]


def batch(count: int) -> bytes:
    """Encode the same checks as one call."""
    several = [_check(number) for number in range(count)]
    return entitlement_pb2.BatchCheckEntitlementsRequest(checks=several).SerializeToString()


def require_access(client: Client) -> None:
    """Stop unless checks say yes, with a balance."""
    for body in checks(CUSTOMERS):
        request = entitlement_pb2.CheckEntitlementRequest.FromString(body)
        found = client.entitlements.CheckEntitlement(request).access
        assert found.access, found
        assert found.balance, found


def watched_customer(client: Client) -> str:
    """Make a customer whose usage nobody else sends; returns its key, which is its subject, too."""
    key = f"watched-{time.time_ns()}"
    _customer(client, key)
    return key


def require_totals(client: Client, expected: Expected, times: int) -> None:
    """Stop unless every meter says `times` times what the generator counted, by model."""
    for meter in METERS:
        found = _query(client, meter, ["model"])
        wanted = {(model,): value * times for model, value in expected.by_model(meter).items()}
        assert found == wanted, (meter, found, wanted)


def require_groups(client: Client, expected: Expected, times: int) -> None:
    """As require_totals, for each subject and model."""
    for meter in METERS:
        found = _query(client, meter, ["subject", "model"])
        wanted = {
            (subject, model): value * times
            for (one, subject, model), value in expected.sums.items()
            if one == meter
        }
        assert found == wanted, f"{meter}: groups differ"


def _query(client: Client, meter: str, group_by: list[str]) -> dict[tuple[str, ...], int]:
    now = datetime.now(UTC)
    request = usage_pb2.QueryUsageRequest(
        meter_key=meter,
        from_time=_minute(now - timedelta(days=2)),
        to_time=_minute(now + timedelta(days=1)),
        group_by=group_by,
        page_size=_PAGE,
    )
    found = {}
    while True:
        page = client.usage.QueryUsage(request)
        found.update({tuple(row.group_values): int(row.value) for row in page.rows})
        if not page.next_page_token:
            return found
        request.page_token = page.next_page_token


def _customer(client: Client, key: str) -> None:
    customer = customer_pb2.Customer(customer_key=key, name=key)
    client.customers.CreateCustomer(customer_pb2.CreateCustomerRequest(customer=customer, subjects=[key]))
    client.subscriptions.CreateSubscription(
        subscription_pb2.CreateSubscriptionRequest(customer_key=key, plan_key="plan")
    )


def _check(number: int) -> entitlement_pb2.EntitlementCheck:
    return entitlement_pb2.EntitlementCheck(
        customer_key=f"customer-{number % CUSTOMERS:05d}", feature_key=FEATURE, amount="100"
    )


def _wait_until_built(client: Client, key: str) -> None:
    while True:
        meter = client.meters.GetMeter(meter_pb2.GetMeterRequest(meter_key=key)).meter
        if meter.state == meter_pb2.Meter.STATE_ACTIVE:
            return
        time.sleep(0.02)


def _minute(moment: datetime) -> Timestamp:
    return Timestamp(seconds=int(moment.timestamp()) // 60 * 60)
