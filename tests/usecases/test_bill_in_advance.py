"""Flat prices in advance: the first opens a subscription, each further one rides on the invoice before."""

from collections.abc import Iterator
from datetime import timedelta

import pytest

from ammeter.domain.catalog import Plan
from ammeter.domain.invoice import OPENING
from ammeter.store.db import Database
from tests.usecases.billing_world import World, flat, lines, unit, utc


@pytest.fixture
def db(database_url: str) -> Iterator[Database]:
    one = Database(database_url)
    yield one
    one.close()


@pytest.fixture
def world(db: Database) -> World:
    return World(db)


def fee_and_usage(world: World, *, minimum: str = "") -> Plan:
    return world.plan(flat("31"), unit("1"), advance={0}, minimum=minimum)


def test_a_fee_in_advance_opens_the_subscription_and_goes_ahead_of_usage(world: World) -> None:
    sub = world.subscribe(fee_and_usage(world), utc(2026, 1, 11), anchor=utc(2026, 1, 1))
    world.now = utc(2026, 1, 10, 23, 59)
    assert world.generate(issue=True) == []
    world.now = utc(2026, 1, 11)
    [opening] = world.generate(issue=True)
    assert (opening.period_index, opening.ordinal, opening.number) == (0, OPENING, 1)
    assert lines(opening) == [("flat", "card0", 0, "1", "21.00")]
    assert opening.lines[0].line_id == f"{sub.subscription_id}.card0.0"
    assert world.generate() == []
    world.use(sub, utc(2026, 1, 20), 5)
    world.now = utc(2026, 2, 1)
    assert lines(world.preview(sub)) == [
        ("flat", "card0", 1, "1", "31.00"),  # which the invoice of January will bill, once it is made
        ("usage", "card1", 1, "0", "0.00"),
        ("flat", "card0", 2, "1", "31.00"),
    ]
    [january] = world.generate(issue=True)
    assert lines(world.preview(sub)) == [
        ("usage", "card1", 1, "0", "0.00"),
        ("flat", "card0", 2, "1", "31.00"),
    ]
    assert lines(january) == [("usage", "card1", 0, "5", "5.00"), ("flat", "card0", 1, "1", "31.00")]
    fee = january.lines[1]
    assert (fee.period_start_time, fee.period_end_time) == (utc(2026, 2, 1), utc(2026, 3, 1))
    world.use(sub, utc(2026, 1, 21), 3)
    world.now = utc(2026, 3, 1)
    [february] = world.generate(issue=True)
    assert lines(february) == [
        ("usage", "card1", 1, "0", "0.00"),
        ("late_usage", "card1", 0, "3", "3.00"),
        ("flat", "card0", 2, "1", "31.00"),
    ]


def test_periods_that_passed_unbilled_are_billed_in_order(world: World) -> None:
    world.subscribe(fee_and_usage(world), utc(2026, 1, 1))
    world.now = utc(2026, 3, 1)
    made = world.generate(issue=True)
    assert [(one.period_index, one.ordinal) for one in made] == [(0, OPENING), (0, 0), (1, 0)]
    assert [line[:3] for one in made for line in lines(one) if line[0] == "flat"] == [
        ("flat", "card0", number) for number in range(3)
    ]


def test_what_is_cut_short_is_given_back_on_the_periods_invoice(world: World) -> None:
    sub = world.subscribe(fee_and_usage(world), utc(2026, 1, 1))
    world.now = utc(2026, 1, 1)
    world.generate(issue=True)
    world.end(sub, utc(2026, 1, 11))
    world.now = utc(2026, 2, 1)
    [last] = world.generate(issue=True)
    assert lines(last) == [("flat", "card0", 0, "0", "-21.00"), ("usage", "card1", 0, "0", "0.00")]
    fee = last.lines[0]
    assert fee.line_id == f"{sub.subscription_id}.card0.0.rest.0.0"
    assert [(one.description, str(one.amount)) for one in fee.details] == [
        ("864000 of 2678400 seconds", "10.00"),
        ("billed before", "-31.00"),
    ]
    assert world.get(last) == last
    assert world.generate(issue=True) == []


def test_a_period_billed_ahead_that_never_came_is_given_back_after_the_end(world: World) -> None:
    sub = world.subscribe(fee_and_usage(world), utc(2026, 1, 1))
    world.now = utc(2026, 2, 1)
    assert len(world.generate(issue=True)) == 2
    world.end(sub, utc(2026, 2, 1))
    [rest] = world.generate(issue=True)
    assert (rest.period_index, rest.ordinal) == (0, 1)
    assert lines(rest) == [("flat", "card0", 1, "-1", "-31.00")]
    assert world.generate(issue=True) == []


def test_a_void_invoice_takes_the_fee_it_billed_ahead_with_it(world: World) -> None:
    world.subscribe(fee_and_usage(world), utc(2026, 1, 1))
    world.now = utc(2026, 2, 1)
    opening, january = world.generate(issue=True)
    world.void(opening)
    world.void(january)
    again = world.generate(issue=True)
    assert [lines(one) for one in again] == [lines(opening), lines(january)]
    world.now = utc(2026, 3, 1)
    [february] = world.generate(issue=True)
    world.void(again[1])
    [third] = world.generate(issue=True)
    assert lines(third) == lines(january)
    assert lines(february)[1] == ("flat", "card0", 2, "1", "31.00")


def test_a_fee_in_advance_counts_for_the_minimum_of_its_period(world: World) -> None:
    sub = world.subscribe(fee_and_usage(world, minimum="100"), utc(2026, 1, 1))
    world.use(sub, utc(2026, 1, 5), 9)
    world.now = utc(2026, 2, 1)
    _, january = world.generate(issue=True)
    assert lines(january)[1] == ("minimum", "", 0, "0", "60.00")
    world.use(sub, utc(2026, 1, 6), 10)
    world.now = utc(2026, 3, 1)
    [february] = world.generate(issue=True)
    assert lines(february)[2:4] == [
        ("late_usage", "card1", 0, "10", "10.00"),
        ("minimum", "", 0, "0", "-10.00"),
    ]
    assert lines(february)[1] == ("minimum", "", 1, "0", "69.00")


def test_a_subscription_that_ended_as_it_began_owes_nothing_and_gets_its_fee_back(world: World) -> None:
    drafted, issued = (world.subscribe(fee_and_usage(world), utc(2026, 1, 1)) for _ in range(2))
    world.now = utc(2026, 1, 1)
    [draft] = world.generate(drafted.customer_key)
    [opening] = world.generate(issued.customer_key, issue=True)
    for sub in (drafted, issued):
        world.end(sub, utc(2026, 1, 1))
    [rest] = world.generate(issue=True)
    assert lines(rest) == [("flat", "card0", 0, "-1", "-31.00")]
    assert (rest.subscription_id, rest.ordinal, rest.total) == (issued.subscription_id, 1, -opening.total)
    assert (lines(world.issue(draft)), str(world.get(draft).total)) == ([], "0.00")
    world.now += timedelta(days=40)
    assert world.generate(issue=True) == []


def test_plans_without_such_a_fee_have_no_opening_invoice(world: World) -> None:
    world.subscribe(world.plan(flat("31"), unit("1")), utc(2026, 1, 1))
    world.now = utc(2026, 1, 20)
    assert world.generate(issue=True) == []
