"""Invoices of a customer with prices of its own: from when on, in advance, over changes, and back."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest

from ammeter.domain.invoice import Invoice
from ammeter.domain.price_override import OverrideDraft, PriceOverride
from ammeter.domain.subscription import Subscription
from ammeter.errors import InvalidInputError, NotFoundError, PreconditionError
from ammeter.store.db import Database
from ammeter.usecases.price_overrides import create_price_override, end_price_override
from tests.usecases.billing_world import World, flat, lines, unit, utc


@pytest.fixture
def db(database_url: str) -> Iterator[Database]:
    one = Database(database_url)
    yield one
    one.close()


@pytest.fixture
def world(db: Database) -> World:
    return World(db)


def agree(
    world: World,
    sub: Subscription,
    card: str,
    start: datetime | None = None,
    end: datetime | None = None,
    **sent: dict[str, Any],
) -> PriceOverride:
    kind = next((name for name in sent if name in {"flat", "unit"}), "")
    price = sent.pop(kind, {})
    draft = OverrideDraft(sub.subscription_id, card, start, end, kind, price, sent, "by mail")
    with world.db.tenant(world.tenant_id) as tx:
        return create_price_override(tx, draft, world.now)


def stop(world: World, one: PriceOverride) -> PriceOverride:
    with world.db.tenant(world.tenant_id) as tx:
        return end_price_override(tx, one.price_override_id, world.now, world.now)


def billed(world: World, time: datetime) -> Invoice:
    world.now = time
    [made] = world.generate(issue=True)
    assert world.get(made) == made
    return made


def test_a_price_from_the_period_on_is_that_of_one_customer_only(world: World) -> None:
    plan = world.plan(flat("31"), unit("1"))
    sub, other = world.subscribe(plan, utc(2026, 1, 1)), world.subscribe(plan, utc(2026, 1, 1))
    world.now = utc(2026, 1, 20)
    one = agree(world, sub, "card0", utc(2026, 1, 1), flat={"amount": "15.5"})
    agree(world, sub, "card1", utc(2026, 1, 1), discounts={"percentage": "50"})
    world.use(sub, utc(2026, 1, 5), 7, "model1")
    world.now = utc(2026, 2, 1)
    made = {one.subscription_id: one for one in world.generate(issue=True)}
    mine = made[sub.subscription_id]
    assert lines(mine) == [("flat", "card0", 0, "1", "15.50"), ("usage", "card1", 0, "7", "3.50")]
    assert [(line.description, line.price_override_id != "") for line in mine.lines] == [
        ("Card 0, as agreed", True),
        ("Card 1, as agreed", True),
    ]
    assert mine.lines[0].price_override_id == one.price_override_id
    assert lines(made[other.subscription_id])[0] == ("flat", "card0", 0, "1", "31.00")


def test_a_price_from_the_midst_of_a_period_cuts_it_there(world: World) -> None:
    sub = world.subscribe(world.plan(flat("31"), unit("1")), utc(2026, 1, 1))
    world.now = utc(2026, 1, 11)
    agree(world, sub, "card0", flat={"amount": "62"})
    one = agree(world, sub, "card1", unit={"unit_amount": "2"})
    world.use(sub, utc(2026, 1, 10, 23, 59), 5, "model1")
    world.use(sub, utc(2026, 1, 11), 3, "model1")
    world.now = utc(2026, 1, 21)
    stop(world, one)
    world.use(sub, utc(2026, 1, 21), 4, "model1")
    first = billed(world, utc(2026, 2, 1))
    assert lines(first) == [
        ("flat", "card0", 0, "1", "10.00"),
        ("usage", "card1", 0, "5", "5.00"),
        ("flat", "card0", 0, "1", "42.00"),
        ("usage", "card1", 0, "3", "6.00"),
        ("usage", "card1", 0, "4", "4.00"),
    ]
    assert len({line.line_id for line in first.lines}) == 5
    world.use(sub, utc(2026, 1, 12), 10, "model1")
    second = billed(world, utc(2026, 3, 1))
    assert lines(second) == [
        ("flat", "card0", 1, "1", "62.00"),
        ("usage", "card1", 1, "0", "0.00"),
        ("late_usage", "card1", 0, "10", "20.00"),
    ]
    world.void(second)
    [again] = world.generate(issue=True)
    assert again.lines == second.lines


def test_what_was_billed_in_advance_is_set_right_on_the_periods_own_invoice(world: World) -> None:
    sub = world.subscribe(world.plan(flat("31"), advance=[0]), utc(2026, 1, 1))
    assert lines(billed(world, utc(2026, 1, 1))) == [("flat", "card0", 0, "1", "31.00")]
    world.now = utc(2026, 1, 11)
    agree(world, sub, "card0", flat={"amount": "62"})
    assert lines(billed(world, utc(2026, 2, 1))) == [
        ("flat", "card0", 0, "0", "-21.00"),
        ("flat", "card0", 0, "1", "42.00"),
        ("flat", "card0", 1, "1", "62.00"),
    ]


def test_a_years_fee_in_advance_is_set_right_with_the_month_of_the_change(world: World) -> None:
    sub = world.subscribe(world.plan(flat("365"), advance=[0], own={0: "P1Y"}), utc(2026, 1, 1))
    billed(world, utc(2026, 1, 1))
    assert lines(billed(world, utc(2026, 2, 1))) == []
    world.now = utc(2026, 2, 15)
    agree(world, sub, "card0", flat={"amount": "730"})
    # 45 days at 1.00, 320 days at 2.00
    assert lines(billed(world, utc(2026, 3, 1))) == [
        ("flat", "card0", 0, "0", "-320.00"),
        ("flat", "card0", 0, "1", "640.00"),
    ]
    assert lines(billed(world, utc(2026, 4, 1))) == []


def test_a_minimum_may_be_taken_away_and_an_agreement_end_by_itself(world: World) -> None:
    from tests.usecases.test_bill_prices import sell  # noqa: PLC0415 - it has fixtures of the same name

    sub = sell(world, {"price": {"unit": {"unit_amount": "1"}}, "commitments": {"minimum_amount": "9"}})
    world.now = utc(2026, 1, 1)
    agree(world, sub, "card0", utc(2026, 1, 1), utc(2026, 2, 1), commitments={})
    assert lines(billed(world, utc(2026, 2, 1))) == [("usage", "card0", 0, "0", "0.00")]
    assert lines(billed(world, utc(2026, 3, 1))) == [("usage", "card0", 1, "0", "9.00")]


def test_what_cannot_be_agreed_on_is_refused_and_nothing_is_kept(world: World) -> None:
    sub = world.subscribe(world.plan(flat("31")), utc(2026, 1, 1))
    world.now = utc(2026, 2, 10)
    for start in (utc(2026, 1, 31, 23, 59), utc(2027, 3, 1)):
        with pytest.raises(InvalidInputError) as refused:
            agree(world, sub, "card0", start, flat={"amount": "1"})
        assert [one.field for one in refused.value.violations] == ["price_override.from_time"]
    with pytest.raises(InvalidInputError):
        agree(world, sub, "other", flat={"amount": "1"})
    first = agree(world, sub, "card0", flat={"amount": "1"})
    with pytest.raises(PreconditionError, match=f"{first.price_override_id} of card0 holds at that time"):
        agree(world, sub, "card0", utc(2026, 3, 1), flat={"amount": "2"})
    ended = stop(world, first)
    assert stop(world, first) == ended
    agree(world, sub, "card0", utc(2026, 3, 1), flat={"amount": "2"})
    with pytest.raises(NotFoundError), world.db.tenant(world.tenant_id) as tx:
        end_price_override(tx, "pov_none", world.now, world.now)
    over = world.subscribe(world.plan(flat("31")), utc(2026, 1, 1), end=utc(2026, 1, 15))
    with pytest.raises(PreconditionError, match="has ended"):
        agree(world, over, "card0", flat={"amount": "1"})
