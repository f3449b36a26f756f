"""From reported usage to numbered invoices, over the wire."""

import itertools
import time
from datetime import UTC, datetime, timedelta

import grpc
import pytest

from ammeter.v1 import (
    catalog_pb2,
    customer_pb2,
    invoice_pb2,
    meter_pb2,
    price_pb2,
    subscription_pb2,
    usage_pb2,
)
from tests.serving import Stubs

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def plan_key(stubs: Stubs) -> str:
    """A plan with daily periods: 2.40 a day and a third of a cent a token."""
    meter = meter_pb2.Meter(
        meter_key="tokens", event_type="llm", aggregation=meter_pb2.AGGREGATION_SUM, value_property="tokens"
    )
    stubs.meters.CreateMeter(meter_pb2.CreateMeterRequest(meter=meter))
    _wait_until_served(stubs)
    feature = catalog_pb2.Feature(feature_key="tokens", meter_key="tokens")
    stubs.catalog.CreateFeature(catalog_pb2.CreateFeatureRequest(feature=feature))
    plan = catalog_pb2.Plan(
        plan_key="daily",
        billing_cadence="P1D",
        rate_cards=[
            catalog_pb2.RateCard(
                rate_card_key="seat", price=price_pb2.Price(flat=price_pb2.FlatPrice(amount="2.40"))
            ),
            catalog_pb2.RateCard(
                rate_card_key="tokens",
                feature_key="tokens",
                price=price_pb2.Price(unit=price_pb2.UnitPrice(unit_amount="0.00333")),
            ),
        ],
    )
    stubs.catalog.CreatePlan(catalog_pb2.CreatePlanRequest(plan=plan))
    return "daily"


def _wait_until_served(stubs: Stubs) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        meter = stubs.meters.GetMeter(meter_pb2.GetMeterRequest(meter_key="tokens")).meter
        if meter.state == meter_pb2.Meter.STATE_ACTIVE:
            return
        time.sleep(0.05)
    pytest.fail("the meter was not built")


def subscribe(stubs: Stubs, plan_key: str, start: datetime) -> subscription_pb2.Subscription:
    """A new customer, whose key is its subject, too."""
    key = f"customer{next(_numbers)}"
    customer = customer_pb2.Customer(customer_key=key)
    stubs.customers.CreateCustomer(customer_pb2.CreateCustomerRequest(customer=customer, subjects=[key]))
    request = subscription_pb2.CreateSubscriptionRequest(customer_key=key, plan_key=plan_key)
    request.start_time.FromDatetime(start)
    return stubs.subscriptions.CreateSubscription(request).subscription


def use(stubs: Stubs, customer_key: str, tokens: int, instant: datetime) -> int:
    event = usage_pb2.UsageEvent(
        id=str(next(_numbers)),
        source="test",
        type="llm",
        subject=customer_key,
        properties={"tokens": str(tokens)},
    )
    event.time.FromDatetime(instant)
    answer = stubs.usage.RecordUsage(usage_pb2.RecordUsageRequest(events=[event]))
    assert answer.accepted_count == 1
    return answer.position


def days_ago(days: int) -> datetime:
    """So many days and a half ago: no period ends while a test runs."""
    return datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(days=days, hours=12)


def test_usage_becomes_numbered_invoices_that_explain_themselves(stubs: Stubs, plan_key: str) -> None:
    start = days_ago(3)
    sub = subscribe(stubs, plan_key, start)
    position = use(stubs, sub.customer_key, 100, start + timedelta(hours=30))
    run = invoice_pb2.GenerateInvoicesRequest(customer_key=sub.customer_key)
    *made, last = stubs.invoices.GenerateInvoices(run)
    assert [step.invoice_count for step in made] == [1, 2, 3]
    assert not last.HasField("invoice")
    assert (last.done_count, last.total_count, last.invoice_count) == (1, 1, 3)
    second = made[1].invoice
    assert [line.amount for line in second.lines] == ["2.40", "0.33"]
    assert (second.total, second.number, second.state) == ("2.73", 0, invoice_pb2.Invoice.STATE_DRAFT)
    assert second.lines[1].position == second.position >= position
    assert not made[2].invoice.lines[1].amount.strip("0.")

    issued = [
        stubs.invoices.IssueInvoice(
            invoice_pb2.IssueInvoiceRequest(invoice_id=step.invoice.invoice_id)
        ).invoice
        for step in made
    ]
    assert [one.number for one in issued] == list(range(issued[0].number, issued[0].number + 3))
    again = stubs.invoices.GenerateInvoices(run)
    assert [step.HasField("invoice") for step in again] == [False]
    got = stubs.invoices.GetInvoice(invoice_pb2.GetInvoiceRequest(invoice_id=second.invoice_id)).invoice
    assert got == issued[1]


def test_a_preview_sees_usage_as_soon_as_it_is_acknowledged(stubs: Stubs, plan_key: str) -> None:
    sub = subscribe(stubs, plan_key, days_ago(0))
    request = invoice_pb2.PreviewInvoiceRequest(customer_key=sub.customer_key)
    for total in (1000, 2000):
        position = use(stubs, sub.customer_key, 1000, datetime.now(UTC))
        shown = stubs.invoices.PreviewInvoice(request).invoice
        assert shown.lines[1].quantity == str(total)
        assert shown.position >= position
        assert shown.invoice_id == ""
    listed = invoice_pb2.ListInvoicesRequest(customer_key=sub.customer_key)
    assert not stubs.invoices.ListInvoices(listed).invoices


def test_a_call_that_is_cancelled_midway_leaves_whole_invoices_and_the_next_adds_the_rest(
    stubs: Stubs, plan_key: str
) -> None:
    sub = subscribe(stubs, plan_key, days_ago(20))
    request = invoice_pb2.GenerateInvoicesRequest(customer_key=sub.customer_key, issue=True)
    run = stubs.invoices.GenerateInvoices(request)
    first = [next(run).invoice for _ in range(3)]
    run.cancel()
    with pytest.raises(grpc.RpcError):
        list(run)
    rest = [step.invoice for step in stubs.invoices.GenerateInvoices(request) if step.HasField("invoice")]
    listed = stubs.invoices.ListInvoices(
        invoice_pb2.ListInvoicesRequest(customer_key=sub.customer_key)
    ).invoices
    assert len(listed) == 20
    assert {one.invoice_id for one in first + rest} <= {one.invoice_id for one in listed}
    numbers = sorted(one.number for one in listed)
    assert numbers == list(range(numbers[0], numbers[0] + 20))


def test_a_void_invoice_keeps_its_number_and_cannot_be_issued(stubs: Stubs, plan_key: str) -> None:
    sub = subscribe(stubs, plan_key, days_ago(1))
    request = invoice_pb2.GenerateInvoicesRequest(customer_key=sub.customer_key, issue=True)
    made = next(iter(stubs.invoices.GenerateInvoices(request))).invoice
    named = invoice_pb2.VoidInvoiceRequest(invoice_id=made.invoice_id)
    void = stubs.invoices.VoidInvoice(named).invoice
    assert (void.number, void.state) == (made.number, invoice_pb2.Invoice.STATE_VOID)
    assert stubs.invoices.VoidInvoice(named).invoice == void
    with pytest.raises(grpc.RpcError) as caught:
        stubs.invoices.IssueInvoice(invoice_pb2.IssueInvoiceRequest(invoice_id=made.invoice_id))
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    again = next(iter(stubs.invoices.GenerateInvoices(request))).invoice
    assert again.number == made.number + 1
