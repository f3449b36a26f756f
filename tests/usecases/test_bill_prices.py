"""Invoices over each kind of price: what is charged, how it is explained, and what late usage adds."""

from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from ammeter.domain.catalog import RateCard
from ammeter.domain.invoice import Invoice, InvoiceLine
from ammeter.domain.subscription import Subscription
from ammeter.store.db import Database
from tests import model
from tests.domain.priced_cards import made
from tests.usecases.billing_world import World, flat, lines, unit, utc


@pytest.fixture
def db(database_url: str) -> Iterator[Database]:
    one = Database(database_url)
    yield one
    one.close()


@pytest.fixture
def world(db: Database) -> World:
    return World(db)


def sell(world: World, *forms: dict[str, Any], currency: str = "USD", minimum: str = "") -> Subscription:
    cards: list[RateCard] = [made(form, currency) for form in forms]
    plan = world.plan(
        *(card.price for card in cards),
        terms=[card.terms for card in cards],
        currency=currency,
        minimum=minimum,
    )
    return world.subscribe(plan, utc(2026, 1, 1))


def explained(line: InvoiceLine) -> list[tuple[str, str, str, str]]:
    def text(number: Decimal | None) -> str:
        return "" if number is None else f"{number.normalize():f}"

    return [
        (one.description, text(one.quantity), text(one.unit_price), str(one.amount)) for one in line.details
    ]


TIERS = [
    {"up_to": "100", "unit_amount": "1", "flat_amount": "5"},
    {"up_to": "200", "unit_amount": "0.5", "flat_amount": "2"},
    {"flat_amount": "9"},
]
CARDS: dict[str, tuple[dict[str, Any], str, str]] = {
    # name: rate card, its price for 150 units of 2 events, and for 60 more of another
    "unit": ({"price": {"unit": {"unit_amount": "0.01"}}}, "1.50", "0.60"),
    "graduated": ({"price": {"graduated": {"tiers": TIERS}}}, "132.00", "34.00"),
    "volume": ({"price": {"volume": {"tiers": TIERS}}}, "77.00", "-68.00"),
    "package": ({"price": {"package": {"package_size": "100", "package_amount": "3"}}}, "6.00", "3.00"),
    "percentage": (
        {
            "price": {
                "percentage": {
                    "percentage": "2.9",
                    "event_amount": "0.3",
                    "free_amount": "50",
                    "free_event_count": 1,
                }
            }
        },
        "3.20",
        "2.04",
    ),
    "graduated_percentage": (
        {
            "price": {
                "graduated_percentage": {
                    "tiers": [{"up_to": "100", "percentage": "10"}, {"percentage": "5", "flat_amount": "1"}]
                }
            }
        },
        "13.50",
        "3.00",
    ),
    "dynamic": ({"price": {"dynamic": {"multiplier": "1.2"}}}, "180.00", "72.00"),
    "matrix": (
        {
            "price": {
                "matrix": {
                    "dimensions": ["model"],
                    "cells": [{"values": ["small"], "unit_amount": "0.02"}],
                    "default_unit_amount": "1",
                }
            }
        },
        "52.00",
        "1.20",
    ),
    "conversion": (
        {
            "price": {"unit": {"unit_amount": "7"}},
            "unit_conversion": {"divide_by": "60", "rounding": "ceiling"},
        },
        "21.00",
        "7.00",
    ),
    "discounts": (
        {
            "price": {"unit": {"unit_amount": "1"}},
            "discounts": {"usage_quantity": "100", "percentage": "10"},
        },
        "45.00",
        "54.00",
    ),
    "maximum": (
        {"price": {"unit": {"unit_amount": "1"}}, "commitments": {"maximum_amount": "180"}},
        "150.00",
        "30.00",
    ),
    "minimum": (
        {"price": {"unit": {"unit_amount": "1"}}, "commitments": {"minimum_amount": "180"}},
        "180.00",
        "30.00",
    ),
}


@pytest.mark.parametrize("name", CARDS)
def test_each_price_is_charged_explained_and_continued_by_what_comes_late(world: World, name: str) -> None:
    form, first_amount, late_amount = CARDS[name]
    ((kind, _),) = form["price"].items()
    sub = sell(world, form)
    world.use(sub, utc(2026, 1, 5), 100)
    world.use(sub, utc(2026, 1, 6), 50, "model0")
    world.now = utc(2026, 1, 31)
    preview = world.preview(sub)
    world.now = utc(2026, 2, 1)
    [first] = world.generate(issue=True)
    world.use(sub, utc(2026, 1, 7), 60)
    world.now = utc(2026, 3, 1)
    second = world.generate(issue=True)[0]
    [line], late = first.lines, second.lines[-1]
    assert lines(first) == [("usage", "card0", 0, "150", first_amount)] == lines(preview)
    assert lines(second)[-1] == ("late_usage", "card0", 0, "60", late_amount)
    for one in (*first.lines, *second.lines):
        assert sum(detail.amount for detail in one.details) == one.amount
    small: dict[tuple[str, ...], Fraction] = {("small",): Fraction(160), ("model0",): Fraction(50)}
    assert line.amount + late.amount == model.rated(form, Fraction(210), 3, small)
    assert line.unit_price == (Decimal("0.01") if name == "unit" else line.unit_price)
    assert (line.unit_price is None) == (kind not in {"unit", "dynamic"} or name == "conversion")
    assert world.get(first) == first
    assert world.get(second) == second


def test_details_tell_tier_by_tier_how_the_amount_arose(world: World) -> None:
    sub = sell(
        world,
        {
            "price": {"graduated": {"tiers": TIERS}},
            "unit_conversion": {"divide_by": "1000", "rounding": "ceiling"},
            "discounts": {"usage_quantity": "10", "percentage": "10"},
            "commitments": {"maximum_amount": "100"},
        },
    )
    world.use(sub, utc(2026, 1, 5), 159_001)
    world.now = utc(2026, 2, 1)
    [made] = world.generate(issue=True)
    assert explained(made.lines[0]) == [
        ("159001 divided by 1000, rounded up: 160 units", "", "", "0.00"),
        ("free units", "10", "0", "0.00"),
        ("tier 1, from 0 to 100", "100", "1", "100.00"),
        ("tier 1, from 0 to 100, flat amount", "1", "5", "5.00"),
        ("tier 2, from 100 to 200", "50", "0.5", "25.00"),
        ("tier 2, from 100 to 200, flat amount", "1", "2", "2.00"),
        ("10 percent discount", "", "", "-13.20"),
        ("at most 100", "", "", "-18.80"),
    ]
    world.use(sub, utc(2026, 1, 5), -100_000)
    world.now = utc(2026, 3, 1)
    [later] = world.generate(issue=True)
    assert explained(later.lines[-1]) == [
        ("59001 divided by 1000, rounded up: 60 units", "", "", "0.00"),
        ("free units", "10", "0", "0.00"),
        ("tier 1, from 0 to 100", "50", "1", "50.00"),
        ("tier 1, from 0 to 100, flat amount", "1", "5", "5.00"),
        ("10 percent discount", "", "", "-5.50"),
        ("billed before", "", "", "-100.00"),
    ]
    assert later.lines[-1].amount == Decimal("-50.50")


def test_the_first_tiers_flat_part_and_a_minimum_are_due_without_usage_once(world: World) -> None:
    tiered = {"price": {"graduated": {"tiers": TIERS}}}
    sub = sell(world, tiered, tiered | {"commitments": {"minimum_amount": "7"}})
    world.now = utc(2026, 2, 1)
    [first] = world.generate(issue=True)
    assert [str(line.amount) for line in first.lines] == ["5.00", "7.00"]
    world.use(sub, utc(2026, 1, 5), 1)
    world.now = utc(2026, 3, 1)
    [second] = world.generate(issue=True)
    assert lines(second)[2:] == [
        ("late_usage", "card0", 0, "1", "1.00"),
        ("late_usage", "card1", 0, "1", "0.00"),
    ]


def minimum_lines(invoice: Invoice) -> list[tuple[str, str, int, str, str]]:
    return [line for line in lines(invoice) if line[0] == "minimum"]


def test_a_plans_minimum_charges_what_the_other_lines_leave_of_it(world: World) -> None:
    sub = sell(
        world, {"price": {"flat": {"amount": "20"}}}, {"price": {"unit": {"unit_amount": "1"}}}, minimum="100"
    )
    world.use(sub, utc(2026, 1, 5), 30)
    world.use(sub, utc(2026, 2, 5), 90)
    world.now = utc(2026, 2, 1)
    [first] = world.generate(issue=True)
    assert minimum_lines(first) == [("minimum", "", 0, "0", "50.00")]
    assert explained(first.lines[2]) == [
        ("at least 100", "", "", "100.00"),
        ("charged in the period", "", "", "-50.00"),
    ]
    assert str(first.total) == "100.00"
    assert world.get(first) == first
    world.now = utc(2026, 3, 1)
    [second] = world.generate(issue=True)
    assert lines(second) == [("flat", "card0", 1, "1", "20.00"), ("usage", "card1", 1, "90", "90.00")]


def test_late_usage_first_uses_up_a_plans_minimum(world: World) -> None:
    sub = sell(
        world, {"price": {"flat": {"amount": "20"}}}, {"price": {"unit": {"unit_amount": "1"}}}, minimum="100"
    )
    world.now = utc(2026, 2, 1)
    [first] = world.generate(issue=True)
    assert minimum_lines(first) == [("minimum", "", 0, "0", "80.00")]
    world.use(sub, utc(2026, 1, 5), 50)
    world.now = utc(2026, 3, 1)
    [second] = world.generate(issue=True)
    assert lines(second)[-2:] == [
        ("late_usage", "card1", 0, "50", "50.00"),
        ("minimum", "", 0, "0", "-50.00"),
    ]
    world.use(sub, utc(2026, 1, 6), 45)
    world.now = utc(2026, 3, 3)
    world.void(second)
    [again] = world.generate(issue=True)
    assert lines(again)[-2:] == [("late_usage", "card1", 0, "95", "95.00"), ("minimum", "", 0, "0", "-80.00")]
    found = [line.amount for one in (first, again) for line in one.lines if line.period_index == 0]
    assert sum(found) == 115


def test_a_currency_without_cents_rounds_each_line_once(world: World) -> None:
    third = {"price": {"unit": {"unit_amount": "1"}}, "unit_conversion": {"divide_by": "3"}}
    sub = sell(world, third, {"price": {"unit": {"unit_amount": "0.5"}}}, currency="JPY")
    world.use(sub, utc(2026, 1, 5), 5)
    world.now = utc(2026, 2, 1)
    [made] = world.generate()
    assert [str(line.amount) for line in made.lines] == ["2", "3"]
    assert explained(made.lines[0])[1] == ("units", "1.666666666667", "1", "2")


def test_old_prices_are_priced_as_ever(world: World) -> None:
    sub = world.subscribe(world.plan(flat("20"), unit("0.5")), utc(2026, 1, 16), anchor=utc(2026, 1, 1))
    world.use(sub, utc(2026, 1, 20), 3)
    world.now = utc(2026, 2, 1)
    [made] = world.generate()
    assert explained(made.lines[0]) == [("1382400 of 2678400 seconds", "0.516129032258", "20", "10.32")]
    assert explained(made.lines[1]) == [("units", "3", "0.5", "1.50")]
