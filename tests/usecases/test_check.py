"""Checks answer from memory what the database says, after every change."""

import asyncio
import itertools
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest

from ammeter.domain.cancellation import Timing
from ammeter.domain.catalog import Feature
from ammeter.domain.catalog_rules import RateCardDraft
from ammeter.domain.customer import CustomerDraft
from ammeter.domain.entitlement import Reason
from ammeter.domain.minute import minute_of
from ammeter.errors import PreconditionError, UnavailableError
from ammeter.usecases.catalog import create_feature, delete_feature
from ammeter.usecases.check import Check, check, check_all
from ammeter.usecases.customers import create_customer, release_subject
from tests.usecases.world import World, at, exact, metered


@pytest.fixture
def world(new_database: Callable[[], str]) -> Iterator[World]:
    world = World(new_database())
    yield world
    world.close()


def sell_tokens(world: World, allowance: str = "100", *, soft: bool = False, cadence: str = "P1M") -> None:
    world.meter("tokens")
    world.feature("tokens", "tokens")
    world.plan("basic", metered("tokens", allowance, soft=soft), cadence=cadence)
    world.customer("acme", "alice")


def test_each_reason_comes_before_those_that_follow_it(world: World) -> None:
    assert world.check("acme", "tokens").reason is Reason.CUSTOMER_UNKNOWN
    assert world.check_subject("alice", "tokens").reason is Reason.CUSTOMER_UNKNOWN
    world.customer("acme", "alice")
    assert world.check("acme", "tokens").reason is Reason.FEATURE_UNKNOWN
    assert world.check_subject("alice", "tokens").reason is Reason.FEATURE_UNKNOWN
    world.meter("tokens")
    world.feature("tokens", "tokens")
    assert world.check("acme", "tokens").reason is Reason.NOT_ENTITLED
    world.plan("basic", metered("tokens", "1"))
    world.subscribe("acme", "basic", start="2025-03-10T12:01")
    assert world.check("acme", "tokens").reason is Reason.ENTITLEMENT_NOT_ACTIVE
    world.now = at("2025-03-10T12:01")
    assert world.check("acme", "tokens").reason is Reason.ALLOWED
    world.use("alice")
    answer = world.check("acme", "tokens")
    assert (answer.access, answer.reason) == (False, Reason.LIMIT_REACHED)
    assert "allowance" in answer.message


def test_a_check_sees_what_was_used_just_before(world: World) -> None:
    sell_tokens(world)
    world.subscribe("acme", "basic")
    for amount, left in (("10.5", "89.5"), ("89", "0.5"), ("0.5", "0"), ("7", "0")):
        position = world.use("alice", amount)
        answer = world.ask(Check("acme", None, "tokens", None), min_position=position)[0]
        assert exact(answer.balance) == float(left)
    assert exact(answer.overage) == 7
    assert exact(answer.usage) == 107
    assert exact(answer.allowance) == 100


def test_an_amount_needs_as_much_to_be_left(world: World) -> None:
    sell_tokens(world)
    world.subscribe("acme", "basic")
    world.use("alice", "90")
    assert world.check("acme", "tokens", "10").access
    assert not world.check("acme", "tokens", "10.000000000001").access
    world.use("alice", "10")
    assert not world.check("acme", "tokens").access


def test_a_soft_limit_gives_access_and_says_that_it_is_passed(world: World) -> None:
    sell_tokens(world, "10", soft=True)
    world.subscribe("acme", "basic")
    world.use("alice", "11")
    answer = world.check("acme", "tokens")
    assert (answer.access, answer.reason) == (True, Reason.ALLOWED_OVER_SOFT_LIMIT)


def test_boolean_and_static_entitlements_hold_while_the_subscription_runs(world: World) -> None:
    world.feature("sso")
    world.feature("models")
    world.plan(
        "basic",
        RateCardDraft("sso", feature_key="sso", template_kind="boolean"),
        RateCardDraft("models", feature_key="models", template_kind="static", config={"max": 3}),
    )
    world.customer("acme")
    subscription = world.subscribe("acme", "basic")
    assert world.check("acme", "sso").access
    assert world.check("acme", "models").config == '{"max": 3}'
    world.now += timedelta(minutes=5)
    world.cancel(subscription, Timing.NOW)
    assert world.check("acme", "sso").reason is Reason.ENTITLEMENT_NOT_ACTIVE
    assert world.check("acme", "models").reason is Reason.ENTITLEMENT_NOT_ACTIVE


def test_usage_before_the_subscription_is_not_held_against_it(world: World) -> None:
    sell_tokens(world)
    world.use("alice", "40")
    world.subscribe("acme", "basic")
    world.use("alice", "1", world.now - timedelta(minutes=1))
    assert exact(world.check("acme", "tokens").usage) == 40
    world.use("alice", "2")
    assert exact(world.check("acme", "tokens").usage) == 42


def test_each_period_has_the_whole_allowance(world: World) -> None:
    sell_tokens(world)
    world.subscribe("acme", "basic", anchor="2025-01-31T00:00")
    world.use("alice", "100")
    answer = world.check("acme", "tokens")
    assert not answer.access
    assert answer.period_start_minute == minute_of(at("2025-03-10T12:00"))
    assert answer.period_end_minute == minute_of(at("2025-03-31T00:00"))
    world.now = at("2025-03-30T23:59")
    assert not world.check("acme", "tokens").access
    world.now = at("2025-03-31T00:00")
    answer = world.check("acme", "tokens")
    assert exact(answer.balance) == 100
    assert answer.period_end_minute == minute_of(at("2025-04-30T00:00"))
    world.use("alice", "30", at("2025-03-31T00:00"))
    world.use("alice", "5", at("2025-03-30T23:59"))
    assert exact(world.check("acme", "tokens").usage) == 30


def test_a_check_just_after_the_loaded_periods_puts_the_counter_anew(world: World) -> None:
    sell_tokens(world, cadence="P1D")
    world.subscribe("acme", "basic")
    world.now += timedelta(days=20)
    world.use("alice", "3")
    assert exact(world.check("acme", "tokens").usage) == 3
    world.now += timedelta(days=300)
    assert exact(world.check("acme", "tokens").usage) == 0


def test_rolling_keeps_periods_ahead_so_that_no_check_has_to_wait(world: World) -> None:
    sell_tokens(world, cadence="P1D")
    world.subscribe("acme", "basic")
    for hours in range(1, 200):
        world.now += timedelta(hours=1)
        world.live.roll(world.now)
        world.use("alice", "1")
        # Not through check_all, which would put a counter that has run out anew.
        answer = check(world.live, world.tenant_id, Check("acme", None, "tokens", None), minute_of(world.now))
        assert exact(answer.usage) == (hours % 24) + (1 if hours >= 24 else 0)


def test_rolling_forgets_counters_some_time_after_their_end(world: World) -> None:
    sell_tokens(world)
    subscription = world.subscribe("acme", "basic")
    world.now += timedelta(minutes=1)
    world.cancel(subscription, Timing.NOW)
    assert world.engine.stats()["counters"] == 1
    world.now += timedelta(minutes=62)
    world.live.roll(world.now)
    assert world.engine.stats()["counters"] == 0
    assert world.check("acme", "tokens").reason is Reason.ENTITLEMENT_NOT_ACTIVE
    assert world.live.by_id[world.tenant_id, subscription.customer_id].renew_minute > minute_of(
        at("5000-01-01")
    )


def test_a_moved_subject_brings_the_usage_since_the_move_and_nothing_before(world: World) -> None:
    sell_tokens(world)
    world.customer("beta")
    world.subscribe("acme", "basic", start="2025-03-01T00:00")
    world.subscribe("beta", "basic", start="2025-03-01T00:00")
    world.use("alice", "10", at("2025-03-05T09:59"))
    world.use("alice", "20", at("2025-03-05T10:00"))
    world.assign("beta", "alice", "2025-03-05T10:00")
    assert exact(world.check("acme", "tokens").usage) == 10
    assert exact(world.check("beta", "tokens").usage) == 20
    world.use("alice", "1", at("2025-03-05T09:00"))
    world.use("alice", "2")
    assert exact(world.check("acme", "tokens").usage) == 11
    assert exact(world.check("beta", "tokens").usage) == 22
    assert exact(world.check_subject("alice", "tokens").usage) == 22
    world.release("beta", "alice")
    assert world.check_subject("alice", "tokens").reason is Reason.CUSTOMER_UNKNOWN
    world.use("alice", "50")
    assert exact(world.check("beta", "tokens").usage) == 20


def test_a_subject_mapped_later_brings_its_history(world: World) -> None:
    sell_tokens(world)
    world.subscribe("acme", "basic", start="2025-03-01T00:00")
    world.use("bob", "7", at("2025-03-02T00:00"))
    assert exact(world.check("acme", "tokens").usage) == 0
    world.assign("acme", "bob")
    assert exact(world.check("acme", "tokens").usage) == 7


def test_filters_count_only_their_part_of_the_meter(world: World) -> None:
    world.meter("tokens", dimensions=["kind", "model"])
    world.feature("input", "tokens", kind=["in"])
    world.feature("large", "tokens", model=["l", "xl"], kind=["in", "out"])
    world.plan("basic", metered("input", "100"), metered("large", "100"))
    world.customer("acme", "alice")
    world.subscribe("acme", "basic")
    world.use("alice", "1", kind="in", model="s")
    world.use("alice", "2", kind="in", model="l")
    world.use("alice", "4", kind="out", model="xl")
    world.use("alice", "8", kind="other", model="xl")
    assert exact(world.check("acme", "input").usage) == 3
    assert exact(world.check("acme", "large").usage) == 6


@pytest.mark.parametrize(
    ("aggregation", "expected"), [("SUM", 8), ("COUNT", 4), ("UNIQUE_COUNT", 3), ("LATEST", 2), ("MAX", 3)]
)
def test_every_aggregation_that_may_back_a_feature_survives_a_restart(
    world: World, aggregation: str, expected: int
) -> None:
    world.meter("tokens", aggregation)
    world.feature("tokens", "tokens")
    world.plan("basic", metered("tokens", "100"))
    world.customer("acme", "alice", "bob")
    world.customer("other", "zoe")
    world.subscribe("acme", "basic")
    world.subscribe("other", "basic")
    for second, (subject, amount) in enumerate([("alice", "1"), ("bob", "3"), ("bob", "2"), ("alice", "2")]):
        world.use(subject, amount, world.now + timedelta(seconds=second))
        world.use("zoe", "50", world.now + timedelta(seconds=second))
        if second == 1:
            world.checkpoint()
    assert exact(world.check("acme", "tokens").usage) == expected
    world.live.refresh_customer(world.tenant_id, world.live.customers[world.tenant_id, "acme"].customer_id)
    assert exact(world.check("acme", "tokens").usage) == expected
    world.checkpoint()
    world.restart()
    assert exact(world.check("acme", "tokens").usage) == expected
    assert exact(world.check_subject("bob", "tokens").usage) == expected
    assert world.check("acme", "nothing").reason is Reason.FEATURE_UNKNOWN


def test_loading_gives_the_same_answers_as_following(world: World) -> None:
    sell_tokens(world)
    world.feature("sso")
    world.plan("extra", RateCardDraft("sso", feature_key="sso", template_kind="boolean"))
    world.customer("beta", "bob")
    first = world.subscribe("acme", "basic")
    world.subscribe("beta", "extra", start="2025-04-01T00:00")
    world.now += timedelta(days=1)
    world.cancel(first, Timing.NOW)
    world.subscribe("acme", "basic")
    world.assign("beta", "alice")
    followed = world.live
    world.live = type(followed)(world.db, world.engine, lambda: world.now)
    world.live.load()
    assert world.live.customers == followed.customers
    assert world.live.features == followed.features
    assert world.live.by_id == followed.by_id


def test_a_deleted_feature_is_unknown_at_once(world: World) -> None:
    world.feature("sso")
    world.customer("acme")
    assert world.check("acme", "sso").reason is Reason.NOT_ENTITLED
    with world.tx() as tx:
        delete_feature(tx, world.live, "sso")
    assert world.check("acme", "sso").reason is Reason.FEATURE_UNKNOWN


def test_one_tenant_never_sees_another(world: World) -> None:
    sell_tokens(world)
    world.subscribe("acme", "basic")
    answer, _ = asyncio.run(
        check_all(
            world.live, world.tenant_id, [Check("acme", None, "tokens", None)], 0, minute_of(world.now), 0
        )
    )
    assert answer[0].access
    world.engine.open_tenant(world.tenant_id + 1, 0, bytes(32))
    stranger, _ = asyncio.run(
        check_all(
            world.live, world.tenant_id + 1, [Check("acme", None, "tokens", None)], 0, minute_of(world.now), 0
        )
    )
    assert stranger[0].reason is Reason.CUSTOMER_UNKNOWN


def test_a_position_that_does_not_come_is_a_retryable_refusal(world: World) -> None:
    world.customer("acme")
    with pytest.raises(PreconditionError) as caught:
        world.ask(Check("acme", None, "x", None), min_position=1)
    assert caught.value.reason == "POSITION_NOT_REACHED"


def test_a_position_that_comes_in_time_is_waited_for(world: World) -> None:
    sell_tokens(world)
    world.subscribe("acme", "basic")
    timer = threading.Timer(0.05, lambda: world.use("alice", "3"))
    timer.start()
    answer = world.ask(Check("acme", None, "tokens", None), min_position=1)[0]
    timer.join()
    assert exact(answer.usage) == 3


def test_no_check_is_answered_from_memory_that_lags_behind_a_commit(world: World) -> None:
    sell_tokens(world)
    world.subscribe("acme", "basic")
    real, world.live._db = world.live._db, type(world.db)("postgresql://nobody@127.0.0.1:1/none")
    with pytest.raises(UnavailableError):
        world.assign("acme", "bob")
    with pytest.raises(UnavailableError):
        world.check("acme", "tokens")
    world.live._db.close()
    world.live._db = real
    world.use("bob", "9")
    assert exact(world.check("acme", "tokens").usage) == 9
    assert not world.live.behind


def test_counters_stay_exact_while_everything_happens_at_once(world: World) -> None:
    sell_tokens(world, "1000000")
    world.customer("beta")
    acme = world.subscribe("acme", "basic", start="2025-03-01T00:00").customer_id
    beta = world.subscribe("beta", "basic", start="2025-03-01T00:00").customer_id
    world.use("alice", "1000", at("2025-03-02T00:00"))
    done = threading.Event()
    failures: list[BaseException] = []

    def again_and_again(action: Callable[[], object]) -> threading.Thread:
        def run() -> None:
            try:
                while not done.is_set():
                    action()
            except BaseException as error:  # noqa: BLE001 - a thread's failure is the test's
                failures.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    owners = itertools.cycle(["beta", "acme"])
    threads = [
        again_and_again(world.checkpoint),
        again_and_again(lambda: world.live.refresh_customer(world.tenant_id, acme)),
        again_and_again(lambda: world.live.refresh_customer(world.tenant_id, beta)),
        again_and_again(lambda: world.assign(next(owners), "alice", "2025-03-10T12:00")),
    ]
    for _ in range(400):
        world.use("alice", "1", at("2025-03-10T11:59"))
        world.use("alice", "2", at("2025-03-10T12:00"))
        assert exact(world.check("acme", "tokens").usage) >= 1000
    done.set()
    for thread in threads:
        thread.join()
    assert not failures
    world.assign("beta", "alice", "2025-03-10T12:00")
    assert exact(world.check("acme", "tokens").usage) == 1000 + 400
    assert exact(world.check("beta", "tokens").usage) == 800
    world.checkpoint()
    world.restart()
    assert exact(world.check("acme", "tokens").usage) == 1000 + 400
    assert exact(world.check("beta", "tokens").usage) == 800


def test_a_commit_whose_outcome_nobody_was_told_is_found_by_the_next_roll(world: World) -> None:
    sell_tokens(world)
    world.subscribe("acme", "basic")
    world.now += timedelta(minutes=1)
    with world.tx() as tx:
        create_feature(tx, world.live, Feature("unheard", "", "", ()), world.now)
        create_customer(tx, world.live, CustomerDraft("new"), ["carol"], world.now)
        release_subject(tx, world.live, "acme", "alice", None, world.now)
        tx.after_commit.clear()
    assert world.check("new", "unheard").reason is Reason.CUSTOMER_UNKNOWN
    world.now += timedelta(seconds=1)
    world.live.roll(world.now)
    assert world.check("new", "unheard").reason is Reason.NOT_ENTITLED
    assert world.check_subject("alice", "unheard").reason is Reason.CUSTOMER_UNKNOWN
    assert world.check_subject("carol", "tokens").reason is Reason.NOT_ENTITLED


def test_rolling_reads_nothing_again_that_memory_has_seen(world: World) -> None:
    sell_tokens(world)
    world.subscribe("acme", "basic")
    before = world.live.customers[world.tenant_id, "acme"]
    world.live.roll(world.now)
    assert world.live.customers[world.tenant_id, "acme"] is before
