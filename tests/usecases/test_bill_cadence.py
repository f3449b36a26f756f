"""Rate cards charged more often, less often or once: on which invoice, how much, and what comes back."""

from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal

import pytest

from ammeter.domain.invoice import OPENING, Invoice
from ammeter.domain.price import GraduatedPrice, Tier
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


def bill(world: World, *times: datetime) -> list[Invoice]:
    found = []
    for time in times:
        world.now = time
        found += world.generate(issue=True)
    return found


def months(first: int, last: int, year: int = 2026) -> list[datetime]:
    return [utc(year + (month - 1) // 12, (month - 1) % 12 + 1, 1) for month in range(first, last + 1)]


def fees(found: list[Invoice]) -> list[tuple[int, int, str, str]]:
    """What was charged flat: the invoice's period and ordinal, quantity and amount."""
    return [
        (one.period_index, one.ordinal, f"{line.quantity}", f"{line.amount}")
        for one in found
        for line in one.lines
        if line.kind.value == "flat"
    ]


def test_a_yearly_fee_on_a_monthly_plan_is_on_the_invoice_of_its_last_month(world: World) -> None:
    sub = world.subscribe(world.plan(flat("365"), unit("1"), own={0: "P1Y"}), utc(2026, 1, 1))
    found = bill(world, *months(2, 26))
    assert len(found) == 25
    assert fees(found) == [(11, 0, "1", "365.00"), (23, 0, "1", "365.00")]
    line = next(line for line in found[11].lines if line.kind.value == "flat")
    assert (line.period_start_time, line.period_end_time) == (utc(2026, 1, 1), utc(2027, 1, 1))
    assert line.line_id == f"{sub.subscription_id}.card0.11.20260101T0000Z"


def test_a_yearly_fee_in_advance_opens_each_year_and_gives_the_rest_back_at_the_end(world: World) -> None:
    plan = world.plan(flat("365"), advance={0}, own={0: "P1Y"})
    sub = world.subscribe(plan, utc(2026, 1, 1))
    found = bill(world, utc(2026, 1, 1), *months(2, 15))
    assert fees(found) == [(0, OPENING, "1", "365.00"), (11, 0, "1", "365.00")]
    world.end(sub, utc(2027, 3, 15))
    assert fees(bill(world, utc(2027, 3, 15))) == [(14, 0, "0", "-292.00")]
    assert bill(world, utc(2027, 5, 1)) == []


def test_a_year_that_is_cut_short_costs_its_days(world: World) -> None:
    sub = world.subscribe(world.plan(flat("365"), own={0: "P1Y"}), utc(2026, 1, 1))
    world.end(sub, utc(2026, 3, 15))
    assert fees(bill(world, utc(2026, 2, 1), utc(2026, 3, 1), utc(2026, 3, 15))) == [(2, 0, "1", "73.00")]


def test_a_monthly_fee_on_a_yearly_plan_is_twelve_lines(world: World) -> None:
    plan = world.plan(flat("31"), flat("10"), advance={1}, cadence="P1Y", own={0: "P1M", 1: "P3M"})
    world.subscribe(plan, utc(2026, 1, 16), anchor=utc(2026, 1, 1))
    opening, year = bill(world, utc(2026, 1, 16), utc(2027, 1, 1))
    assert [str(line.amount) for line in opening.lines] == ["8.33", "10.00", "10.00", "10.00"]
    monthly = [line for line in year.lines if line.rate_card_key == "card0"]
    assert [str(line.amount) for line in monthly] == ["16.00"] + ["31.00"] * 11
    assert len({line.line_id for line in year.lines}) == len(year.lines) == 16


def test_a_setup_fee_is_charged_once_and_stays(world: World) -> None:
    plan = world.plan(flat("99"), flat("50"), advance={1}, own={0: "once", 1: "once"})
    sub = world.subscribe(plan, utc(2026, 1, 16), anchor=utc(2026, 1, 1))
    found = bill(world, utc(2026, 1, 16), *months(2, 5))
    assert fees(found) == [(0, OPENING, "1", "50.00"), (0, 0, "1", "99.00")]
    world.end(sub, utc(2026, 5, 10))
    assert fees(bill(world, utc(2026, 5, 10))) == []
    short = world.subscribe(plan, utc(2026, 6, 1))
    found = bill(world, utc(2026, 6, 1))
    world.end(short, utc(2026, 6, 2))
    assert fees([*found, *bill(world, utc(2026, 6, 2))]) == [(0, OPENING, "1", "50.00"), (0, 0, "1", "99.00")]


def test_tiers_of_a_year_add_up_over_its_months_and_late_use_goes_on(world: World) -> None:
    tiers = GraduatedPrice((Tier(Decimal(100), Decimal(1)), Tier(None, Decimal("0.5"))))
    sub = world.subscribe(world.plan(tiers, own={0: "P1Y"}), utc(2026, 1, 1))
    for month in range(1, 13):
        world.use(sub, utc(2026, month, 5), 10)
    found = bill(world, *months(2, 13))
    assert [lines(one) for one in found[:11]] == [[]] * 11
    assert lines(found[11]) == [("usage", "card0", 11, "120", "110.00")]
    world.use(sub, utc(2026, 12, 20), 30)
    [late] = bill(world, utc(2027, 2, 1))
    assert lines(late) == [("late_usage", "card0", 11, "30", "15.00")]


def test_usage_by_the_month_on_a_yearly_plan_is_rated_month_by_month(world: World) -> None:
    tiers = GraduatedPrice((Tier(Decimal(100), Decimal(1)), Tier(None, Decimal("0.5"))))
    sub = world.subscribe(world.plan(tiers, cadence="P1Y", own={0: "P1M"}), utc(2026, 1, 1))
    world.use(sub, utc(2026, 1, 5), 120)
    world.use(sub, utc(2026, 3, 5), 120)
    [year] = bill(world, utc(2027, 1, 1))
    assert [str(line.amount) for line in year.lines] == ["110.00", "0.00", "110.00"] + ["0.00"] * 9
    world.void(year)
    [again] = bill(world, utc(2027, 1, 2))
    assert again.lines == year.lines


def test_weeks_nest_in_days_from_the_anchor(world: World) -> None:
    world.subscribe(
        world.plan(flat("7"), cadence="P1D", own={0: "P1W"}), utc(2026, 1, 3), anchor=utc(2026, 1, 1)
    )
    found = bill(world, *(utc(2026, 1, day) for day in range(4, 17)))
    assert fees(found) == [(4, 0, "1", "5.00"), (11, 0, "1", "7.00")]
