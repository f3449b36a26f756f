"""The LLM-API business: real traffic in, twice and through a crash; exact numbers and money out."""

import csv
import math
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple
from zoneinfo import ZoneInfo

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from ammeter.v1 import (
    catalog_pb2,
    customer_pb2,
    entitlement_pb2,
    invoice_pb2,
    meter_pb2,
    price_pb2,
    subscription_pb2,
    usage_pb2,
)
from tests import model
from tests.model import Counted, Event, Meter
from tests.serving import ServerProcess, Stubs

REQUESTS, INPUT, OUTPUT = 28_185, 40_421_844, 4_334_561
PAYING = ("acme", "birch", "cobalt", "delta", "ember", "fjord")
FREE = "grove"
# Messages on a stream that wait for an answer.
_UNANSWERED = 8
ALLOWANCE = 1_000_000
INPUT_PRICE, OUTPUT_PRICE, FEE = "0.0000025", "0.00001", "20.00"

METERS = (
    Meter("requests", "llm.completion", "COUNT", "", ("model",)),
    Meter("input-tokens", "llm.completion", "SUM", "input_tokens", ("model",)),
    Meter("output-tokens", "llm.completion", "SUM", "output_tokens", ("model",)),
)


class Trace(NamedTuple):
    """The events in order of time, and the whole minute after the last of them."""

    events: list[Counted]
    end: datetime


@pytest.fixture(scope="module")
def trace(shared_data: Path) -> Trace:
    """Every request of the traces, shifted by whole minutes so that the last was just now."""
    rows = []
    for model_name in ("code", "conv"):
        with (shared_data / f"azure_llm_2023_{model_name}.csv").open(newline="") as file:
            for number, row in enumerate(csv.DictReader(file)):
                moment, _, digits = row["TIMESTAMP"].partition(".")
                seconds = int(datetime.strptime(moment, "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC).timestamp())
                time_us = seconds * 1_000_000 + int(digits[:6])
                tokens = {"input_tokens": row["ContextTokens"], "output_tokens": row["GeneratedTokens"]}
                rows.append((time_us, f"{model_name}-{number}", {"model": model_name, **tokens}))
    rows.sort()
    last_minute = math.ceil(rows[-1][0] / 60_000_000)
    shift = (int(time.time()) // 60 - 1 - last_minute) * 60_000_000
    customers = (*PAYING, FREE)
    events = []
    for number, (old, event_id, properties) in enumerate(rows):
        time_us = old + shift
        when = (time_us // 1_000_000, time_us % 1_000_000 * 1000)
        subject = f"{customers[number % len(customers)]}-app"
        events.append(
            Counted(Event(event_id, "gateway", "llm.completion", subject, when, properties), time_us)
        )
    return Trace(events, datetime.fromtimestamp((last_minute * 60_000_000 + shift) // 1_000_000, UTC))


@pytest.fixture(scope="module")
def server(
    new_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    with ServerProcess(new_database(), tmp_path_factory.mktemp("acceptance")) as process:
        yield process


def _stamp(moment: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp


def _starts(trace: Trace) -> dict[str, tuple[datetime, datetime]]:
    """Start and anchor by customer: paid periods end with the trace, some cut short; the free one goes on."""
    month_before = _full_period(trace)[0]
    starts = {
        customer: (month_before + timedelta(days=3 * (number % 3)), trace.end)
        for number, customer in enumerate(PAYING)
    }
    first = datetime.fromtimestamp(trace.events[0].time_us // 60_000_000 * 60, UTC)
    return {**starts, FREE: (first, first)}


def _full_period(trace: Trace) -> tuple[datetime, datetime]:
    utc = ZoneInfo("UTC")
    before = trace.end - timedelta(days=32)
    boundaries = model.period_boundaries(trace.end, utc, "P1M", before, trace.end)
    return boundaries[-2], boundaries[-1]


def _set_up(stubs: Stubs, trace: Trace) -> None:
    for meter in METERS:
        draft = meter_pb2.Meter(
            meter_key=meter.key,
            event_type=meter.event_type,
            aggregation=meter_pb2.Aggregation.Value(f"AGGREGATION_{meter.aggregation}"),
            value_property=meter.value_property,
            dimensions=meter.dimensions,
        )
        stubs.meters.CreateMeter(meter_pb2.CreateMeterRequest(meter=draft))
    while any(
        meter.state != meter_pb2.Meter.STATE_ACTIVE
        for meter in stubs.meters.ListMeters(meter_pb2.ListMetersRequest()).meters
    ):
        time.sleep(0.02)
    for key in ("input-tokens", "output-tokens"):
        feature = catalog_pb2.Feature(feature_key=key, meter_key=key)
        stubs.catalog.CreateFeature(catalog_pb2.CreateFeatureRequest(feature=feature))
    for plan in (_paid_plan(), _free_plan()):
        stubs.catalog.CreatePlan(catalog_pb2.CreatePlanRequest(plan=plan))
    for customer, (start, anchor) in _starts(trace).items():
        stubs.customers.CreateCustomer(
            customer_pb2.CreateCustomerRequest(
                customer=customer_pb2.Customer(customer_key=customer), subjects=[f"{customer}-app"]
            )
        )
        stubs.subscriptions.CreateSubscription(
            subscription_pb2.CreateSubscriptionRequest(
                customer_key=customer,
                plan_key="free" if customer == FREE else "paid",
                start_time=_stamp(start),
                anchor_time=_stamp(anchor),
            )
        )


def _paid_plan() -> catalog_pb2.Plan:
    def per_token(feature: str, amount: str) -> catalog_pb2.RateCard:
        price = price_pb2.Price(unit=price_pb2.UnitPrice(unit_amount=amount))
        return catalog_pb2.RateCard(rate_card_key=feature, feature_key=feature, price=price)

    fee = price_pb2.Price(flat=price_pb2.FlatPrice(amount=FEE))
    cards = [
        catalog_pb2.RateCard(rate_card_key="platform", price=fee),
        per_token("input-tokens", INPUT_PRICE),
        per_token("output-tokens", OUTPUT_PRICE),
    ]
    return catalog_pb2.Plan(plan_key="paid", rate_cards=cards)


def _free_plan() -> catalog_pb2.Plan:
    template = catalog_pb2.EntitlementTemplate(metered=catalog_pb2.MeteredTemplate(allowance=str(ALLOWANCE)))
    card = catalog_pb2.RateCard(
        rate_card_key="input-tokens", feature_key="input-tokens", entitlement=template
    )
    return catalog_pb2.Plan(plan_key="free", rate_cards=[card])


def _message(event: Event) -> usage_pb2.UsageEvent:
    assert event.time is not None
    return usage_pb2.UsageEvent(
        id=event.id,
        source=event.source,
        type=event.type,
        subject=event.subject,
        time=Timestamp(seconds=event.time[0], nanos=event.time[1]),
        properties=event.properties,
    )


def _shuffled_batches(events: list[Counted], rng: random.Random) -> deque[list[usage_pb2.UsageEvent]]:
    """Out of order within each minute, in messages of random size."""
    order = sorted(events, key=lambda one: (one.time_us // 60_000_000, rng.random()))
    batches: deque[list[usage_pb2.UsageEvent]] = deque()
    start = 0
    while start < len(order):
        size = rng.choice((1, 2, 5, 20, 100, 500))
        batches.append([_message(one.event) for one in order[start : start + size]])
        start += size
    return batches


def _requests(
    batches: list[list[usage_pb2.UsageEvent]], room: threading.Semaphore
) -> Iterator[usage_pb2.StreamUsageRequest]:
    for number, events in enumerate(batches, 1):
        # A stream that was cut answers no more, and nobody waits for what it would send.
        if not room.acquire(timeout=5):
            return
        yield usage_pb2.StreamUsageRequest(events=events, sequence=number)


def _deliver(
    server: ServerProcess, batches: deque[list[usage_pb2.UsageEvent]], kill_after: int | None = None
) -> tuple[int, int]:
    """Stream all batches, those unanswered again after an error; counts what was accepted and duplicate."""
    accepted = duplicate = answered = 0
    killed = restarted = False
    while batches:
        stubs = server.stubs()
        # A few unanswered at a time, so that a kill finds the stream in its middle.
        room = threading.Semaphore(_UNANSWERED)
        try:
            for answer in stubs.usage.StreamUsage(_requests(list(batches), room), wait_for_ready=True):
                room.release()
                assert (answer.conflict_count, answer.rejected_count) == (0, 0)
                batches.popleft()
                accepted += answer.accepted_count
                duplicate += answer.duplicate_count
                answered += 1
                if answered == kill_after:
                    server.kill()
                    killed = True
        except grpc.RpcError as error:
            # Answers that were under way may still have come in after the kill.
            if error.code() != grpc.StatusCode.UNAVAILABLE or not killed:
                raise
            killed, restarted = False, True
            server.start()
    assert kill_after is None or restarted
    return accepted, duplicate


def _check(stubs: Stubs) -> entitlement_pb2.Access:
    check = entitlement_pb2.EntitlementCheck(subject=f"{FREE}-app", feature_key="input-tokens")
    request = entitlement_pb2.CheckEntitlementRequest(check=check)
    return stubs.entitlements.CheckEntitlement(request).access


def _use_up_the_allowance(stubs: Stubs, events: list[Counted]) -> int:
    """Send one event after the other, and check after each; returns how many were sent.

    The right event is the one that brings the use to the allowance.
    """
    outbox: SimpleQueue[usage_pb2.StreamUsageRequest] = SimpleQueue()
    answers = stubs.usage.StreamUsage(iter(outbox.get, usage_pb2.StreamUsageRequest()), wait_for_ready=True)
    used = beyond = 0
    for number, one in enumerate(events, 1):
        outbox.put(usage_pb2.StreamUsageRequest(events=[_message(one.event)], sequence=number))
        assert next(answers).accepted_count == 1
        used += int(one.event.properties["input_tokens"])
        access = _check(stubs)
        assert access.access == (used < ALLOWANCE), f"after event {number}: {used} of {ALLOWANCE} used"
        assert int(access.usage) == used
        assert int(access.balance) == max(0, ALLOWANCE - used)
        assert int(access.overage) == max(0, used - ALLOWANCE)
        beyond += used >= ALLOWANCE
        if beyond == 20:
            break
    outbox.put(usage_pb2.StreamUsageRequest())
    assert not list(answers)
    assert beyond == 20
    return number


def _rows(stubs: Stubs, trace: Trace, meter: Meter, size: str, group_by: list[str]) -> list[model.Row]:
    request = usage_pb2.QueryUsageRequest(
        meter_key=meter.key,
        from_time=_stamp(trace.end - timedelta(hours=2)),
        to_time=_stamp(trace.end),
        window_size=usage_pb2.WindowSize.Value(f"WINDOW_SIZE_{size}"),
        group_by=group_by,
        page_size=10_000,
    )
    answer = stubs.usage.QueryUsage(request)
    assert not answer.next_page_token
    return [
        (
            row.from_time.seconds // 60,
            row.to_time.seconds // 60,
            tuple(row.group_values),
            Fraction(row.value),
            row.event_count,
        )
        for row in answer.rows
    ]


def _expected_rows(trace: Trace, meter: Meter, size: str, group_by: list[str]) -> list[model.Row]:
    end = int(trace.end.timestamp()) // 60
    edges = model.window_edges(end - 120, end, size, ZoneInfo("UTC"))
    owners = {f"{customer}-app": [(0, 2**31, customer)] for customer in (*PAYING, FREE)}
    return model.usage(trace.events, meter, edges, group_by=group_by, owners=owners)


def _expected_lines(trace: Trace, customer: str) -> dict[str, Fraction]:
    """What a paying customer owes for the period, by rate card."""
    full_start, full_end = _full_period(trace)
    covered = trace.end - _starts(trace)[customer][0]
    full_seconds = int((full_end - full_start).total_seconds())
    own = [one.event.properties for one in trace.events if one.event.subject == f"{customer}-app"]
    tokens = {
        name: sum(int(properties[f"{name}_tokens"]) for properties in own) for name in ("input", "output")
    }
    return {
        "platform": model.flat_amount(Fraction(FEE), int(covered.total_seconds()), full_seconds, 2),
        "input-tokens": model.unit_amount(Fraction(INPUT_PRICE), Fraction(tokens["input"]), 2),
        "output-tokens": model.unit_amount(Fraction(OUTPUT_PRICE), Fraction(tokens["output"]), 2),
    }


def _invoice_run(stubs: Stubs) -> list[invoice_pb2.Invoice]:
    steps = list(stubs.invoices.GenerateInvoices(invoice_pb2.GenerateInvoicesRequest(issue=True)))
    made = [step.invoice for step in steps if step.HasField("invoice")]
    assert steps[-1].invoice_count == len(made)
    return made


@pytest.mark.timeout(240)
def test_the_business_on_real_traffic_is_exact_to_the_token_and_the_cent(
    server: ServerProcess, trace: Trace, rng: random.Random
) -> None:
    assert len(trace.events) == REQUESTS
    _set_up(server.stubs(), trace)
    free = [one for one in trace.events if one.event.subject == f"{FREE}-app"]
    paying = [one for one in trace.events if one.event.subject != f"{FREE}-app"]

    # The whole once: killed in the middle, what was not answered sent again.
    batches = _shuffled_batches(paying, rng)
    accepted, duplicate = _deliver(server, batches, kill_after=len(batches) // 2)
    assert accepted + duplicate == len(paying)
    stubs = server.stubs()
    sent_singly = _use_up_the_allowance(stubs, free)
    rest = free[sent_singly:]
    assert _deliver(server, _shuffled_batches(rest, rng)) == (len(rest), 0)

    # And the whole again, in another order: not one event more.
    assert _deliver(server, _shuffled_batches(trace.events, rng)) == (0, REQUESTS)

    totals = [_rows(stubs, trace, meter, "UNSPECIFIED", [])[0][3] for meter in METERS]
    assert totals == [REQUESTS, INPUT, OUTPUT]
    for meter in METERS:
        for group_by in (["model"], ["customer", "model"]):
            expected = _expected_rows(trace, meter, "MINUTE", group_by)
            assert _rows(stubs, trace, meter, "MINUTE", group_by) == expected

    _money_is_exact(stubs, trace)
    server.restart()
    stubs = server.stubs()
    assert [_rows(stubs, trace, meter, "UNSPECIFIED", [])[0][3] for meter in METERS] == totals
    assert not _check(stubs).access
    assert _invoice_run(stubs) == []


def _money_is_exact(stubs: Stubs, trace: Trace) -> None:
    made = {invoice.customer_key: invoice for invoice in _invoice_run(stubs)}
    assert sorted(made) == sorted(PAYING)
    for customer, invoice in made.items():
        expected = _expected_lines(trace, customer)
        assert {line.rate_card_key: Fraction(line.amount) for line in invoice.lines} == expected
        assert Fraction(invoice.total) == sum(expected.values())
    assert sorted(invoice.number for invoice in made.values()) == list(range(1, len(PAYING) + 1))
    assert _invoice_run(stubs) == []
