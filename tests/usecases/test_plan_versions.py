"""Versions of plans: drafted, edited, published, archived; with a real database."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from ammeter.domain.catalog import Plan
from ammeter.domain.catalog_rules import PhaseDraft, PlanDraft, RateCardDraft
from ammeter.domain.plan_form import read_draft
from ammeter.errors import (
    AmmeterError,
    ConflictError,
    InvalidInputError,
    NotFoundError,
    PreconditionError,
)
from ammeter.store import catalog as store
from ammeter.usecases import catalog
from tests.usecases.world import World, at


@pytest.fixture(scope="module")
def url(new_database: Callable[[], str]) -> str:
    return new_database()


@pytest.fixture
def world(url: str) -> Iterator[World]:
    world = World(url, "2026-01-10T12:00")
    world.customer("acme")
    yield world
    world.close()


def fee(amount: str) -> RateCardDraft:
    return RateCardDraft("fee", price_kind="flat", price={"amount": amount})


def draft(world: World, wanted: PlanDraft) -> Plan:
    with world.tx() as tx:
        return catalog.draft_plan(tx, wanted, world.now)


def publish(world: World, key: str = "basic", etag: str = "") -> Plan:
    with world.tx() as tx:
        return catalog.publish_plan(tx, key, etag, world.now)


def state(world: World, version: int) -> str:
    with world.tx() as tx:
        return catalog.get_plan(tx, "basic", version).state


def test_publishing_opens_a_draft_and_archives_the_version_before(world: World) -> None:
    first = world.plan("basic", fee("1"))
    assert (first.version, first.state, first.publish_time) == (1, "active", world.now)
    second = draft(world, PlanDraft("basic", rate_cards=(fee("2"),)))
    assert (second.version, second.state, second.publish_time) == (2, "draft", None)
    published = publish(world)
    assert (published.version, published.state) == (2, "active")
    assert published.rate_cards[0].price is not None
    assert published.etag != second.etag
    assert state(world, 1) == "archived"
    with world.tx() as tx:
        assert catalog.get_plan(tx, "basic") == published
        assert [one.version for one in catalog.list_versions(tx, "basic", None, 10)] == [2, 1]
        assert [one.version for one in store.page_plans(tx, "", 10)] == [2]


def test_subscriptions_stay_on_the_version_they_were_made_on(world: World) -> None:
    world.plan("basic", fee("1"))
    early = world.subscribe("acme", "basic")
    draft(world, PlanDraft("basic", rate_cards=(fee("2"),)))
    assert world.subscribe("acme", "basic").spans[0].plan_version == 1, "a draft is not for sale"
    publish(world)
    late = world.subscribe("acme", "basic")
    assert (early.spans[0].plan_version, late.spans[0].plan_version) == (1, 2)
    with world.tx() as tx:
        catalog.archive_plan(tx, "basic", world.now)
    with pytest.raises(PreconditionError, match="archived"):
        world.subscribe("acme", "basic")


def test_there_is_one_draft_at_a_time(world: World) -> None:
    draft(world, PlanDraft("basic"))
    with pytest.raises(PreconditionError, match="version 1 of plan 'basic' is a draft already"):
        draft(world, PlanDraft("basic"))
    with pytest.raises(PreconditionError, match="a draft: publish it first"):
        world.subscribe("acme", "basic")
    publish(world)
    assert draft(world, PlanDraft("basic")).version == 2


def test_a_draft_may_have_faults_and_tells_them_all(world: World) -> None:
    faulty = PlanDraft(
        "basic",
        currency="XXXX",
        phases=(
            PhaseDraft("trial", rate_cards=(RateCardDraft("a", price_kind="unit", price={}),)),
            PhaseDraft("trial", duration="P1M", rate_cards=(replace(fee("1.005"), feature_key="none"),)),
        ),
    )
    made = draft(world, faulty)
    with world.tx() as tx:
        found = {one.field for one in catalog.issues_of(tx, made)}
    assert found == {
        "plan.currency",
        "plan.phases[0].duration",
        "plan.phases[0].rate_cards[0].feature_key",
        "plan.phases[0].rate_cards[0].price.unit.unit_amount",
        "plan.phases[1].phase_key",
        "plan.phases[1].duration",
        "plan.phases[1].rate_cards[0].feature_key",
    }
    with pytest.raises(InvalidInputError) as caught:
        publish(world)
    assert {one.field for one in caught.value.violations} == found
    assert state(world, 1) == "draft", "and nothing was done"


def test_a_draft_is_edited_field_by_field_or_as_a_whole(world: World) -> None:
    made = draft(world, PlanDraft("basic", "Basic", "EUR", rate_cards=(fee("1"),)))
    with world.tx() as tx:
        named = catalog.update_plan(tx, PlanDraft("basic", "New"), ["name"], made.etag, world.now)
        with pytest.raises(ConflictError):
            catalog.update_plan(tx, PlanDraft("basic", "Newer"), ["name"], made.etag, world.now)
        again = catalog.update_plan(tx, PlanDraft("basic", "New"), ["name"], "", world.now)
        assert again.etag == named.etag, "what changes nothing changes no etag"
        with pytest.raises(InvalidInputError, match=r"update_mask\.paths\[1\]"):
            catalog.update_plan(tx, PlanDraft("basic"), ["name", "state"], "", world.now)
    assert read_draft(named.form or {}) == PlanDraft("basic", "New", "EUR", rate_cards=(fee("1"),))
    with world.tx() as tx:
        whole = catalog.update_plan(tx, PlanDraft("basic", rate_cards=(fee("3"),)), [], "", world.now)
    assert read_draft(whole.form or {}) == PlanDraft("basic", rate_cards=(fee("3"),))
    with pytest.raises(ConflictError):
        publish(world, etag=made.etag)
    published = publish(world, etag=whole.etag)
    assert (published.currency, published.form) == ("USD", None)


def test_what_was_published_is_not_edited(world: World) -> None:
    world.plan("basic", fee("1"))
    with world.tx() as tx:
        with pytest.raises(PreconditionError, match="never changes"):
            catalog.update_plan(tx, PlanDraft("basic"), [], "", world.now)
        with pytest.raises(PreconditionError, match="never changes"):
            catalog.publish_plan(tx, "basic", "", world.now)
        with pytest.raises(NotFoundError):
            catalog.update_plan(tx, PlanDraft("other"), [], "", world.now)


def test_a_draft_is_given_up_by_its_version(world: World) -> None:
    draft(world, PlanDraft("basic", rate_cards=(fee("1.005"),)))
    with world.tx() as tx:
        with pytest.raises(PreconditionError, match="name version 1"):
            catalog.archive_plan(tx, "basic", world.now)
        given_up = catalog.archive_plan(tx, "basic", world.now, 1)
        assert (given_up.state, given_up.publish_time) == ("archived", None)
        assert catalog.issues_of(tx, given_up) == []
    assert draft(world, PlanDraft("basic")).version == 2
    publish(world)
    with world.tx() as tx, pytest.raises(NotFoundError, match="version 9"):
        catalog.get_plan(tx, "basic", 9)


def test_archiving_an_old_version_leaves_the_active_one(world: World) -> None:
    world.plan("basic", fee("1"))
    draft(world, PlanDraft("basic"))
    publish(world)
    with world.tx() as tx:
        assert catalog.archive_plan(tx, "basic", world.now, 1).version == 1
    assert state(world, 2) == "active"


def test_drafting_and_publishing_at_once_leaves_one_draft_and_one_active_version(world: World) -> None:
    world.plan("basic", fee("1"))
    start = threading.Barrier(6)
    refused: list[str] = []

    def work(number: int) -> None:
        start.wait()
        for _ in range(4):
            try:
                if number % 2:
                    draft(world, PlanDraft("basic", rate_cards=(fee(str(number)),)))
                else:
                    publish(world)
            except AmmeterError as error:
                refused.append(error.reason)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(refused) <= {"WRONG_STATE"}
    with world.tx() as tx:
        versions = catalog.list_versions(tx, "basic", None, 100)
    states = [one.state for one in versions]
    assert states.count("active") == 1
    assert states.count("draft") <= 1
    assert [one.version for one in versions] == list(range(len(versions), 0, -1))


def test_subscribing_while_a_version_is_published_finds_one_of_the_two(world: World) -> None:
    world.plan("basic", fee("1"))
    found: list[int] = []
    for turn in range(5):
        draft(world, PlanDraft("basic", rate_cards=(fee(str(turn)),)))
        ready = threading.Barrier(2)

        def publishing(ready: threading.Barrier = ready) -> None:
            ready.wait()
            publish(world)

        thread = threading.Thread(target=publishing)
        thread.start()
        ready.wait()
        found.append(world.subscribe("acme", "basic").spans[0].plan_version - turn)
        thread.join()
    assert set(found) <= {1, 2}


def test_phases_change_by_themselves_and_entitle_for_their_time(world: World) -> None:
    for feature in ("sso", "audit"):
        world.feature(feature)
    wanted = PlanDraft(
        "basic",
        phases=(
            PhaseDraft(
                "trial",
                duration="P14D",
                rate_cards=(
                    RateCardDraft("sso", feature_key="sso", template_kind="boolean"),
                    RateCardDraft("audit", feature_key="audit", template_kind="boolean"),
                ),
            ),
            PhaseDraft(
                "paid",
                rate_cards=(
                    fee("20"),
                    RateCardDraft("sso", feature_key="sso", template_kind="boolean"),
                ),
            ),
        ),
    )
    draft(world, wanted)
    published = publish(world)
    assert [(one.phase_key, one.duration) for one in published.phases] == [("trial", "P14D"), ("paid", "")]
    made = world.subscribe("acme", "basic")
    assert made.anchor_time == at("2026-01-24T12:00"), "months count from the end of the trial"
    assert world.check("acme", "audit").access
    world.now = at("2026-01-24T11:59")
    assert world.check("acme", "audit").access
    world.now = at("2026-01-24T12:00")
    assert not world.check("acme", "audit").access
    assert world.check("acme", "sso").access
    world.plan("other", RateCardDraft("audit", feature_key="audit", template_kind="boolean"))
    world.subscribe("acme", "other")


def test_a_feature_of_a_later_phase_overlaps_too(world: World) -> None:
    world.feature("sso")
    phases = (
        PhaseDraft("trial", duration="P14D"),
        PhaseDraft("paid", rate_cards=(RateCardDraft("sso", feature_key="sso", template_kind="boolean"),)),
    )
    draft(world, PlanDraft("basic", phases=phases))
    publish(world)
    world.plan("other", RateCardDraft("sso", feature_key="sso"))
    world.subscribe("acme", "basic")
    with pytest.raises(PreconditionError, match="sso") as caught:
        world.subscribe("acme", "other")
    assert caught.value.reason == "FEATURE_OVERLAP"


def test_phases_and_rate_cards_of_the_plan_itself_exclude_each_other(world: World) -> None:
    both = PlanDraft("basic", rate_cards=(fee("1"),), phases=(PhaseDraft("one"),))
    with world.tx() as tx, pytest.raises(InvalidInputError) as caught:
        catalog.create_plan(tx, both, world.now)
    assert [one.field for one in caught.value.violations] == ["plan.rate_cards"]


@pytest.mark.parametrize(
    ("durations", "fields"),
    [
        (["", ""], ["plan.phases[0].duration"]),
        (["P14D", "P1M"], ["plan.phases[1].duration"]),
        (["P1M2D", ""], ["plan.phases[0].duration"]),
        (["P0D", ""], ["plan.phases[0].duration"]),
        (["P1D"] * 20 + [""], ["plan.phases"]),
    ],
)
def test_phases_out_of_order_are_refused(world: World, durations: list[str], fields: list[str]) -> None:
    phases = tuple(PhaseDraft(f"p{number}", duration=one) for number, one in enumerate(durations))
    with world.tx() as tx, pytest.raises(InvalidInputError) as caught:
        catalog.create_plan(tx, PlanDraft("basic", phases=phases), world.now)
    assert [one.field for one in caught.value.violations] == fields
