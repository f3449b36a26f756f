"""Invoices of subscriptions whose phases change, with a real database."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from decimal import Decimal

import pytest

from ammeter.domain.catalog import Phase, Plan
from ammeter.domain.spans import anchor_of, plan_spans
from ammeter.domain.subscription import Subscription
from ammeter.store import catalog, subscriptions
from ammeter.store.db import Database
from tests.usecases.billing_world import World, flat, lines, unit, utc


@pytest.fixture(scope="module")
def db(new_database: Callable[[], str]) -> Iterator[Database]:
    db = Database(new_database())
    yield db
    db.close()


@pytest.fixture
def world(db: Database) -> World:
    return World(db)


def phased(world: World, plan: Plan, durations: list[str], phase_of: list[int]) -> Plan:
    """Another plan of the same rate cards, put into phases."""
    phases = tuple(Phase(f"phase{number}", "", length) for number, length in enumerate(durations))
    cards = tuple(replace(card, phase=phase) for card, phase in zip(plan.rate_cards, phase_of, strict=True))
    with world.db.tenant(world.tenant_id) as tx:
        features = catalog.get_features(tx, [card.feature_key for card in cards])
        ids = {key: one.feature_id for key, one in features.items()}
        wanted = replace(plan, plan_key=f"{plan.plan_key}-phased", rate_cards=cards, phases=phases)
        made = catalog.insert_plan(tx, wanted, ids, world.now)
    assert made is not None
    return made


def subscribe(world: World, plan: Plan, sub: Subscription) -> Subscription:
    """Put a subscription on the phases of a plan instead of what it is on."""
    spans = tuple(plan_spans(plan, sub.start_time, sub.time_zone))
    made = replace(
        sub,
        subscription_id=f"{sub.subscription_id}p",
        plan_id=plan.plan_id,
        plan_key=plan.plan_key,
        spans=spans,
        anchor_time=sub.anchor_time if sub.anchor_time != sub.start_time else anchor_of(plan, spans),
    )
    with world.db.tenant(world.tenant_id) as tx:
        subscriptions.insert(tx, made)
    return made


def own(world: World, sub: Subscription) -> list[list[tuple[str, str, int, str, str]]]:
    made = world.generate(issue=True)
    return [lines(one) for one in made if one.subscription_id == sub.subscription_id]


def test_a_trial_ends_its_period_so_the_first_month_is_whole(world: World) -> None:
    plan = phased(world, world.plan(flat("20")), ["P14D", ""], [1])
    sub = subscribe(world, plan, world.subscribe(plan, utc(2026, 1, 5)))
    world.now = utc(2026, 2, 19)
    trial, paid = own(world, sub)
    assert trial == []
    assert paid == [("flat", "card0", 1, "1", "20.00")]
    starts = {one.period_start_time for one in world.all() if one.subscription_id == sub.subscription_id}
    assert starts == {utc(2026, 1, 5), utc(2026, 1, 19)}


def test_under_calendar_billing_the_month_of_the_change_has_both_phases(world: World) -> None:
    plan = phased(world, world.plan(flat("10"), flat("31")), ["P10D", ""], [0, 1])
    sub = subscribe(world, plan, world.subscribe(plan, utc(2026, 1, 1), anchor=utc(2025, 1, 1)))
    world.now = utc(2026, 3, 1)
    january, february = own(world, sub)
    assert january == [
        ("flat", "card0", 0, "1", "3.23"),  # 10 x 10/31
        ("flat", "card1", 0, "1", "21.00"),  # 31 x 21/31
    ]
    assert february == [("flat", "card1", 1, "1", "31.00")]
    assert world.generate() == []


def test_usage_of_each_phase_is_billed_by_its_own_rate_cards_to_the_minute(world: World) -> None:
    base = world.plan(unit("1"), unit("5"))
    plan = phased(world, base, ["P10D", ""], [0, 1])
    sub = subscribe(world, plan, world.subscribe(plan, utc(2026, 1, 1)))
    world.use(sub, utc(2026, 1, 10, 23, 59), 3)
    world.use(sub, utc(2026, 1, 11), 4)
    world.now = utc(2026, 2, 1)
    (january,) = own(world, sub)
    assert january == [("usage", "card0", 0, "3", "3.00"), ("usage", "card1", 0, "4", "20.00")]
    (made,) = (one for one in world.all() if one.subscription_id == sub.subscription_id)
    names = {line.line_id for line in made.lines}
    assert names == {f"{sub.subscription_id}.card0.0", f"{sub.subscription_id}.card1.0.20260111T0000Z"}
    world.use(sub, utc(2026, 1, 10), 1)
    world.use(sub, utc(2026, 1, 12), 1)
    world.now = utc(2026, 3, 1)
    (february,) = own(world, sub)
    assert february == [
        ("usage", "card1", 1, "0", "0.00"),
        ("late_usage", "card0", 0, "1", "1.00"),
        ("late_usage", "card1", 0, "1", "5.00"),
    ]


def test_tiers_begin_anew_with_a_phase_and_nothing_of_them_is_prorated(world: World) -> None:
    plan = phased(world, world.plan(unit("1"), minimum="50"), ["P10D", ""], [1])
    sub = subscribe(world, plan, world.subscribe(plan, utc(2026, 1, 1), anchor=utc(2025, 1, 1)))
    world.use(sub, utc(2026, 1, 20), 4)
    world.now = utc(2026, 2, 1)
    (january,) = own(world, sub)
    assert january == [("usage", "card0", 0, "4", "4.00"), ("minimum", "", 0, "0", "46.00")]


def test_a_fee_in_advance_of_a_phase_that_begins_inside_a_period_is_due_at_its_end(world: World) -> None:
    base = world.plan(flat("31"), flat("62"), advance={0, 1})
    plan = phased(world, base, ["P10D", ""], [0, 1])
    sub = subscribe(world, plan, world.subscribe(plan, utc(2026, 1, 1)))
    opening = own(world, sub)
    assert opening == [[("flat", "card0", 0, "1", "10.00")]]
    world.now = utc(2026, 2, 1)
    (january,) = own(world, sub)
    assert january == [("flat", "card1", 0, "1", "42.00"), ("flat", "card1", 1, "1", "62.00")]
    world.now = utc(2026, 3, 1)
    assert own(world, sub) == [[("flat", "card1", 2, "1", "62.00")]]


def test_a_fee_in_advance_after_a_trial_is_due_when_the_trial_ends_and_not_before(world: World) -> None:
    plan = phased(world, world.plan(flat("20"), advance={0}), ["P14D", ""], [1])
    sub = subscribe(world, plan, world.subscribe(plan, utc(2026, 1, 5)))
    assert own(world, sub) == []
    world.now = utc(2026, 1, 19)
    assert own(world, sub) == [[("flat", "card0", 1, "1", "20.00")]]


def test_the_sum_of_all_parts_is_the_whole_price(world: World) -> None:
    plan = phased(world, world.plan(flat("31"), flat("31"), flat("31")), ["P3D", "P11D", ""], [0, 1, 2])
    sub = subscribe(world, plan, world.subscribe(plan, utc(2026, 1, 1)))
    world.now = utc(2026, 2, 1)
    (january,) = own(world, sub)
    assert sum(Decimal(amount) for *_, amount in january) == 31
