"""What the benchmark's tenant defines, and the gate: no rate without the right numbers."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from google.protobuf.timestamp_pb2 import Timestamp

from ammeter.client import Client
from ammeter.v1 import catalog_pb2, customer_pb2, entitlement_pb2, meter_pb2, subscription_pb2, usage_pb2
from bench.kinds import FEATURE, Kind, LlmGateway
from bench.workload import Expected

CUSTOMERS = 100
_PAGE = 10_000
# With more groups than this, those of some subjects are looked at.
_MANY_GROUPS = 100_000
_SOME_SUBJECTS = 1000


def set_up(client: Client, kind: Kind | None = None, customers: int = CUSTOMERS) -> None:
    """Create an LLM gateway's meters, a metered feature, and customers who own each one subject."""
    set_up_meters(client, kind or LlmGateway())
    feature = catalog_pb2.Feature(feature_key=FEATURE, name=FEATURE, meter_key="input-tokens")
    client.catalog.CreateFeature(catalog_pb2.CreateFeatureRequest(feature=feature))
    card = catalog_pb2.RateCard(rate_card_key=FEATURE, name=FEATURE, feature_key=FEATURE)
    card.entitlement.metered.allowance = "1000000000000"
    client.catalog.CreatePlan(
        catalog_pb2.CreatePlanRequest(plan=catalog_pb2.Plan(plan_key="plan", name="plan", rate_cards=[card]))
    )
    for number in range(customers):
        _customer(client, f"customer-{number:05d}")


def set_up_meters(client: Client, kind: Kind) -> None:
    """Create the meters of a kind of events."""
    for key, value in kind.meters.items():
        draft = meter_pb2.Meter(
            meter_key=key,
            name=key,
            event_type=kind.event_type,
            aggregation=meter_pb2.AGGREGATION_SUM if value else meter_pb2.AGGREGATION_COUNT,
            value_property=value,
            dimensions=kind.dimensions,
        )
        client.meters.CreateMeter(meter_pb2.CreateMeterRequest(meter=draft))
        _wait_until_built(client, key)


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


def require_totals(client: Client, kind: Kind, expected: Expected, times: int) -> None:
    """Stop unless every meter says `times` times what the generator counted, by its dimensions."""
    for meter in kind.meters:
        found = query(client, meter, kind.dimensions)
        wanted = {key: value * times for key, value in expected.by_dimensions(meter).items()}
        assert found == wanted, f"{meter}: totals differ"


def require_groups(client: Client, kind: Kind, expected: Expected, times: int) -> None:
    """As require_totals, by subject, too: all of them, or some if there are very many."""
    for meter in kind.meters:
        wanted = {key: value * times for key, value in expected.by_subject(meter).items()}
        subjects: list[str] = []
        if len(wanted) > _MANY_GROUPS:
            subjects = sorted({key[0] for key in wanted})[:: len(wanted) // _SOME_SUBJECTS][:_SOME_SUBJECTS]
            some = set(subjects)
            wanted = {key: value for key, value in wanted.items() if key[0] in some}
        found = query(client, meter, ("subject", *kind.dimensions), subjects)
        assert found == wanted, f"{meter}: groups differ"


def query(
    client: Client, meter: str, group_by: Sequence[str], subjects: Sequence[str] = ()
) -> dict[tuple[str, ...], int]:
    """Sum a meter up, over yesterday and today."""
    now = datetime.now(UTC)
    request = usage_pb2.QueryUsageRequest(
        meter_key=meter,
        from_time=_minute(now - timedelta(days=2)),
        to_time=_minute(now + timedelta(days=1)),
        group_by=group_by,
        subjects=subjects,
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
