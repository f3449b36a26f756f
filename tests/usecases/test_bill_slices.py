"""Slices of a present period: billed at a threshold, and in all exactly what the whole would cost."""

import random
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction

import pytest

from ammeter.domain.invoice import Invoice, Kind, State
from ammeter.domain.period import Period
from ammeter.domain.price import (
    Commitments,
    Discounts,
    GraduatedPrice,
    PackagePrice,
    Terms,
    Tier,
    UnitPrice,
    VolumePrice,
)
from ammeter.domain.pricing import Usage, rate
from ammeter.domain.profile import IssueMode
from ammeter.errors import InvalidInputError
from ammeter.store.db import Database
from tests.usecases.billing_world import World, flat, lines, unit, utc

TieredOrNot = GraduatedPrice | UnitPrice | PackagePrice
TIERS = GraduatedPrice((Tier(Decimal(100), Decimal(1), None), Tier(None, Decimal("0.5"), Decimal(3))))


@pytest.fixture(scope="module")
def db(database_url: str) -> Iterator[Database]:
    one = Database(database_url)
    yield one
    one.close()


@pytest.fixture
def world(db: Database) -> World:
    return World(db)


def test_a_slice_is_made_when_the_threshold_is_reached_and_tiers_stay_cumulative(world: World) -> None:
    sub = world.subscribe(world.plan(TIERS, flat("20")), utc(2026, 1, 1))
    world.profile(progressive_threshold="80", issue_mode=IssueMode.AUTOMATIC)
    made = []
    for day, used in ((2, 79), (3, 1), (4, 60), (5, 100), (6, 10)):
        world.now = utc(2026, 1, day)
        world.use(sub, world.now, used)
        made.append(world.due())
    assert [(one.made, one.issued) for one in made] == [(0, 0), (1, 1), (0, 0), (1, 1), (0, 0)]
    first, second = world.all()
    assert lines(first) == [("slice", "card0", 0, "80", "80.00")]
    assert lines(second) == [("slice", "card0", 0, "160", "93.00")]
    assert [(step.description, str(step.amount)) for step in second.lines[0].details] == [
        ("tier 1, from 0 to 100", "100.00"),
        ("tier 2, from 100 on", "70.00"),
        ("tier 2, from 100 on, flat amount", "3.00"),
        ("billed before", "-80.00"),
    ]
    assert world.preview(sub).total == Decimal("25.00")
    world.now = utc(2026, 2, 1)
    world.due()
    *_, own = world.all()
    assert lines(own) == [("usage", "card0", 0, "10", "5.00"), ("flat", "card1", 0, "1", "20.00")]
    assert sum(one.total for one in world.all()) == Decimal("198.00")


def test_generating_invoices_makes_slices_as_well_and_none_without_a_threshold(world: World) -> None:
    sub = world.subscribe(world.plan(unit("1")), utc(2026, 1, 1))
    world.now = utc(2026, 1, 9)
    world.use(sub, world.now, 50)
    assert world.generate() == []
    world.profile(progressive_threshold="50")
    [draft] = world.generate()
    assert (draft.state, lines(draft)) == (State.DRAFT, [("slice", "card0", 0, "50", "50.00")])
    assert world.generate() == []
    world.use(sub, world.now, 7)
    assert lines(world.issue(draft)) == [("slice", "card0", 0, "57", "57.00")], "a draft is computed anew"
    world.profile(sub.customer_key, progressive_threshold="")
    world.use(sub, world.now, 500)
    assert world.generate() == [], "the customer's own profile says never"


def test_minimum_flat_and_volume_prices_wait_for_the_period_s_own_invoice(world: World) -> None:
    volume = VolumePrice((Tier(Decimal(10), Decimal(5), None), Tier(None, Decimal(1), None)))
    least = Terms(commitments=Commitments(minimum_amount=Decimal(40)))
    plan = world.plan(unit("1"), volume, flat("9"), terms=[least, Terms(), Terms()], minimum="100")
    sub = world.subscribe(plan, utc(2026, 1, 1))
    world.profile(progressive_threshold="5")
    world.now = utc(2026, 1, 5)
    world.use(sub, world.now, 6)
    [first] = world.generate(issue=True)
    assert lines(first) == [("slice", "card0", 0, "6", "6.00")]
    world.now = utc(2026, 2, 1)
    [own] = world.generate(issue=True)
    assert lines(own) == [
        ("usage", "card0", 0, "0", "34.00"),
        ("usage", "card1", 0, "6", "30.00"),
        ("flat", "card2", 0, "1", "9.00"),
        ("minimum", "", 0, "0", "21.00"),
    ]
    assert first.total + own.total == Decimal("100.00")


def test_a_void_slice_is_billed_by_the_next_or_late(world: World) -> None:
    sub = world.subscribe(world.plan(unit("1")), utc(2026, 1, 1))
    world.profile(progressive_threshold="10")
    world.now = utc(2026, 1, 5)
    world.use(sub, world.now, 10)
    [first] = world.generate(issue=True)
    world.void(first)
    [again] = world.generate(issue=True)
    assert (lines(again), again.replaces_invoice_id) == (lines(first), first.invoice_id)
    world.now = utc(2026, 2, 1)
    world.generate(issue=True)
    world.void(again)
    world.now = utc(2026, 3, 1)
    [february] = world.generate(issue=True)
    assert lines(february)[1:] == [("late_usage", "card0", 0, "10", "10.00")]


def test_a_slice_still_a_draft_after_its_period_takes_only_what_nobody_billed(world: World) -> None:
    least = Terms(commitments=Commitments(minimum_amount=Decimal(40)))
    sub = world.subscribe(world.plan(unit("1"), terms=[least]), utc(2026, 1, 1))
    world.profile(progressive_threshold="10")
    world.now = utc(2026, 1, 5)
    world.use(sub, world.now, 10)
    [draft] = world.generate()
    world.now = utc(2026, 2, 1)
    [own] = world.generate(issue=True)
    assert own.total == Decimal("30.00")
    world.use(sub, utc(2026, 1, 31), 35)
    issued = world.issue(draft)
    assert issued.total + own.total == Decimal("45.00")
    world.now = utc(2026, 3, 1)
    [february] = world.generate(issue=True)
    assert [kind for kind, *_ in lines(february)] == ["usage"]


def test_what_begins_later_in_the_period_is_no_part_of_a_slice(world: World) -> None:
    flat_first = GraduatedPrice((Tier(None, Decimal(1), Decimal(7)),))
    sub = world.subscribe(world.plan(flat_first, own={0: "P1W"}), utc(2026, 2, 2))
    world.profile(progressive_threshold="5")
    world.now = utc(2026, 2, 10)
    world.use(sub, utc(2026, 2, 3), 3)
    world.use(sub, utc(2026, 2, 10), 2)
    [first] = world.generate(issue=True)
    assert [amount for *_, amount in lines(first)] == ["10.00", "9.00"], "two weeks have begun"


@pytest.mark.parametrize("text", ["-1", "x", "NaN", "1e3", "1" * 70])
def test_a_threshold_that_is_none_is_refused(text: str, world: World) -> None:
    with pytest.raises(InvalidInputError, match=r"profile\.progressive_threshold"):
        world.profile(progressive_threshold=text)


def _price(rng: random.Random) -> tuple[TieredOrNot, Terms]:
    prices: list[TieredOrNot] = [
        TIERS,
        UnitPrice(Decimal("0.335")),
        PackagePrice(Decimal(7), Decimal("1.99")),
        GraduatedPrice(
            (Tier(Decimal(3), Decimal("0.333"), Decimal(1)), Tier(None, Decimal("0.1"), Decimal(2)))
        ),
    ]
    price = rng.choice(prices)
    discounts = Discounts(usage_quantity=Decimal(rng.randrange(9)), percentage=Decimal(rng.randrange(30)))
    least, most = sorted((rng.randrange(60), rng.randrange(60)))
    bounds = Commitments(
        minimum_amount=Decimal(least) if rng.random() < 0.5 else None,
        maximum_amount=Decimal(most) if rng.random() < 0.5 else None,
    )
    return price, Terms(discounts=discounts, commitments=bounds)


@pytest.mark.parametrize("seed", range(12))
def test_slices_add_up_to_what_the_whole_costs_whatever_happens_in_between(seed: int, world: World) -> None:
    rng = random.Random(seed)  # noqa: S311 - reproducible
    price, terms = _price(rng)
    sub = world.subscribe(world.plan(price, terms=[terms]), utc(2026, 1, 1))
    world.profile(progressive_threshold=str(rng.randrange(1, 20)))
    drafts: list[Invoice] = []
    total = Decimal(0)
    for day in range(2, 30):
        world.now = utc(2026, 1, day)
        used = rng.randrange(-3, 12)
        total += used
        world.use(sub, world.now - timedelta(hours=rng.randrange(24)), used)
        drafts += world.generate(issue=rng.random() < 0.5)
        if drafts and rng.random() < 0.2:
            one = world.get(rng.choice(drafts))
            if one.state is State.DRAFT:
                world.issue(one)
            elif one.state is State.ISSUED and rng.random() < 0.5:
                world.void(one)
    world.now = utc(2026, 2, 1)
    world.generate(issue=True)
    standing = world.all(standing=True)
    assert all(line.kind in {Kind.SLICE, Kind.USAGE} for one in standing for line in one.lines)
    january = Period(0, utc(2026, 1, 1), utc(2026, 2, 1), 31 * 86_400)
    whole = rate(price, terms, Usage(total), january, 2)
    assert sum(one.total for one in standing) == whole.amount
    assert sum(Fraction(line.quantity) for one in standing for line in one.lines) == total
