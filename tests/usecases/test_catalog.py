"""Features and plans, with a real database."""

import threading
from collections.abc import Callable, Iterator
from decimal import Decimal

import pytest

from ammeter.domain.catalog import MeteredTemplate, StaticTemplate
from ammeter.domain.catalog_rules import RateCardDraft
from ammeter.domain.price import FlatPrice, UnitPrice
from ammeter.errors import (
    AlreadyExistsError,
    AmmeterError,
    InvalidInputError,
    NotFoundError,
    PreconditionError,
)
from ammeter.store import catalog as store
from ammeter.usecases import catalog
from tests.usecases.world import World, metered


@pytest.fixture(scope="module")
def url(new_database: Callable[[], str]) -> str:
    return new_database()


@pytest.fixture
def world(url: str) -> Iterator[World]:
    world = World(url)
    yield world
    world.close()


def test_a_feature_comes_back_as_it_was_made(world: World) -> None:
    world.meter("tokens", dimensions=["model", "kind"])
    created = world.feature("large", "tokens", model=["l", "xl"], kind=[""])
    with world.tx() as tx:
        assert catalog.get_feature(tx, "large") == created
    with pytest.raises(AlreadyExistsError):
        world.feature("large")


@pytest.mark.parametrize("aggregation", ["MIN", "AVG"])
def test_a_meter_that_is_no_quantity_backs_no_feature(world: World, aggregation: str) -> None:
    world.meter("latency", aggregation)
    with pytest.raises(InvalidInputError, match=r"feature\.meter_key"):
        world.feature("latency", "latency")


def test_filters_name_dimensions_of_the_meter(world: World) -> None:
    world.meter("tokens", dimensions=["model"])
    with pytest.raises(InvalidInputError) as caught:
        world.feature("large", "tokens", model=["l"], size=["x"])
    assert [violation.field for violation in caught.value.violations] == ["feature.filters[1].dimension"]


def test_a_feature_waits_for_its_meter_to_be_built(world: World) -> None:
    world.meter("tokens", served=False)
    with pytest.raises(PreconditionError) as caught:
        world.feature("tokens", "tokens")
    assert caught.value.reason == "METER_BUILDING"


def test_an_unknown_meter_is_named_by_its_field(world: World) -> None:
    with pytest.raises(InvalidInputError, match=r"feature\.meter_key"):
        world.feature("tokens", "tokens")


def test_a_plan_comes_back_as_it_was_made_with_exact_amounts(world: World) -> None:
    world.meter("tokens")
    world.feature("tokens", "tokens")
    world.feature("models")
    created = world.plan(
        "basic",
        RateCardDraft("base", "Base fee", price_kind="flat", price={"amount": "20.00"}),
        RateCardDraft(
            "tokens",
            "",
            "tokens",
            "unit",
            {"unit_amount": "0.000000000001"},
            template_kind="metered",
            allowance="99999999999999999999999999.5",
            soft_limit=True,
        ),
        RateCardDraft(
            "models", feature_key="models", template_kind="static", config={"n": [1, 1.5, None, {"a": "é"}]}
        ),
    )
    with world.tx() as tx:
        assert catalog.get_plan(tx, "basic") == created
    base, tokens, models = created.rate_cards
    assert base.price == FlatPrice(Decimal(20))
    assert tokens.price == UnitPrice(Decimal("1E-12"))
    assert tokens.entitlement == MeteredTemplate(Decimal("99999999999999999999999999.5"), soft_limit=True)
    assert models.entitlement == StaticTemplate({"n": [1, 1.5, None, {"a": "é"}]})
    assert [card.price or card.entitlement for card in created.rate_cards] != [None] * 3
    with pytest.raises(AlreadyExistsError):
        world.plan("basic")


def test_a_plan_names_features_that_exist(world: World) -> None:
    world.feature("sso")
    with pytest.raises(InvalidInputError) as caught:
        world.plan("basic", RateCardDraft("a"), RateCardDraft("b", feature_key="sso"), metered("tokens", "1"))
    assert [violation.field for violation in caught.value.violations] == ["plan.rate_cards[2].feature_key"]


def test_a_feature_that_a_plan_names_stays(world: World) -> None:
    world.feature("sso")
    world.plan("basic", RateCardDraft("sso", feature_key="sso"))
    with world.tx() as tx, pytest.raises(PreconditionError, match="basic") as caught:
        catalog.delete_feature(tx, world.live, "sso")
    assert caught.value.reason == "IN_USE"


def test_a_feature_is_deleted_or_used_but_never_both(world: World) -> None:
    for turn in range(8):
        feature = f"sso{turn}"
        world.feature(feature)
        start = threading.Barrier(2)
        failed: list[AmmeterError] = []

        def attempt(
            action: Callable[[], object],
            start: threading.Barrier = start,
            failed: list[AmmeterError] = failed,
        ) -> None:
            start.wait()
            try:
                action()
            except AmmeterError as error:
                failed.append(error)

        def delete(feature: str = feature) -> None:
            with world.tx() as tx:
                catalog.delete_feature(tx, world.live, feature)

        def use(feature: str = feature) -> None:
            world.plan(f"plan-{feature}", RateCardDraft("card", feature_key=feature))

        threads = [threading.Thread(target=attempt, args=(action,)) for action in (delete, use)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(failed) == 1
        assert failed[0].reason in {"IN_USE", "INVALID_FIELD"}


def test_an_archived_plan_takes_no_more_subscriptions_and_stays_archived(world: World) -> None:
    world.plan("basic")
    world.customer("acme")
    with world.tx() as tx:
        archived = catalog.archive_plan(tx, "basic", world.now)
    assert (archived.state, archived.archive_time) == ("archived", world.now)
    with pytest.raises(PreconditionError):
        world.subscribe("acme", "basic")
    with world.tx() as tx:
        assert catalog.archive_plan(tx, "basic", world.now.replace(year=2026)) == archived


@pytest.mark.parametrize("key", ["nothing", "", "\0", "x" * 5000])
def test_what_is_not_there_is_not_found(world: World, key: str) -> None:
    for read in (catalog.get_feature, catalog.get_plan):
        with world.tx() as tx, pytest.raises(NotFoundError):
            read(tx, key)


def test_lists_go_by_key(world: World) -> None:
    for key in ("c", "a", "b"):
        world.feature(key)
        world.plan(key, RateCardDraft("x"), RateCardDraft("y"))
    with world.tx() as tx:
        assert [one.feature_key for one in store.page_features(tx, "a", 5)] == ["b", "c"]
        plans = store.page_plans(tx, "", 2)
    assert [(one.plan_key, len(one.rate_cards)) for one in plans] == [("a", 2), ("b", 2)]
