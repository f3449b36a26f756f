"""Invoices of subscriptions that change plan and seats, with a real database."""

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ammeter.domain.catalog import Plan
from ammeter.domain.change import on_plan, with_quantity
from ammeter.domain.invoice import Invoice
from ammeter.domain.price import FlatPrice
from ammeter.domain.subscription import Subscription
from ammeter.errors import InvalidInputError, PreconditionError
from ammeter.store import subscriptions
from ammeter.store.db import Database
from ammeter.usecases.change import Wish
from tests.model_spans import flat_amount
from tests.usecases.billing_world import World, flat, lines, unit, utc


@pytest.fixture(scope="module")
def db(new_database: Callable[[], str]) -> Iterator[Database]:
    db = Database(new_database())
    yield db
    db.close()


@pytest.fixture
def world(db: Database) -> World:
    return World(db)


def put(world: World, changed: Subscription) -> Subscription:
    with world.db.tenant(world.tenant_id) as tx:
        subscriptions.set_spans(tx, changed, world.now)
    return changed


def change(world: World, sub: Subscription, plan: Plan, time: datetime) -> Subscription:
    return put(world, on_plan(sub, plan, 0, sub.course[-1].quantity, time))


def seats(world: World, sub: Subscription, quantity: int, time: datetime) -> Subscription:
    return put(world, with_quantity(sub, quantity, time))


def seat(amount: str) -> FlatPrice:
    return FlatPrice(Decimal(amount), per_seat=True)


class Shown(NamedTuple):
    key: str
    period: int
    quantity: str
    amount: str


def billed(world: World) -> list[list[Shown]]:
    made = world.generate(issue=True)
    return [[Shown(*line[1:]) for line in lines(one)] for one in made]


def test_an_upgrade_mid_month_bills_both_plans_to_the_minute(world: World) -> None:
    small, big = world.plan(flat("31"), unit("1")), world.plan(flat("62"), unit("0.5"))
    sub = world.subscribe(small, utc(2026, 1, 1))
    world.use(sub, utc(2026, 1, 10, 23, 59), 10)
    world.use(sub, utc(2026, 1, 11), 20)
    change(world, sub, big, utc(2026, 1, 11))
    world.now = utc(2026, 3, 1)
    january, february = billed(world)
    assert january == [
        ("card0", 0, "1", "10.00"),
        ("card1", 0, "10", "10.00"),
        ("card0", 0, "1", "42.00"),
        ("card1", 0, "20", "10.00"),
    ]
    assert february == [("card0", 1, "1", "62.00"), ("card1", 1, "0", "0.00")]
    first, second = sorted(world.all(), key=lambda one: one.period_index)
    assert (first.plan_key, second.plan_key) == (big.plan_key, big.plan_key)
    assert len({line.line_id for line in first.lines}) == 4


def priced_by(invoice: Invoice) -> list[tuple[str, str, int]]:
    return [(line.kind.value, line.plan_key, line.plan_version) for line in invoice.lines]


def test_a_line_names_the_plan_that_priced_it_and_late_use_the_one_of_its_time(world: World) -> None:
    small, big = world.plan(unit("1")), world.plan(unit("2"), minimum="50")
    sub = world.subscribe(small, utc(2026, 1, 1))
    change(world, sub, big, utc(2026, 1, 11))
    world.now = utc(2026, 2, 1)
    [january] = world.generate(issue=True)
    assert priced_by(january) == [
        ("usage", small.plan_key, 1),
        ("usage", big.plan_key, 1),
        ("minimum", big.plan_key, 1),
    ]
    world.use(sub, utc(2026, 1, 5), 100)
    world.now = utc(2026, 3, 1)
    [february] = world.generate(issue=True)
    assert priced_by(february) == [
        ("usage", big.plan_key, 1),
        ("minimum", big.plan_key, 1),
        ("late_usage", small.plan_key, 1),
        ("minimum", big.plan_key, 1),
    ]
    assert [world.get(one) for one in (january, february)] == [january, february]


def test_what_was_paid_in_advance_is_given_back_for_the_rest(world: World) -> None:
    small, big = world.plan(flat("31"), advance={0}), world.plan(flat("62"), advance={0})
    sub = world.subscribe(small, utc(2026, 1, 1))
    assert billed(world) == [[("card0", 0, "1", "31.00")]]
    world.now = utc(2026, 1, 11)
    change(world, sub, big, utc(2026, 1, 11))
    assert billed(world) == []
    world.now = utc(2026, 2, 1)
    (january,) = billed(world)
    assert january == [
        ("card0", 0, "0", "-21.00"),
        ("card0", 0, "1", "42.00"),
        ("card0", 1, "1", "62.00"),
    ]
    world.now = utc(2026, 3, 1)
    assert billed(world) == [[("card0", 2, "1", "62.00")]]


def test_a_change_in_the_very_minute_that_was_paid_gives_all_of_it_back(world: World) -> None:
    small, big = world.plan(flat("31"), advance={0}), world.plan(flat("62"))
    sub = world.subscribe(small, utc(2026, 1, 1))
    assert billed(world) == [[("card0", 0, "1", "31.00")]]
    change(world, sub, big, utc(2026, 1, 1))
    world.now = utc(2026, 2, 1)
    assert sorted(billed(world)[0]) == [("card0", 0, "-1", "-31.00"), ("card0", 0, "1", "62.00")]
    world.now = utc(2026, 3, 1)
    assert billed(world) == [[("card0", 1, "1", "62.00")]]


def test_a_change_at_the_end_of_a_period_splits_nothing(world: World) -> None:
    small, big = world.plan(flat("31"), advance={0}), world.plan(flat("62"), advance={0})
    sub = world.subscribe(small, utc(2026, 1, 1))
    change(world, sub, big, utc(2026, 2, 1))
    assert billed(world) == [[("card0", 0, "1", "31.00")]]
    world.now = utc(2026, 2, 1)
    assert billed(world) == [[("card0", 1, "1", "62.00")]]


def test_seats_are_charged_from_the_minute_they_change(world: World) -> None:
    sub = world.subscribe(world.plan(seat("31"), flat("5"), unit("1")), utc(2026, 1, 1))
    world.use(sub, utc(2026, 1, 5), 1)
    world.use(sub, utc(2026, 1, 25), 2)
    sub = seats(world, sub, 3, utc(2026, 1, 11))
    sub = seats(world, sub, 2, utc(2026, 1, 21))
    world.now = utc(2026, 2, 1)
    (january,) = billed(world)
    assert january == [
        ("card0", 0, "1", "10.00"),
        ("card1", 0, "1", "5.00"),
        ("card2", 0, "3", "3.00"),
        ("card0", 0, "3", "30.00"),
        ("card0", 0, "2", "22.00"),
    ], "what is not per seat is not cut"
    (made,) = world.all()
    detail = made.lines[3].details[0]
    assert detail.description == "3 seats, 864000 of 2678400 seconds"


def test_seats_in_advance_are_settled_with_the_period_that_they_change_in(world: World) -> None:
    sub = world.subscribe(world.plan(seat("31"), advance={0}), utc(2026, 1, 1))
    sub = seats(world, sub, 2, utc(2026, 1, 1))
    assert billed(world) == [[("card0", 0, "2", "62.00")]]
    sub = seats(world, sub, 5, utc(2026, 1, 11))
    world.now = utc(2026, 2, 1)
    assert billed(world) == [
        [("card0", 0, "0", "-42.00"), ("card0", 0, "5", "105.00"), ("card0", 1, "5", "155.00")]
    ]
    seats(world, sub, 0, utc(2026, 2, 1))
    world.now = utc(2026, 3, 1)
    assert billed(world) == [[("card0", 1, "-5", "-155.00")]]


def test_a_minimum_is_that_of_the_plan_at_the_end_and_counts_all_lines(world: World) -> None:
    low, high = world.plan(unit("1"), minimum="10"), world.plan(unit("1"), minimum="40")
    sub = world.subscribe(low, utc(2026, 1, 1))
    world.use(sub, utc(2026, 1, 5), 7)
    world.use(sub, utc(2026, 1, 25), 8)
    change(world, sub, high, utc(2026, 1, 11))
    world.now = utc(2026, 2, 1)
    (january,) = billed(world)
    assert january == [
        ("card0", 0, "7", "7.00"),
        ("card0", 0, "8", "8.00"),
        ("", 0, "0", "25.00"),
    ]


def test_late_usage_is_priced_by_the_plan_of_its_minute(world: World) -> None:
    small, big = world.plan(unit("1")), world.plan(unit("10"))
    sub = world.subscribe(small, utc(2026, 1, 1))
    change(world, sub, big, utc(2026, 1, 11))
    world.now = utc(2026, 2, 1)
    billed(world)
    world.use(sub, utc(2026, 1, 10), 3)
    world.use(sub, utc(2026, 1, 11), 4)
    world.now = utc(2026, 3, 1)
    (february,) = billed(world)
    assert sorted(february) == sorted(
        [("card0", 1, "0", "0.00"), ("card0", 0, "3", "3.00"), ("card0", 0, "4", "40.00")]
    )


def test_the_same_invoices_come_of_a_run_that_is_repeated(world: World) -> None:
    small, big = world.plan(flat("31"), advance={0}), world.plan(flat("62"), seat("1"))
    sub = world.subscribe(small, utc(2026, 1, 1))
    billed(world)
    change(world, sub, big, utc(2026, 1, 11))
    world.now = utc(2026, 3, 1)
    made = [one for one in world.generate() if one.period_index == 0]
    before = [(line.line_id, line.amount) for line in made[0].lines]
    world.void(made[0])
    (again,) = world.generate()
    assert [(line.line_id, line.amount) for line in again.lines] == before


def test_a_preview_of_a_change_says_what_the_next_invoice_would_be_and_writes_nothing(world: World) -> None:
    small, big = world.plan(flat("31"), seat("3.1"), unit("1"), advance={0}), world.plan(flat("62"))
    sub = world.subscribe(small, utc(2026, 1, 1))
    billed(world)
    world.use(sub, utc(2026, 1, 5), 10)
    world.now = utc(2026, 1, 11)
    plain = lines(world.preview(sub))
    thought = [Shown(*line[1:]) for line in lines(world.preview(sub, wish=Wish(big.plan_key)))]
    more = [Shown(*line[1:]) for line in lines(world.preview(sub, wish=Wish("", quantity=2)))]
    assert lines(world.preview(sub)) == plain
    assert ("card1", 0, "2", "4.20") in more
    change(world, sub, big, world.now)
    world.now = utc(2026, 2, 1)
    assert billed(world) == [thought]
    assert thought == [
        ("card0", 0, "0", "-21.00"),
        ("card1", 0, "1", "1.00"),
        ("card2", 0, "10", "10.00"),
        ("card0", 0, "1", "42.00"),
    ]


def test_a_preview_of_what_would_be_refused_is_refused_likewise(world: World) -> None:
    plan = world.plan(flat("31"))
    sub = world.subscribe(plan, utc(2026, 1, 1))
    other = world.subscribe(world.plan(unit("1")), utc(2026, 1, 1), customer_id=sub.customer_id)
    for wish, why in (
        (Wish(plan.plan_key), "nothing to change"),
        (Wish(world.plan(flat("1"), currency="EUR").plan_key), "EUR"),
        (Wish(other.plan_key), "at that time"),
    ):
        with pytest.raises(PreconditionError, match=why):
            world.preview(sub, sub.subscription_id, wish)
    for wish, field in (
        (Wish(""), r"change\.plan_key"),
        (Wish("", quantity=-1), r"change\.quantity"),
        (Wish(other.plan_key, "gold"), r"change\.phase_key"),
    ):
        with pytest.raises(InvalidInputError, match=field):
            world.preview(sub, sub.subscription_id, wish)


HALF_HOUR = timedelta(minutes=30)
DAYS = st.integers(0, 58 * 48)


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=st.lists(st.tuples(DAYS, st.sampled_from(["small", "big", None]), st.integers(0, 4)), max_size=5),
    advance=st.booleans(),
)
def test_flat_fees_are_what_a_minute_by_minute_model_makes_of_them(
    db: Database, changes: list[tuple[int, str | None, int]], *, advance: bool
) -> None:
    """Whatever changes, in advance or in arrears: all invoices together are the sum over minutes."""
    world = World(db)
    cards = {0, 1} if advance else set[int]()
    fees = {"small": (31, 3), "big": (77, 5)}
    plans = {
        name: world.plan(flat(str(base)), seat(str(each)), advance=cards)
        for name, (base, each) in fees.items()
    }
    names = {plan.plan_id: name for name, plan in plans.items()}
    start, end = utc(2026, 1, 1), utc(2026, 3, 1)
    sub = world.subscribe(plans["small"], start)
    world.generate(issue=True)
    parts = 2
    for half_hours, wanted, quantity in sorted(changes, key=lambda one: one[0]):
        time = start + timedelta(minutes=30 * half_hours)
        world.now = time
        world.generate(issue=True)
        try:
            if wanted is None:
                sub = seats(world, sub, quantity, time)
            else:
                sub = put(world, on_plan(sub, plans[wanted], 0, quantity, time))
        except PreconditionError:
            continue
        parts += 3
    with world.db.tenant(world.tenant_id) as tx:
        subscriptions.set_end(tx, sub.subscription_id, end, world.now)
    world.now = end
    world.generate(issue=True)

    def fee(minute: datetime) -> Fraction:
        (span,) = (
            one
            for one in sub.course
            if one.start_time <= minute and (one.end_time is None or minute < one.end_time)
        )
        base, each = fees[names[span.plan_id]]
        return Fraction(base + each * span.quantity)

    middle = utc(2026, 2, 1)
    expected = flat_amount(start, middle, timedelta(days=31), fee, HALF_HOUR)
    expected += flat_amount(middle, end, timedelta(days=28), fee, HALF_HOUR)
    total = sum((Fraction(one.subtotal) for one in world.all(standing=True)), Fraction(0))
    assert abs(total - expected) <= Fraction(parts, 100), "each part is rounded once"


def test_the_model_prices_a_whole_month_as_its_fee() -> None:
    whole = timedelta(days=31)
    assert flat_amount(utc(2026, 1, 1), utc(2026, 2, 1), whole, lambda _: Fraction(31)) == 31


def test_seats_of_a_yearly_fee_are_settled_in_the_month_that_they_change_in(world: World) -> None:
    plan = world.plan(seat("365"), advance={0}, own={0: "P1Y"})
    sub = world.subscribe(plan, utc(2026, 1, 1))
    assert billed(world) == [[("card0", 0, "1", "365.00")]]
    world.now = utc(2026, 3, 1)
    assert billed(world) == [[], []]
    seats(world, sub, 3, utc(2026, 3, 15))
    world.now = utc(2026, 4, 1)
    (march,) = billed(world)
    left = 365 - 31 - 28 - 14
    assert sorted(march) == [("card0", 0, "0", f"-{left}.00"), ("card0", 2, "3", f"{3 * left}.00")]
