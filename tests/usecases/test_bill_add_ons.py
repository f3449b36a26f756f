"""Invoices of subscriptions with add-ons: prorated, per piece, in advance, with usage, and gone again."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from decimal import Decimal

import pytest
import sqlalchemy as sa

from ammeter.domain.add_on import AddOn
from ammeter.domain.catalog import Plan
from ammeter.domain.invoice import Invoice
from ammeter.domain.price import FlatPrice
from ammeter.domain.subscription import Subscription
from ammeter.store import add_ons
from ammeter.store.db import Database
from ammeter.store.tables import rate_cards
from tests.usecases.billing_world import World, flat, lines, unit, utc


@pytest.fixture
def db(database_url: str) -> Iterator[Database]:
    one = Database(database_url)
    yield one
    one.close()


@pytest.fixture
def world(db: Database) -> World:
    return World(db)


def seat(amount: str) -> FlatPrice:
    return FlatPrice(Decimal(amount), per_seat=True)


def extra(world: World, *prices: FlatPrice, advance: bool = False) -> Plan:
    """A plan whose rate cards have keys of their own."""
    plan = world.plan(*prices, unit("2"), advance=range(len(prices)) if advance else ())
    with world.db.tenant(world.tenant_id) as tx:
        for card in plan.rate_cards:
            mine = rate_cards.c.rate_card_id == card.rate_card_id
            key = {"rate_card_key": f"extra-{card.rate_card_key}"}
            tx.conn.execute(sa.text("SET LOCAL ROLE NONE"))
            tx.conn.execute(sa.update(rate_cards).where(mine).values(key))
    return plan


def attach(world: World, sub: Subscription, plan: Plan, start: datetime, quantity: int = 1) -> AddOn:
    one = AddOn(
        f"add_{plan.plan_id}_{start:%d%H}",
        sub.subscription_id,
        plan.plan_id,
        plan.plan_key,
        1,
        quantity,
        start,
        None,
        start,
    )
    with world.db.tenant(world.tenant_id) as tx:
        add_ons.insert(tx, one)
    return one


def detach(world: World, one: AddOn, end: datetime) -> None:
    with world.db.tenant(world.tenant_id) as tx:
        add_ons.set_end(tx, replace(one, to_time=end))


def billed(world: World, time: datetime) -> list[tuple[str, str, int, str, str]]:
    world.now = time
    [made] = world.generate(issue=True)
    assert sum((line.amount for line in made.lines), Decimal(0)) == made.subtotal
    return lines(made)


def test_an_add_on_from_the_midst_of_a_period_is_prorated_and_its_usage_is_not(world: World) -> None:
    sub = world.subscribe(world.plan(flat("31"), unit("1")), utc(2026, 1, 1))
    one = attach(world, sub, extra(world, flat("62")), utc(2026, 1, 11))
    world.use(sub, utc(2026, 1, 5), 3, "model1")
    world.use(sub, utc(2026, 1, 12), 5, "model1")
    assert billed(world, utc(2026, 2, 1)) == [
        ("flat", "card0", 0, "1", "31.00"),
        ("usage", "card1", 0, "8", "8.00"),
        ("flat", "extra-card0", 0, "1", "42.00"),
        ("usage", "extra-card1", 0, "5", "10.00"),
    ]
    detach(world, one, utc(2026, 2, 15))
    world.use(sub, utc(2026, 1, 13), 1, "model1")
    assert billed(world, utc(2026, 3, 1)) == [
        ("flat", "card0", 1, "1", "31.00"),
        ("usage", "card1", 1, "0", "0.00"),
        ("flat", "extra-card0", 1, "1", "31.00"),
        ("usage", "extra-card1", 1, "0", "0.00"),
        ("late_usage", "card1", 0, "1", "1.00"),
        ("late_usage", "extra-card1", 0, "1", "2.00"),
    ]
    assert [line[1] for line in billed(world, utc(2026, 4, 1))] == ["card0", "card1"]


def test_several_at_a_time_cost_as_many_times_as_much(world: World) -> None:
    sub = world.subscribe(world.plan(flat("31")), utc(2026, 1, 1))
    plan = extra(world, seat("31"))
    first = attach(world, sub, plan, utc(2026, 1, 1), 2)
    attach(world, sub, plan, utc(2026, 1, 11), 3)
    detach(world, first, utc(2026, 1, 21))
    found = [line for line in billed(world, utc(2026, 2, 1)) if line[1] == "extra-card0"]
    # 10 days of 2, 10 of 5, 11 of 3
    assert [(quantity, amount) for _, _, _, quantity, amount in found] == [
        ("2", "20.00"),
        ("5", "50.00"),
        ("3", "33.00"),
    ]


def test_in_advance_it_is_billed_with_its_first_period_then_ahead_and_given_back(world: World) -> None:
    sub = world.subscribe(world.plan(flat("31")), utc(2026, 1, 1))
    one = attach(world, sub, extra(world, flat("31"), advance=True), utc(2026, 1, 11))

    def fees(time: datetime) -> list[tuple[int, str]]:
        return [
            (index, amount) for kind, key, index, _, amount in billed(world, time) if key == "extra-card0"
        ]

    assert fees(utc(2026, 2, 1)) == [(0, "21.00"), (1, "31.00")]
    detach(world, one, utc(2026, 2, 15))
    assert fees(utc(2026, 3, 1)) == [(1, "-15.50")]
    assert fees(utc(2026, 4, 1)) == []


def test_it_ends_with_its_subscription_and_void_invoices_are_made_again(world: World) -> None:
    sub = world.subscribe(world.plan(flat("31")), utc(2026, 1, 1))
    attach(world, sub, extra(world, flat("31")), utc(2026, 1, 1))
    world.end(sub, utc(2026, 1, 11))
    world.now = utc(2026, 1, 11)
    [made] = world.generate(issue=True)
    assert lines(made)[:2] == [("flat", "card0", 0, "1", "10.00"), ("flat", "extra-card0", 0, "1", "10.00")]
    world.void(made)
    again: list[Invoice] = world.generate(issue=True)
    assert again[0].lines == made.lines
