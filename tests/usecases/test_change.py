"""Changes of plan and seats, resuming, migrations: with a real database."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import pairwise

import pytest

from ammeter.domain.cancellation import Timing
from ammeter.domain.catalog_rules import PhaseDraft, PlanDraft, RateCardDraft
from ammeter.domain.entitlement import Entitlement
from ammeter.domain.entitlement_rules import EntitlementDraft, GrantDraft
from ammeter.domain.subscription import Subscription
from ammeter.errors import AmmeterError, InvalidInputError, NotFoundError, PreconditionError
from ammeter.store import catalog, entitlements, subscriptions
from ammeter.usecases import catalog as catalog_verbs
from ammeter.usecases.change import (
    When,
    Wish,
    change_subscription,
    resume_subscription,
    set_quantity,
)
from ammeter.usecases.entitle import create_entitlement, delete_entitlement
from ammeter.usecases.grants import create_grant
from ammeter.usecases.measure import engine_billing
from ammeter.usecases.migrate import Migration, Progress, migrate_subscriptions
from ammeter.usecases.preview import preview_invoice
from ammeter.usecases.subscribe import get_subscription
from tests.usecases.world import World, at, exact, metered


@pytest.fixture(scope="module")
def url(new_database: Callable[[], str]) -> str:
    return new_database()


@pytest.fixture
def world(url: str) -> Iterator[World]:
    world = World(url, "2026-03-10T12:00:30")
    for feature in ("sso", "audit"):
        world.feature(feature)
    world.meter("tokens")
    world.feature("tokens", "tokens")
    world.plan("free", metered("tokens", "100"), boolean("sso"))
    world.plan("pro", metered("tokens", "1000", soft=True), boolean("sso"), boolean("audit"))
    world.customer("acme", "user")
    yield world
    world.close()


def boolean(feature: str) -> RateCardDraft:
    return RateCardDraft(feature, feature_key=feature, template_kind="boolean")


NOW = When()
PERIOD_END = When(Timing.PERIOD_END)


def change(world: World, sub: Subscription, plan: str, when: When = NOW, **wish: object) -> Subscription:
    with world.tx() as tx:
        wanted = Wish(plan, when=when, **wish)  # type: ignore[arg-type]
        return change_subscription(tx, world.live, sub.subscription_id, wanted, world.now)


def given(world: World, sub: Subscription) -> list[Entitlement]:
    with world.tx() as tx:
        return entitlements.of_subscription(tx, sub.subscription_id)


def test_a_change_now_takes_effect_at_this_minute(world: World) -> None:
    sub = world.subscribe("acme", "free", "2026-03-01T00:00")
    changed = change(world, sub, "pro")
    assert [(one.plan_key, one.start_time) for one in changed.spans] == [
        ("free", at("2026-03-01T00:00")),
        ("pro", at("2026-03-10T12:00")),
    ]
    assert changed.anchor_time == sub.anchor_time, "no boundary moves"
    with world.tx() as tx:
        assert get_subscription(tx, sub.subscription_id) == changed
    assert world.check("acme", "audit").access
    lasting = {one.feature_key: one for one in given(world, sub)}
    assert len(given(world, sub)) == 3
    assert (lasting["sso"].from_time, lasting["sso"].to_time) == (sub.start_time, None), "without a seam"


def test_a_change_of_the_allowance_resets_usage_and_rolls_grants_over(world: World) -> None:
    sub = world.subscribe("acme", "free", "2026-03-01T00:00")
    (mine,) = (one for one in given(world, sub) if one.feature_key == "tokens")
    with world.tx() as tx:
        for amount, most in (("50", ""), ("30", "10")):
            grant = GrantDraft(mine.entitlement_id, amount, priority=1, rollover_maximum=most)
            create_grant(tx, world.live, grant, world.now)
    world.use("user", "80", world.now - timedelta(days=2))
    assert exact(world.check("acme", "tokens").balance) == 100 - 80 + 50 + 30
    world.now += timedelta(hours=1)
    change(world, sub, "pro")
    found = world.check("acme", "tokens")
    assert exact(found.balance) == 1000 + 50 + 10
    assert found.usage == 0
    assert exact(found.allowance) == 1000
    assert found.period_start_minute is not None
    assert found.period_end_minute is not None
    assert found.period_end_minute - found.period_start_minute == (22 * 24 - 13) * 60, "to the boundary"
    world.use("user", "1100")
    over = world.check("acme", "tokens")
    assert over.access, "the limit is soft now"
    assert exact(over.overage) == 40
    world.use("user", "5", world.now - timedelta(days=2))
    assert exact(world.check("acme", "tokens").overage) == 40, "late use of before burns what was before"
    world.now = at("2026-04-01T00:00")
    assert exact(world.check("acme", "tokens").allowance) == 1000


def test_a_change_at_the_end_of_the_period_waits_for_it(world: World) -> None:
    sub = world.subscribe("acme", "free", "2026-03-01T00:00")
    change(world, sub, "pro", PERIOD_END)
    assert not world.check("acme", "audit").access
    world.use("user", "30")
    assert exact(world.check("acme", "tokens").balance) == 70
    world.now = at("2026-03-31T23:59")
    assert exact(world.check("acme", "tokens").balance) == 70
    world.now = at("2026-04-01T00:00")
    assert exact(world.check("acme", "tokens").balance) == 1000
    assert world.check("acme", "audit").access


def test_a_change_back_ends_what_only_the_other_gave(world: World) -> None:
    sub = world.subscribe("acme", "free", "2026-03-01T00:00")
    change(world, sub, "pro", When(Timing.AT_TIME, at("2026-05-01T00:00:40")))
    back = change(world, sub, "free")
    assert back.spans == sub.spans, "what was planned is dropped"
    assert {one.feature_key: one.to_time for one in given(world, sub)} == {
        "sso": None,
        "tokens": None,
        "audit": at("2026-05-01T00:00"),
    }
    assert all(one.from_time == one.to_time for one in given(world, sub) if one.feature_key == "audit")
    assert given(world, sub)[0].changes == ()
    world.plan("audits", boolean("audit"))
    world.subscribe("acme", "audits")
    with pytest.raises(PreconditionError, match="audit") as caught:
        change(world, sub, "pro")
    assert caught.value.reason == "FEATURE_OVERLAP"
    with world.tx() as tx:
        assert get_subscription(tx, sub.subscription_id).spans == sub.spans, "and nothing was done"


def test_what_was_ended_by_hand_stays_ended_through_a_change(world: World) -> None:
    sub = world.subscribe("acme", "free", "2026-03-01T00:00")
    ended = {one.feature_key: one.entitlement_id for one in given(world, sub)}
    with world.tx() as tx:
        for entitlement_id in ended.values():
            delete_entitlement(tx, world.live, entitlement_id, world.now)
    world.now += timedelta(hours=1)
    change(world, sub, "pro")
    assert not world.check("acme", "sso").access
    assert not world.check("acme", "tokens").access
    assert world.check("acme", "audit").access


def test_plans_that_do_not_fit_are_refused(world: World) -> None:
    sub = world.subscribe("acme", "free", "2026-03-01T00:00")
    world.plan("euro", currency="EUR")
    world.plan("yearly", cadence="P1Y")
    phases = (PhaseDraft("trial", duration="P14D"), PhaseDraft("paid"))
    with world.tx() as tx:
        catalog_verbs.create_plan(tx, PlanDraft("phased", phases=phases), world.now)
    for plan, why in (("euro", "EUR"), ("yearly", "each P1Y"), ("free", "nothing to change")):
        with pytest.raises(PreconditionError, match=why):
            change(world, sub, plan)
    with pytest.raises(NotFoundError):
        change(world, sub, "nothing")
    with pytest.raises(InvalidInputError, match="it has trial, paid"):
        change(world, sub, "phased", phase_key="gold")
    paid = change(world, sub, "phased", phase_key="paid", quantity=3)
    assert [(one.phase_key, one.quantity) for one in paid.spans] == [("", 1), ("paid", 3)]
    world.cancel(paid, Timing.PERIOD_END)
    with pytest.raises(PreconditionError, match="resume it first"):
        change(world, sub, "free", PERIOD_END)


def test_a_scheduled_cancellation_is_taken_back(world: World) -> None:
    sub = world.subscribe("acme", "pro", "2026-03-01T00:00")
    with world.tx() as tx, pytest.raises(PreconditionError, match="not cancelled"):
        resume_subscription(tx, world.live, sub.subscription_id, world.now)
    world.cancel(sub, Timing.PERIOD_END)
    with world.tx() as tx:
        resumed = resume_subscription(tx, world.live, sub.subscription_id, world.now)
        assert get_subscription(tx, sub.subscription_id) == resumed
    assert (resumed.end_time, resumed.cancel_time, resumed.spans) == (None, None, sub.spans)
    world.now = at("2026-04-02T00:00")
    assert world.check("acme", "sso").access
    world.cancel(sub, Timing.NOW)
    with world.tx() as tx, pytest.raises(PreconditionError, match="has ended"):
        resume_subscription(tx, world.live, sub.subscription_id, world.now)


def test_a_cancellation_is_not_taken_back_into_another_subscription(world: World) -> None:
    sub = world.subscribe("acme", "pro", "2026-03-01T00:00")
    world.cancel(sub, Timing.PERIOD_END)
    world.subscribe("acme", "free", "2026-04-01T00:00")
    with world.tx() as tx, pytest.raises(PreconditionError) as caught:
        resume_subscription(tx, world.live, sub.subscription_id, world.now)
    assert caught.value.reason == "FEATURE_OVERLAP"


def test_a_subscription_cancelled_after_a_planned_change_keeps_the_plan_for_a_resume(world: World) -> None:
    sub = world.subscribe("acme", "free", "2026-03-01T00:00")
    change(world, sub, "pro", When(Timing.AT_TIME, at("2026-06-01T00:00")))
    world.cancel(sub, Timing.PERIOD_END)
    assert {one.to_time for one in given(world, sub)} == {at("2026-04-01T00:00"), at("2026-06-01T00:00")}
    with world.tx() as tx:
        resumed = resume_subscription(tx, world.live, sub.subscription_id, world.now)
    assert [one.plan_key for one in resumed.spans] == ["free", "pro"]
    assert {one.feature_key for one in given(world, sub) if one.to_time is None} == {"sso", "tokens", "audit"}


def test_seats_change_from_a_time_on_and_not_before(world: World) -> None:
    sub = world.subscribe("acme", "free", "2026-03-01T00:00")

    def seats(quantity: int, when: When = NOW) -> Subscription:
        with world.tx() as tx:
            return set_quantity(tx, world.live, sub.subscription_id, quantity, when, world.now)

    assert seats(1).spans == sub.spans
    assert [one.quantity for one in seats(5, PERIOD_END).spans] == [1, 5]
    now = seats(3)
    assert [(one.quantity, one.start_time.day) for one in now.spans] == [(1, 1), (3, 10)]
    for quantity in (-1, 10**9 + 1):
        with pytest.raises(InvalidInputError, match="quantity"):
            seats(quantity)
    assert seats(0).spans[-1].quantity == 0
    assert len(given(world, sub)) == 2, "seats are nothing to entitlements"


# Migrations


def publish(world: World, key: str, *cards: RateCardDraft, **fields: object) -> None:
    with world.tx() as tx:
        draft = PlanDraft(key, rate_cards=cards, **fields)  # type: ignore[arg-type]
        catalog_verbs.draft_plan(tx, draft, world.now)
        catalog_verbs.publish_plan(tx, key, "", world.now)


def migrate(world: World, plan_key: str = "free", **wanted: object) -> list[Progress]:
    migration = Migration(plan_key, **wanted)  # type: ignore[arg-type]
    return list(migrate_subscriptions(world.db, world.live, world.tenant_id, migration, world.now))


@contextmanager
def unchanged(world: World) -> Iterator[None]:
    def all_of_it() -> object:
        with world.tx() as tx:
            found = subscriptions.page(tx, None, "", 100)
            held = [entitlements.of_subscription(tx, one.subscription_id) for one in found]
            return found, held

    before = all_of_it()
    yield
    assert all_of_it() == before


def test_a_migration_moves_each_at_its_periods_end_and_is_repeated_for_nothing(world: World) -> None:
    subs = []
    for number, start in enumerate(("2026-03-01T00:00", "2026-03-05T08:00", "2026-03-20T00:00")):
        world.customer(f"customer{number}")
        subs.append(world.subscribe(f"customer{number}", "free", start))
        world.now += timedelta(milliseconds=2)
    world.customer("gone")
    gone = world.subscribe("gone", "free", "2026-03-01T00:00")
    world.cancel(gone, Timing.PERIOD_END)
    publish(world, "free", metered("tokens", "500"), boolean("sso"), boolean("audit"))
    with unchanged(world):
        planned = migrate(world, dry_run=True)
    done = migrate(world)
    assert [one._replace(move=None) for one in planned] == [one._replace(move=None) for one in done]
    assert (done[-1].done_count, done[-1].total_count, done[-1].moved_count) == (4, 4, 3)
    moves = [one.move for one in done if one.move]
    assert [one.subscription.subscription_id for one in moves] == [one.subscription_id for one in subs]
    assert [one.change_time for one in moves] == [
        at("2026-04-01T00:00"),
        at("2026-04-05T08:00"),
        at("2026-04-20T00:00"),
    ]
    with unchanged(world):
        again = migrate(world)
    assert (again[-1].moved_count, again[-1].problem_count, len(again)) == (0, 0, 1)
    world.now = at("2026-04-01T00:00")
    assert exact(world.check("customer0", "tokens").allowance) == 500
    assert exact(world.check("customer1", "tokens").allowance) == 100
    assert migrate(world)[-1].moved_count == 0


def test_a_migration_goes_on_past_problems_and_names_them(world: World) -> None:
    free = world.subscribe("acme", "free", "2026-03-01T00:00")
    world.plan("audits", boolean("audit"))
    blocked_by = world.subscribe("acme", "audits")
    world.now += timedelta(milliseconds=2)
    world.customer("beta")
    beta = world.subscribe("beta", "free", "2026-03-01T00:00")
    publish(world, "free", boolean("audit"))
    done = migrate(world, when=When(Timing.NOW))
    problem, moved = (one.move for one in done if one.move)
    assert problem is not None
    assert moved is not None
    assert problem.subscription.subscription_id == free.subscription_id
    assert problem.problem is not None
    assert problem.problem[1] == "FEATURE_OVERLAP"
    assert blocked_by.subscription_id in problem.problem[0]
    assert (moved.subscription.subscription_id, moved.problem) == (beta.subscription_id, None)
    assert (done[-1].moved_count, done[-1].problem_count) == (1, 1)
    assert not world.check("beta", "sso").access
    assert world.check("beta", "audit").access
    world.cancel(blocked_by, Timing.NOW)
    again = migrate(world, when=When(Timing.NOW))
    assert (again[-1].done_count, again[-1].moved_count, again[-1].problem_count) == (1, 1, 0)


def test_a_migration_that_is_cut_off_goes_on_where_it_stopped(world: World) -> None:
    for number in range(4):
        world.customer(f"customer{number}")
        world.subscribe(f"customer{number}", "free", "2026-03-01T00:00")
    publish(world, "free", boolean("sso"))
    steps = migrate_subscriptions(world.db, world.live, world.tenant_id, Migration("free"), world.now)
    assert [next(steps).moved_count, next(steps).moved_count] == [1, 2]
    steps.close()  # type: ignore[attr-defined]
    assert migrate(world)[-1].moved_count == 2


def test_a_migration_takes_only_the_version_it_was_told(world: World) -> None:
    first = world.subscribe("acme", "free")
    publish(world, "free", boolean("sso"))
    world.customer("beta")
    world.subscribe("beta", "free")
    publish(world, "free", boolean("sso"), boolean("audit"))
    done = migrate(world, from_version=1, to_version=2, when=When(Timing.AT_TIME, at("2026-03-11T00:00")))
    (move,) = (one.move for one in done if one.move)
    assert (move.subscription.subscription_id, move.from_version, move.to_version) == (
        first.subscription_id,
        1,
        2,
    )


def test_migrations_that_cannot_be_are_refused_before_anything(world: World) -> None:
    world.subscribe("acme", "free")
    with world.tx() as tx:
        catalog_verbs.draft_plan(tx, PlanDraft("free"), world.now)
    with unchanged(world):
        with pytest.raises(PreconditionError, match="publish it first"):
            migrate(world, to_version=2)
        with pytest.raises(InvalidInputError, match="to_version"):
            migrate(world, from_version=1)
        with pytest.raises(NotFoundError):
            migrate(world, from_version=7)
        with pytest.raises(NotFoundError):
            migrate(world, "nothing")
        with world.tx() as tx:
            catalog_verbs.publish_plan(tx, "free", "", world.now)
            catalog.get_plan(tx, "free")
        with pytest.raises(InvalidInputError, match="change_time"):
            migrate(world, when=When(Timing.AT_TIME, at("2020-01-01T00:00")))


def test_a_version_of_another_cadence_is_a_problem_of_each(world: World) -> None:
    world.subscribe("acme", "free")
    publish(world, "free", billing_cadence="P1Y")
    done = migrate(world, dry_run=True)
    assert done[-1].problem_count == 1
    assert done[0].move is not None
    assert done[0].move.problem is not None
    assert "each P1Y" in done[0].move.problem[0]


def test_a_subscription_is_changed_to_the_active_version_of_its_own_plan(world: World) -> None:
    sub = world.subscribe("acme", "free", "2026-03-01T00:00")
    with pytest.raises(PreconditionError, match="nothing to change"):
        change(world, sub, "free")
    publish(world, "free", metered("tokens", "100"), boolean("audit"))
    changed = change(world, sub, "free")
    assert [one.plan_version for one in changed.spans] == [1, 2]
    lasting = {one.feature_key: one.to_time for one in given(world, sub)}
    assert lasting == {"tokens": None, "sso": at("2026-03-10T12:00"), "audit": None}


def test_what_happens_at_once_to_one_subscription_happens_one_after_the_other(world: World) -> None:
    sub = world.subscribe("acme", "free", "2026-03-01T00:00")
    start = threading.Barrier(6)
    failed: list[AmmeterError] = []

    def work(number: int) -> None:
        start.wait()
        try:
            if number % 3 == 0:
                change(world, sub, "pro" if number else "free")
            elif number % 3 == 1:
                with world.tx() as tx:
                    set_quantity(tx, world.live, sub.subscription_id, number, PERIOD_END, world.now)
            else:
                world.cancel(sub, Timing.AT_TIME, f"2026-08-{number:02}T00:00")
        except AmmeterError as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {one.reason for one in failed} <= {"WRONG_STATE"}
    with world.tx() as tx:
        found = get_subscription(tx, sub.subscription_id)
    assert found.spans[0].start_time == sub.start_time
    assert all(one.end_time == two.start_time for one, two in pairwise(found.spans))
    assert found.spans[-1].end_time is None
    for feature in ("tokens", "sso", "audit"):
        mine = [
            one for one in given(world, sub) if one.feature_key == feature and one.from_time != one.to_time
        ]
        assert len(mine) <= 1


def test_a_preview_of_a_change_is_refused_for_what_was_given_by_hand(world: World) -> None:
    sub = world.subscribe("acme", "free", "2026-03-01T00:00")
    run = engine_billing(world.db, world.engine, timedelta(days=35))

    def preview() -> None:
        preview_invoice(run, world.tenant_id, "acme", sub.subscription_id, world.now, Wish("pro"))

    with unchanged(world):
        preview()
    with world.tx() as tx:
        create_entitlement(tx, world.live, EntitlementDraft("acme", "audit", "boolean"), world.now)
    with pytest.raises(PreconditionError, match="made by hand, gives audit"):
        preview()
