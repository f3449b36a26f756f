"""Whatever is reported, generated, issued and voided in whatever order: in the end all is billed once."""

from collections import defaultdict
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ammeter.domain.invoice import Kind, State
from ammeter.domain.period import periods_from
from ammeter.domain.price import NO_TERMS
from ammeter.domain.subscription import Subscription
from ammeter.store.db import Database
from tests import model
from tests.domain.priced_cards import made
from tests.usecases.billing_world import HORIZON, World, flat, utc

TIERS = [
    {"up_to": "5", "unit_amount": "0.335", "flat_amount": "1"},
    {"unit_amount": "0.1", "flat_amount": "2"},
]
CARDS: list[dict[str, Any]] = [
    {"price": {"unit": {"unit_amount": "0.335"}}},
    {"price": {"graduated": {"tiers": TIERS}}, "commitments": {"maximum_amount": "4"}},
    {"price": {"volume": {"tiers": TIERS}}, "unit_conversion": {"divide_by": "3"}},
    {"price": {"package": {"package_size": "4", "package_amount": "1.5"}}, "discounts": {"percentage": "15"}},
    {
        "price": {"percentage": {"percentage": "2.9", "event_amount": "0.301", "free_amount": "3"}},
        "commitments": {"minimum_amount": "0.5"},
    },
]
MINIMUM = "20"

steps = st.lists(
    st.one_of(
        st.tuples(st.just("use"), st.integers(0, 35), st.integers(-3, 9)),
        st.tuples(st.just("use"), st.integers(0, 35), st.integers(-3, 9)),
        st.tuples(st.just("attribute"), st.integers(0, 200), st.integers(-3, 9)),
        st.tuples(st.just("pass"), st.integers(1, 50), st.just(0)),
        st.tuples(st.just("pass"), st.integers(1, 10), st.just(0)),
        st.tuples(st.just("generate"), st.booleans(), st.just(0)),
        st.tuples(st.just("generate"), st.booleans(), st.just(0)),
        st.tuples(st.just("issue"), st.integers(0, 50), st.just(0)),
        st.tuples(st.just("void"), st.integers(0, 50), st.just(0)),
    ),
    min_size=4,
    max_size=40,
)


@pytest.fixture(scope="module")
def db(database_url: str) -> Iterator[Database]:
    one = Database(database_url)
    yield one
    one.close()


def act(world: World, sub: Subscription, step: tuple[str, Any, int]) -> None:
    verb, number, quantity = step
    if verb in {"use", "attribute"}:
        world.use(sub, world.now - timedelta(days=number), quantity)
        if verb == "attribute":
            world.subjects_changed(sub)
    elif verb == "pass":
        world.now += timedelta(days=number)
    elif verb == "generate":
        world.generate(issue=number)
    elif found := world.all(standing=True):
        chosen = found[number % len(found)]
        (world.issue if verb == "issue" else world.void)(chosen)


def settle(world: World) -> None:
    """Let the horizon pass, and run until there is nothing more to do."""
    world.now += HORIZON + timedelta(days=60)
    for _ in range(5):
        for one in world.all(standing=True):
            world.issue(one)
        if not world.generate(issue=True):
            return
    pytest.fail("there was always something more to bill")


def check_books(world: World) -> None:
    found = world.all()
    numbers = sorted(one.number for one in found if one.number is not None)
    assert numbers == list(range(1, len(numbers) + 1))
    slots = [(one.period_index, one.ordinal) for one in found if one.state is not State.VOID]
    assert len(slots) == len(set(slots))
    for one in found:
        assert sum(line.amount for line in one.lines) == one.total
        for line in one.lines:
            assert sum(detail.amount for detail in line.details) == line.amount
        assert len({line.line_id for line in one.lines}) == len(one.lines)


# A fee in advance whose invoice is void while a later one brings its period to the plan's minimum.
@example(
    steps=[
        ("pass", 7, 0),
        ("generate", True, 0),
        ("pass", 48, 0),
        ("generate", True, 0),
        ("pass", 5, 0),
        ("generate", False, 0),
        ("attribute", 0, 0),
        ("void", 0, 0),
    ],
    forms=CARDS[:1],
)
@pytest.mark.timeout(300)
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(steps=steps, forms=st.lists(st.sampled_from(CARDS), min_size=1, max_size=2))
def test_in_the_end_every_period_is_billed_for_exactly_what_was_used(
    db: Database, steps: list[tuple[str, Any, int]], forms: list[dict[str, Any]]
) -> None:
    world = World(db, now=utc(2026, 1, 20))
    cards = [made(form, "USD") for form in forms]
    plan = world.plan(
        flat("7"),
        *(card.price for card in cards),
        flat("5"),
        terms=[NO_TERMS, *(card.terms for card in cards), NO_TERMS],
        advance={len(cards) + 1},
        cadence="P2W",
        minimum=MINIMUM,
    )
    sub = world.subscribe(plan, utc(2026, 1, 20))
    for step in steps:
        act(world, sub, step)
        if step[0] in {"generate", "issue", "void"}:
            check_books(world)
    sub = world.end(sub, world.now)
    settle(world)
    check_books(world)

    quantities: dict[tuple[str, int], Decimal] = defaultdict(Decimal)
    amounts: dict[tuple[str, int], Decimal] = defaultdict(Decimal)
    flats: dict[int, int] = defaultdict(int)
    for one in world.all(standing=True):
        assert one.state is State.ISSUED
        for line in one.lines:
            quantities[line.rate_card_key, line.period_index] += line.quantity
            amounts[line.rate_card_key, line.period_index] += line.amount
            flats[line.period_index] += line.kind is Kind.FLAT and line.rate_card_key == "card0"
    periods = list(periods_from(sub, 0, world.now))
    assert {index: number for index, number in flats.items() if number} == dict.fromkeys(
        (period.index for period in periods), 1
    )
    advance = f"card{len(forms) + 1}"
    nothing_left = {index for key, index in amounts if key == advance} - {period.index for period in periods}
    assert not any(amounts[advance, index] for index in nothing_left)
    for period in periods:
        events = [e[3] for e in world.events if period.start <= e[2] < period.end]
        used = sum(events, Decimal(0))
        charged = Fraction(amounts["card0", period.index])
        assert charged == model.flat_amount(Fraction(7), period.covered_seconds, period.full_seconds, 2)
        early = Fraction(amounts[advance, period.index])
        assert early == model.flat_amount(Fraction(5), period.covered_seconds, period.full_seconds, 2)
        assert quantities[advance, period.index] == 1
        charged += early
        for number, form in enumerate(forms, start=1):
            key = (f"card{number}", period.index)
            assert quantities[key] == used
            assert Fraction(amounts[key]) == model.rated(form, Fraction(used), len(events))
            charged += Fraction(amounts[key])
        wanted = model.missing_to_minimum(Fraction(MINIMUM), charged)
        assert Fraction(amounts["", period.index]) == wanted
