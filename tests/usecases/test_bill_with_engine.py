"""Invoices over usage that went through the engine, and their messages."""

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

import pytest

from ammeter.domain.cancellation import Timing
from ammeter.domain.catalog_rules import RateCardDraft
from ammeter.errors import InvalidInputError, NotFoundError
from ammeter.rpc.invoice import InvoiceRpc
from ammeter.rpc.method import ADMIN, Caller
from ammeter.usecases.measure import engine_billing
from ammeter.v1 import invoice_pb2 as pb
from tests.usecases.inline import Inline
from tests.usecases.world import World, at


@pytest.fixture
def world(new_database: Callable[[], str]) -> Iterator[World]:
    world = World(new_database(), "2025-03-01T00:00")
    yield world
    world.close()


class Service:
    """InvoiceService as the server calls it, without the wire."""

    def __init__(self, world: World) -> None:
        self.world = world
        run = engine_billing(world.db, world.engine, timedelta(days=40))
        self.rpc = InvoiceRpc(run, Inline(run, world.tenant_id, lambda: world.now))
        self.caller = Caller(world.tenant_id, "tenant", "key", frozenset({ADMIN}))

    def generate(self, customer_key: str = "", *, issue: bool = False) -> list[pb.Invoice]:
        request = pb.GenerateInvoicesRequest(customer_key=customer_key, issue=issue)
        *made, last = self.rpc.generate(self.caller, request, self.world.now)
        assert all(response.HasField("invoice") for response in made)
        assert not last.HasField("invoice")
        assert last.invoice_count == len(made)
        assert last.done_count == last.total_count
        return [response.invoice for response in made]

    def issue(self, invoice: pb.Invoice) -> pb.Invoice:
        request = pb.IssueInvoiceRequest(invoice_id=invoice.invoice_id)
        return self.rpc.issue(self.caller, request, self.world.now).invoice

    def void(self, invoice: pb.Invoice) -> pb.Invoice:
        with self.world.tx() as tx:
            request = pb.VoidInvoiceRequest(invoice_id=invoice.invoice_id)
            return self.rpc.void(tx, request, self.world.now).invoice

    def get(self, invoice_id: str) -> pb.Invoice:
        with self.world.tx() as tx:
            return self.rpc.get(tx, pb.GetInvoiceRequest(invoice_id=invoice_id), self.world.now).invoice

    def list(self, **fields: object) -> pb.ListInvoicesResponse:
        with self.world.tx() as tx:
            return self.rpc.list(tx, pb.ListInvoicesRequest(**fields), self.world.now)  # type: ignore[arg-type]

    def preview(self, customer_key: str) -> pb.Invoice:
        request = pb.PreviewInvoiceRequest(customer_key=customer_key)
        return self.rpc.preview(self.caller, request, self.world.now).invoice


def unit(feature: str, price: str) -> RateCardDraft:
    return RateCardDraft(feature, feature.title(), feature, price_kind="unit", price={"unit_amount": price})


def seat(price: str) -> RateCardDraft:
    return RateCardDraft("seat", "Seat", price_kind="flat", price={"amount": price})


def sell(world: World, *, zone: str = "") -> None:
    """Input and output tokens of two models, and seats."""
    world.meter("input", dimensions=["model"])
    world.feature("input", "input", model=["large", "small"])
    world.plan("pro", seat("20.00"), unit("input", "0.000003"))
    world.customer("acme", "alice", time_zone=zone)


def time_of(stamp: object) -> datetime:
    return stamp.ToDatetime()  # type: ignore[attr-defined, no-any-return]


def test_an_invoice_says_what_was_used_and_at_which_position(world: World) -> None:
    sell(world)
    world.subscribe("acme", "pro", start="2025-03-01T00:00")
    world.now = at("2025-03-20T12:00")
    world.use("alice", "1000000", model="large")
    world.use("alice", "0.5", model="small")
    world.use("alice", "77", model="other")
    position = world.use("bob", "88", model="large")
    world.now = at("2025-04-01T00:00")
    [made] = Service(world).generate(issue=True)
    assert (made.number, made.state, made.total, made.currency) == (
        1,
        pb.Invoice.STATE_ISSUED,
        "23.00",
        "USD",
    )
    assert (made.customer_key, made.plan_key, made.position) == ("acme", "pro", position)
    assert (time_of(made.period_start_time).day, time_of(made.period_end_time).month) == (1, 4)
    flat, usage = made.lines
    assert (flat.kind, flat.quantity, flat.unit_price, flat.amount) == (
        pb.InvoiceLine.KIND_FLAT,
        "1",
        "20.00",
        "20.00",
    )
    assert flat.covered_seconds == flat.period_seconds == 31 * 86_400
    assert (usage.kind, usage.quantity, usage.unit_price) == (
        pb.InvoiceLine.KIND_USAGE,
        "1000000.5",
        "0.000003",
    )
    assert (usage.amount, usage.position, usage.feature_key) == ("3.00", position, "input")
    assert (usage.description, usage.total_quantity, usage.billed_amount) == ("Input", "", "")
    assert not made.HasField("void_time")
    assert Service(world).get(made.invoice_id) == made


def test_usage_in_blocks_and_in_memory_is_billed_alike(world: World) -> None:
    sell(world)
    world.subscribe("acme", "pro", start="2025-03-01T00:00")
    world.now = at("2025-03-05T00:00")
    world.use("alice", "1000000", model="large")
    world.checkpoint()
    world.use("alice", "2000000", model="large")
    assert Service(world).preview("acme").lines[1].quantity == "3000000"
    world.checkpoint()
    world.restart()
    assert Service(world).preview("acme").lines[1].quantity == "3000000"


def test_periods_follow_the_customers_clock(world: World) -> None:
    sell(world, zone="America/New_York")
    world.subscribe("acme", "pro", start="2025-03-01T05:00")  # midnight there
    world.now = at("2025-04-02T00:00")
    world.use("alice", "1000000", at("2025-04-01T03:59"), model="large")  # 31 March there
    world.use("alice", "5000000", at("2025-04-01T04:00"), model="large")
    [made] = Service(world).generate()
    assert (made.lines[1].quantity, made.total) == ("1000000", "23.00")
    assert made.lines[0].period_seconds == 31 * 86_400 - 3_600


def test_late_usage_and_a_subject_mapped_late_ride_on_the_next_invoice(world: World) -> None:
    sell(world)
    world.subscribe("acme", "pro", start="2025-03-01T00:00")
    world.now = at("2025-03-10T00:00")
    world.use("alice", "1000000", model="large")
    world.use("carol", "3000000", model="large")  # nobody's yet
    world.now = at("2025-04-01T00:00")
    service = Service(world)
    service.generate(issue=True)
    world.use("alice", "2000000", at("2025-03-11T00:00"), model="small")
    world.now = at("2025-04-20T00:00")
    world.assign("acme", "carol")
    world.now = at("2025-05-01T00:00")
    [second] = service.generate(issue=True)
    late = second.lines[-1]
    assert (late.kind, late.quantity, late.amount) == (pb.InvoiceLine.KIND_LATE_USAGE, "5000000", "15.00")
    assert (late.total_quantity, late.billed_amount) == ("6000000", "3.00")
    assert second.total == "35.00"


def test_a_cancelled_subscription_is_billed_until_its_end(world: World) -> None:
    sell(world)
    sub = world.subscribe("acme", "pro", start="2025-03-01T00:00")
    world.now = at("2025-03-16T12:00")
    world.use("alice", "1000000", at("2025-03-16T11:59"), model="large")
    world.use("alice", "1000000", at("2025-03-16T12:00"), model="large")
    world.cancel(sub, Timing.NOW)
    [made] = Service(world).generate(issue=True)
    assert [line.amount for line in made.lines] == ["10.00", "3.00"]
    assert time_of(made.period_end_time) == datetime(2025, 3, 16, 12)  # noqa: DTZ001 - as protobuf gives it
    world.now = at("2025-05-01T00:00")
    assert Service(world).generate() == []


@pytest.mark.parametrize(
    ("aggregation", "quantity"),
    [("SUM", "10"), ("COUNT", "3"), ("UNIQUE_COUNT", "2"), ("LATEST", "4"), ("MAX", "4")],
)
def test_every_aggregation_that_backs_a_feature_is_billed(
    world: World, aggregation: str, quantity: str
) -> None:
    world.meter("m", aggregation)
    world.feature("m", "m")
    world.plan("pro", unit("m", "1"))
    world.customer("acme", "alice")
    world.subscribe("acme", "pro", start="2025-03-01T00:00")
    for day, amount in ((2, "2"), (3, "4"), (4, "4")):
        world.now = at(f"2025-03-{day:02}T00:00")
        world.use("alice", amount)
    world.now = at("2025-04-01T00:00")
    [made] = Service(world).generate()
    assert made.lines[0].quantity == quantity


def test_invoices_are_listed_newest_first_in_pages_without_lines(world: World) -> None:
    sell(world)
    world.customer("other", "bob")
    for customer in ("acme", "other"):
        world.subscribe(customer, "pro", start="2025-03-01T00:00")
    service = Service(world)
    world.now = at("2025-05-01T00:00")
    service.generate(issue=True)
    world.now = at("2025-06-01T00:00")
    drafts = service.generate()
    service.void(drafts[0])

    seen: list[pb.Invoice] = []
    page = service.list(page_size=4)
    while True:
        seen += page.invoices
        if not page.next_page_token:
            break
        page = service.list(page_size=4, page_token=page.next_page_token)
    assert len({one.invoice_id for one in seen}) == len(seen) == 6
    times = [(time_of(one.create_time), time_of(one.period_end_time)) for one in seen]
    assert times == sorted(times, reverse=True)
    assert not any(one.lines for one in seen)
    assert {one.customer_key for one in service.list(customer_key="acme").invoices} == {"acme"}
    states = {state: len(service.list(state=state).invoices) for state in pb.Invoice.State.values()[1:]}
    assert {state: count for state, count in states.items() if count} == {
        pb.Invoice.STATE_DRAFT: 1,
        pb.Invoice.STATE_ISSUED: 4,
        pb.Invoice.STATE_VOID: 1,
    }
    acme = service.list(customer_key="acme", page_size=1)
    with pytest.raises(InvalidInputError, match="page_token"):
        service.list(page_token=acme.next_page_token)


def test_what_is_not_there_is_not_found_and_what_is_no_state_is_refused(world: World) -> None:
    service = Service(world)
    for invoice_id in ("", "inv_nothing", "a\0b"):
        with pytest.raises(NotFoundError):
            service.get(invoice_id)
        with pytest.raises(NotFoundError):
            service.issue(pb.Invoice(invoice_id=invoice_id))
        with pytest.raises(NotFoundError):
            service.void(pb.Invoice(invoice_id=invoice_id))
    for customer_key in ("nobody", "a\0b"):
        with pytest.raises(NotFoundError):
            service.list(customer_key=customer_key)
        with pytest.raises(NotFoundError):
            service.preview(customer_key)
    with pytest.raises(InvalidInputError, match="customer_key"):
        service.preview("")
    with pytest.raises(InvalidInputError, match="state"):
        service.list(state=9)


def test_a_matrix_is_priced_by_what_each_group_used_and_fees_by_the_events(world: World) -> None:
    world.meter("spent", dimensions=["model", "region"])
    world.feature("spent", "spent", region=["eu", "us", ""])
    world.feature("paid", "spent")
    cell = {"values": ["eu", "large"], "unit_amount": "3"}
    world.plan(
        "pro",
        RateCardDraft(
            "spent",
            feature_key="spent",
            price_kind="matrix",
            price={"dimensions": ["region", "model"], "cells": [cell], "default_unit_amount": "0.5"},
        ),
        RateCardDraft(
            "paid",
            feature_key="paid",
            price_kind="percentage",
            price={"percentage": "10", "event_amount": "0.25", "free_event_count": "1"},
        ),
    )
    world.customer("acme", "alice")
    world.subscribe("acme", "pro", start="2025-03-01T00:00")
    world.now = at("2025-03-20T12:00")
    world.use("alice", "10", model="large", region="eu")
    world.checkpoint()
    world.use("alice", "2.5", model="large", region="eu")
    world.use("alice", "4", model="small", region="us")
    world.use("alice", "6", model="large")
    world.use("alice", "1000", model="large", region="elsewhere")
    world.now = at("2025-04-01T00:00")
    [made] = Service(world).generate()
    matrix, share = made.lines
    assert (matrix.quantity, matrix.unit_price, matrix.amount) == ("22.5", "", "42.50")
    assert [(one.description, one.quantity, one.amount) for one in matrix.details] == [
        ("region 'eu', model 'large'", "12.5", "37.50"),
        ("all others", "10", "5.00"),
    ]
    assert (share.quantity, share.amount) == ("1022.5", "103.25")
    assert [(one.description, one.quantity, one.unit_price, one.amount) for one in share.details] == [
        ("10 percent", "1022.5", "0.1", "102.25"),
        ("free events", "1", "0", "0.00"),
        ("fee per event", "4", "0.25", "1.00"),
    ]


def test_a_matrix_of_levels_prices_the_level_of_each_group(world: World) -> None:
    world.meter("seats", "MAX", dimensions=["team"])
    world.feature("seats", "seats")
    price = {"dimensions": ["team"], "cells": [], "default_unit_amount": "2"}
    world.plan("pro", RateCardDraft("seats", feature_key="seats", price_kind="matrix", price=price))
    world.customer("acme", "alice")
    world.subscribe("acme", "pro", start="2025-03-01T00:00")
    for day, seats, team in ((2, "3", "a"), (3, "7", "a"), (4, "5", "b")):
        world.now = at(f"2025-03-{day:02}T00:00")
        world.use("alice", seats, team=team)
    world.now = at("2025-04-01T00:00")
    [made] = Service(world).generate()
    assert (made.lines[0].quantity, made.lines[0].amount) == ("12", "24.00")
