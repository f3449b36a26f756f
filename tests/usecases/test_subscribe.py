"""Subscriptions and what they grant, with a real database."""

import threading
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest

from ammeter.domain.cancellation import Timing
from ammeter.domain.catalog_rules import RateCardDraft
from ammeter.domain.entitlement import Entitlement
from ammeter.errors import AmmeterError, InvalidInputError, NotFoundError, PreconditionError
from ammeter.store import entitlements, subscriptions
from ammeter.usecases.subscribe import create_subscription, get_subscription
from tests.usecases.world import World, at, metered


@pytest.fixture(scope="module")
def url(new_database: Callable[[], str]) -> str:
    return new_database()


@pytest.fixture
def world(url: str) -> Iterator[World]:
    world = World(url, "2025-03-10T12:00:30.5")
    world.feature("sso")
    world.feature("audit")
    world.plan("one", RateCardDraft("sso", feature_key="sso", template_kind="boolean"))
    world.plan(
        "both",
        RateCardDraft("sso", feature_key="sso", price_kind="flat", price={"amount": "1"}),
        RateCardDraft("audit", feature_key="audit", template_kind="boolean"),
    )
    world.customer("acme")
    yield world
    world.close()


def granted(world: World, customer_id: int) -> list[Entitlement]:
    with world.tx() as tx:
        return entitlements.page(tx, customer_id, "", 100)


def test_a_subscription_begins_at_this_minute_and_is_its_own_anchor(world: World) -> None:
    made = world.subscribe("acme", "one")
    assert (made.start_time, made.anchor_time, made.end_time) == (
        at("2025-03-10T12:00"),
        made.start_time,
        None,
    )
    assert made.subscription_id.startswith("sub_")
    assert len(made.subscription_id) == 30
    with world.tx() as tx:
        assert get_subscription(tx, made.subscription_id) == made
    (entitlement,) = granted(world, made.customer_id)
    assert (entitlement.feature_key, entitlement.kind) == ("sso", "boolean")
    assert (entitlement.from_time, entitlement.to_time) == (made.start_time, None)


@pytest.mark.parametrize("start", ["2025-02-03T12:00:30", "2026-03-12T12:00:30"])
def test_a_start_too_far_away_is_refused(world: World, start: str) -> None:
    with pytest.raises(InvalidInputError, match="start_time"):
        world.subscribe("acme", "one", start=start)


def test_start_and_anchor_are_cut_to_the_minute(world: World) -> None:
    made = world.subscribe("acme", "one", start="2025-02-03T12:00:45", anchor="2025-01-31T23:59:59")
    assert (made.start_time, made.anchor_time) == (at("2025-02-03T12:00"), at("2025-01-31T23:59"))


def test_the_plan_is_in_the_currency_of_the_customer(world: World) -> None:
    world.plan("euro", currency="EUR")
    with pytest.raises(PreconditionError, match="EUR"):
        world.subscribe("acme", "euro")


def test_unknown_customers_and_plans_are_not_found(world: World) -> None:
    for customer, plan in (("nobody", "one"), ("acme", "nothing")):
        with pytest.raises(NotFoundError):
            world.subscribe(customer, plan)


def test_features_of_one_customer_do_not_overlap_in_time(world: World) -> None:
    first = world.subscribe("acme", "one")
    with pytest.raises(PreconditionError, match="sso") as caught:
        world.subscribe("acme", "both", start="2026-01-01T00:00")
    assert caught.value.reason == "FEATURE_OVERLAP"
    world.cancel(first, Timing.AT_TIME, "2025-06-01T00:00")
    with pytest.raises(PreconditionError):
        world.subscribe("acme", "both", start="2025-05-31T23:59")
    world.subscribe("acme", "both", start="2025-06-01T00:00")
    world.customer("beta")
    world.subscribe("beta", "one")


def test_an_end_is_not_moved_into_the_next_subscription(world: World) -> None:
    first = world.subscribe("acme", "one")
    world.cancel(first, Timing.AT_TIME, "2025-06-01T00:00")
    world.subscribe("acme", "one", start="2025-06-01T00:00")
    with pytest.raises(PreconditionError) as caught:
        world.cancel(first, Timing.AT_TIME, "2025-06-01T00:01")
    assert caught.value.reason == "FEATURE_OVERLAP"
    sooner = world.cancel(first, Timing.AT_TIME, "2025-05-01T00:00:30")
    assert sooner.end_time == at("2025-05-01T00:00")
    later = world.cancel(first, Timing.AT_TIME, "2025-05-15T00:00")
    assert later.end_time == at("2025-05-15T00:00")
    ends = {one.subscription_id: one.to_time for one in granted(world, first.customer_id)}
    assert ends.pop(first.subscription_id) == later.end_time
    assert list(ends.values()) == [None]


def test_plans_without_common_features_run_side_by_side(world: World) -> None:
    world.plan("audit", RateCardDraft("audit", feature_key="audit", template_kind="boolean"))
    world.plan("fee", RateCardDraft("fee", price_kind="flat", price={"amount": "5"}))
    for plan in ("one", "audit", "fee", "fee"):
        world.subscribe("acme", plan)
    with world.tx() as tx:
        assert len(subscriptions.page(tx, None, "", 10)) == 4


def test_cancelling_now_ends_at_this_minute_and_only_once(world: World) -> None:
    made = world.subscribe("acme", "one", start="2025-03-01T00:00")
    cancelled = world.cancel(made, Timing.NOW)
    assert (cancelled.end_time, cancelled.cancel_time) == (at("2025-03-10T12:00"), world.now)
    with pytest.raises(PreconditionError) as caught:
        world.cancel(made, Timing.PERIOD_END)
    assert caught.value.reason == "WRONG_STATE"


def test_cancelling_before_the_start_leaves_nothing(world: World) -> None:
    made = world.subscribe("acme", "one", start="2025-04-01T00:00")
    cancelled = world.cancel(made, Timing.NOW)
    assert cancelled.end_time == cancelled.start_time
    world.subscribe("acme", "both", start="2025-03-20T00:00")


def test_cancelling_at_the_period_end_ends_with_it(world: World) -> None:
    made = world.subscribe("acme", "one", start="2025-03-01T00:00", anchor="2025-01-31T06:00")
    assert world.cancel(made, Timing.PERIOD_END).end_time == at("2025-03-31T06:00")
    assert world.cancel(made, Timing.PERIOD_END).end_time == at("2025-03-31T06:00")


def test_cancelling_at_a_time_needs_one_that_lies_ahead(world: World) -> None:
    made = world.subscribe("acme", "one")
    for time in ("", "2025-03-10T12:00:30"):
        with pytest.raises(InvalidInputError, match="cancel_time"):
            world.cancel(made, Timing.AT_TIME, time)
    with pytest.raises(InvalidInputError, match="cancel_time"):
        world.cancel(made, Timing.NOW, "2025-04-01T00:00")


def test_concurrent_subscriptions_of_one_customer_never_overlap(world: World) -> None:
    reasons: list[str] = []
    start = threading.Barrier(5)

    def subscribe() -> None:
        start.wait()
        try:
            world.subscribe("acme", "one")
            reasons.append("")
        except AmmeterError as error:
            reasons.append(error.reason)

    threads = [threading.Thread(target=subscribe) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(reasons) == ["", *["FEATURE_OVERLAP"] * 4]


def test_subscriptions_are_listed_by_creation(world: World) -> None:
    world.plan("fee")
    made = []
    for _ in range(3):
        made.append(world.subscribe("acme", "fee").subscription_id)
        world.now += timedelta(milliseconds=1)
    with world.tx() as tx:
        found = subscriptions.page(tx, None, "", 2)
        found += subscriptions.page(tx, None, found[-1].subscription_id, 2)
    assert [one.subscription_id for one in found] == made


def test_a_metered_entitlement_keeps_every_digit(world: World) -> None:
    world.meter("tokens")
    world.feature("tokens", "tokens")
    world.plan("metered", metered("tokens", "12345678901234567890123456.123456789012", soft=True))
    made = world.subscribe("acme", "metered")
    (entitlement,) = granted(world, made.customer_id)
    assert str(entitlement.allowance) == "12345678901234567890123456.123456789012"
    assert entitlement.soft_limit


def test_an_anchor_out_of_all_proportion_is_refused(world: World) -> None:
    with world.tx() as tx, pytest.raises(InvalidInputError, match="anchor_time"):
        create_subscription(tx, world.live, "acme", "one", None, at("0001-01-01T00:00"), world.now)
