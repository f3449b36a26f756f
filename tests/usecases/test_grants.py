"""Entitlements by hand and their grants: what checks say of them, from memory, after every change."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from fractions import Fraction
from functools import partial

import pytest

from ammeter.domain.cancellation import Timing
from ammeter.domain.customer import CustomerDraft
from ammeter.domain.entitlement import Access, Reason
from ammeter.domain.entitlement_rules import MAX_GRANTS, MAX_RECURRING, EntitlementDraft, GrantDraft
from ammeter.domain.minute import minute_of
from ammeter.errors import AmmeterError, InvalidInputError, NotFoundError, PreconditionError
from ammeter.store import entitlements, subscriptions
from ammeter.store.entitlements import Held
from ammeter.store.grants import StoredGrant
from ammeter.usecases import customers, entitle, grants
from ammeter.usecases.catalog import delete_feature
from ammeter.usecases.check import Check, check
from tests.usecases.world import World, at, exact, metered


@pytest.fixture
def world(new_database: Callable[[], str]) -> Iterator[World]:
    world = World(new_database())
    yield world
    world.close()


METERED = EntitlementDraft("acme", "tokens", "metered", allowance="10", cadence="P1D")


def prepare(world: World, aggregation: str = "SUM") -> None:
    world.meter("tokens", aggregation)
    world.feature("tokens", "tokens")
    world.customer("acme", "alice")


def entitled(world: World, **changes: object) -> Held:
    with world.tx() as tx:
        return entitle.create_entitlement(tx, world.live, replace(METERED, **changes), world.now)  # type: ignore[arg-type]


def granted(world: World, held: Held | str, amount: str = "5", **changes: object) -> StoredGrant:
    entitlement_id = held if isinstance(held, str) else held.entitlement.entitlement_id
    draft = replace(GrantDraft(entitlement_id, amount), **changes)  # type: ignore[arg-type]
    with world.tx() as tx:
        return grants.create_grant(tx, world.live, draft, world.now)


def void(world: World, stored: StoredGrant, time: datetime | None = None) -> StoredGrant:
    with world.tx() as tx:
        return grants.void_grant(tx, world.live, stored.grant.grant_id, time, world.now)


def reset(world: World, held: Held, time: datetime | None = None, *, move: bool = False) -> None:
    with world.tx() as tx:
        entitlement_id = held.entitlement.entitlement_id
        grants.reset_usage(
            tx,
            world.live,
            entitlement_id,
            time,
            moves_anchor=move,
            preserve_overage=None,
            now=world.now,
        )


def balance(world: World) -> Fraction:
    """What is left; memory built anew from the database says the same."""
    found = world.check("acme", "tokens")
    followed = world.live
    world.live = type(followed)(world.db, world.engine, lambda: world.now)
    world.live.load()
    assert world.check("acme", "tokens") == found
    return exact(found.balance) - exact(found.overage)


def refused(call: Callable[[], object]) -> AmmeterError:
    with pytest.raises(AmmeterError) as caught:
        call()
    return caught.value


def fields(call: Callable[[], object]) -> set[str]:
    error = refused(call)
    assert isinstance(error, InvalidInputError), error
    return {violation.field for violation in error.violations}


# Entitlements by hand


def test_an_entitlement_by_hand_answers_from_its_start_to_its_end(world: World) -> None:
    prepare(world)
    entitled(world, from_time=at("2025-03-10T13:00"), to_time=at("2025-03-12T00:00"))
    assert world.check("acme", "tokens").reason is Reason.ENTITLEMENT_NOT_ACTIVE
    world.now = at("2025-03-10T13:00")
    world.use("alice", "4")
    assert balance(world) == 6
    world.now = at("2025-03-11T13:00")
    assert balance(world) == 10
    world.now = at("2025-03-12T00:00")
    assert world.check("acme", "tokens").reason is Reason.ENTITLEMENT_NOT_ACTIVE


def test_its_periods_may_be_those_of_a_subscription(world: World) -> None:
    prepare(world)
    world.feature("seats")
    world.plan("basic", cadence="P1W")
    subscription = world.subscribe("acme", "basic", anchor="2025-03-03T06:00")
    entitled(world, cadence="", subscription_id=subscription.subscription_id)
    found = world.check("acme", "tokens")
    assert found.period_end_minute == minute_of(at("2025-03-17T06:00"))
    world.now += timedelta(hours=1)
    world.cancel(subscription, Timing.NOW)
    assert world.check("acme", "tokens").access, "it lives on: it was made by hand"


def test_boolean_and_static_ones_answer_at_once(world: World) -> None:
    world.feature("tokens")
    world.customer("acme")
    entitled(world, kind="boolean", allowance="", cadence="")
    assert world.check("acme", "tokens") == Access(access=True, reason=Reason.ALLOWED)
    with world.tx() as tx:
        draft = EntitlementDraft("acme", "tokens", "static", config={"max": 3})
        entitle.override_entitlement(tx, world.live, draft, world.now)
    assert world.check("acme", "tokens").config == '{"max": 3}'


def test_a_customer_has_one_entitlement_to_a_feature_at_a_time(world: World) -> None:
    prepare(world)
    world.plan("basic", metered("tokens", "100"))
    subscription = world.subscribe("acme", "basic")
    assert refused(lambda: entitled(world)).reason == "FEATURE_OVERLAP"
    world.now += timedelta(minutes=1)
    world.cancel(subscription, Timing.NOW)
    first = entitled(world, to_time=world.now + timedelta(days=2))
    assert refused(lambda: entitled(world)).reason == "FEATURE_OVERLAP"
    assert refused(lambda: world.subscribe("acme", "basic")).reason == "FEATURE_OVERLAP"
    entitled(world, from_time=first.entitlement.to_time)


def test_a_deleted_entitlement_answers_no_more_and_leaves_room(world: World) -> None:
    prepare(world)
    held = entitled(world)
    world.now += timedelta(minutes=5)
    with world.tx() as tx:
        entitle.delete_entitlement(tx, world.live, held.entitlement.entitlement_id, world.now)
    assert world.check("acme", "tokens").reason is Reason.ENTITLEMENT_NOT_ACTIVE
    again = refused(lambda: delete(world, held))
    assert again.reason == "WRONG_STATE"
    entitled(world)
    assert world.check("acme", "tokens").access


def delete(world: World, held: Held) -> None:
    with world.tx() as tx:
        entitle.delete_entitlement(tx, world.live, held.entitlement.entitlement_id, world.now)


def test_an_entitlement_deleted_before_it_began_never_begins(world: World) -> None:
    prepare(world)
    held = entitled(world, from_time=world.now + timedelta(days=1))
    delete(world, held)
    entitled(world, from_time=world.now + timedelta(hours=1))


def test_an_override_ends_a_plans_entitlement_for_good(world: World) -> None:
    prepare(world)
    world.plan("basic", metered("tokens", "100"))
    subscription = world.subscribe("acme", "basic")
    world.use("alice", "30")
    world.now += timedelta(minutes=10)
    with world.tx() as tx:
        made, overridden = entitle.override_entitlement(tx, world.live, METERED, world.now)
    assert made.entitlement.from_time == overridden.entitlement.to_time == world.now
    assert balance(world) == 10
    world.cancel(subscription, Timing.PERIOD_END)
    assert balance(world) == 10
    world.now = at("2025-04-11T00:00")
    assert balance(world) == 10
    with world.tx() as tx:
        stored = subscriptions.get(tx, subscription.subscription_id)
    assert stored is not None
    assert stored.end_time == at("2025-04-10T12:00")


def test_what_is_not_there_is_not_overridden_nor_the_past(world: World) -> None:
    prepare(world)

    def override(**changes: object) -> None:
        with world.tx() as tx:
            entitle.override_entitlement(tx, world.live, replace(METERED, **changes), world.now)  # type: ignore[arg-type]

    assert refused(override).reason == "WRONG_STATE"
    entitled(world, from_time=world.now - timedelta(days=1))
    assert fields(lambda: override(from_time=world.now - timedelta(minutes=1))) == {"entitlement.from_time"}
    override(from_time=world.now + timedelta(minutes=1))


def test_every_fault_of_an_entitlement_is_named(world: World) -> None:
    prepare(world)
    world.feature("sso")
    path = "entitlement.metered"
    for changes, expected in (
        ({"allowance": "-1"}, {f"{path}.allowance"}),
        ({"allowance": "much", "cadence": "P1X"}, {f"{path}.allowance", f"{path}.usage_period.cadence"}),
        ({"cadence": ""}, {f"{path}.usage_period"}),
        ({"anchor_time": at("1999-01-01T00:00")}, {f"{path}.usage_period.anchor_time"}),
        ({"feature_key": "sso"}, {"entitlement.feature_key"}),
        ({"kind": ""}, {"entitlement.kind"}),
        ({"from_time": at("2024-01-01T00:00")}, {"entitlement.from_time"}),
        ({"to_time": world.now}, {"entitlement.to_time"}),
        ({"subscription_id": "sub_x"}, {"entitlement.subscription_id"}),
    ):
        assert fields(partial(entitled, world, **changes)) == expected, changes
    for changes in ({"customer_key": "x"}, {"feature_key": "x"}, {"cadence": "", "subscription_id": "sub_x"}):
        assert isinstance(refused(partial(entitled, world, **changes)), NotFoundError)


def test_overage_of_a_level_cannot_be_preserved(world: World) -> None:
    prepare(world, "LATEST")
    assert fields(lambda: entitled(world, preserve_overage=True)) == {"entitlement.metered.preserve_overage"}


def test_the_zone_that_periods_follow_stays(world: World) -> None:
    prepare(world)
    entitled(world)

    def move() -> None:
        with world.tx() as tx:
            customers.update_customer(tx, CustomerDraft("acme", time_zone="Asia/Tokyo"), (), "", world.now)

    assert refused(move).reason == "WRONG_STATE"


def test_a_feature_that_somebody_is_entitled_to_stays(world: World) -> None:
    prepare(world)
    entitled(world)

    def remove() -> None:
        with world.tx() as tx:
            delete_feature(tx, world.live, "tokens")

    assert refused(remove).reason == "IN_USE"


# Grants


def test_a_grant_on_a_plans_allowance_burns_after_it(world: World) -> None:
    prepare(world)
    world.plan("basic", metered("tokens", "10"))
    world.subscribe("acme", "basic")
    world.use("alice", "8")
    held = world.live.customers[world.tenant_id, "acme"]
    with world.tx() as tx:
        (entitlement,) = entitlements.page(tx, held.customer_id, "", 9)
    granted(world, entitlement.entitlement_id, "5")
    found = world.check("acme", "tokens")
    assert [exact(each) for each in (found.balance, found.allowance, found.usage)] == [7, 10, 8]
    world.use("alice", "4")
    assert balance(world) == 3
    # Without a maximum what is left of the grant rolls over.
    world.now = at("2025-04-10T12:00")
    assert balance(world) == 13
    world.use("alice", "1", at("2025-04-10T11:59"))
    assert balance(world) == 12


def test_time_alone_starts_and_ends_grants(world: World) -> None:
    prepare(world)
    held = entitled(world, allowance="", cadence="P1M")
    granted(
        world,
        held,
        "5",
        effective_time=world.now + timedelta(minutes=10),
        expire_time=world.now + timedelta(minutes=20),
    )
    begin = world.now
    for minutes, left in ((0, 0), (9, 0), (10, 5), (19, 5), (20, 0)):
        # Straight from memory: nothing happens but the time.
        answer = check(
            world.live,
            world.tenant_id,
            Check("acme", None, "tokens", None),
            minute_of(begin + timedelta(minutes=minutes)),
        )
        assert exact(answer.balance) == left
        assert answer.access == (left > 0)


def test_late_use_corrects_what_every_later_span_begins_with(world: World) -> None:
    prepare(world)
    held = entitled(world, preserve_overage=True)
    granted(world, held, "5", effective_time=world.now + timedelta(hours=1), rollover_maximum="2")
    start = world.now
    world.use("alice", "12")
    assert balance(world) == -2
    world.now = start + timedelta(hours=1)
    assert balance(world) == 3
    world.now = start + timedelta(days=1)
    assert balance(world) == 12
    world.use("alice", "3", start + timedelta(minutes=5))
    assert balance(world) == 10
    world.use("alice", "4", start + timedelta(hours=2))
    assert balance(world) == 6
    world.use("alice", "-1", start + timedelta(hours=3))
    world.use("alice", "1", start + timedelta(hours=4))
    assert balance(world) == 6


def test_opposite_late_events_in_two_spans_are_both_seen(world: World) -> None:
    prepare(world)
    held = entitled(world, allowance="", cadence="P1M")
    granted(world, held, "5", expire_time=world.now + timedelta(hours=1))
    granted(world, held, "5")
    start = world.now
    world.now = start + timedelta(hours=2)
    assert balance(world) == 5
    world.use("alice", "2", start + timedelta(hours=1, minutes=30))
    assert balance(world) == 3
    # The period's usage is as before, but the grant that has expired paid.
    world.use("alice", "2", start + timedelta(minutes=30))
    world.use("alice", "-2", start + timedelta(hours=1, minutes=30))
    assert balance(world) == 5


def test_subjects_of_others_are_not_counted(world: World) -> None:
    prepare(world)
    world.customer("beta", "bob")
    held = entitled(world)
    granted(world, held)
    world.use("bob", "7")
    world.use("nobody", "7")
    assert balance(world) == 15


def test_a_void_counts_from_its_own_minute(world: World) -> None:
    prepare(world)
    held = entitled(world, allowance="", cadence="P1M")
    first, _ = granted(world, held, "10"), granted(world, held, "10", priority=1)
    start = world.now
    world.use("alice", "4")
    world.use("alice", "3", start + timedelta(minutes=60))
    world.now = start + timedelta(minutes=90)
    assert balance(world) == 13
    voided = void(world, first, start + timedelta(minutes=30))
    assert voided.void_time == world.now
    assert balance(world) == 7
    assert refused(lambda: void(world, first)).reason == "WRONG_STATE"


def test_voids_of_what_is_closed_or_ahead_are_refused(world: World) -> None:
    prepare(world)
    held = entitled(world)
    short = granted(world, held, expire_time=world.now + timedelta(minutes=5))
    grant = granted(world, held)
    world.now += timedelta(days=1, hours=1)
    assert refused(lambda: void(world, short)).reason == "WRONG_STATE"
    assert fields(lambda: void(world, grant, world.now - timedelta(hours=2))) == {"void_time"}
    assert fields(lambda: void(world, grant, world.now + timedelta(minutes=2))) == {"void_time"}
    unborn = granted(world, held, effective_time=world.now + timedelta(days=1))
    void(world, unborn)
    assert balance(world) == 15
    world.now += timedelta(days=2)
    assert balance(world) == 15


def test_a_back_dated_reset_counts_anew_from_its_minute(world: World) -> None:
    prepare(world)
    held = entitled(world)
    start = world.now
    world.use("alice", "6")
    world.use("alice", "2", start + timedelta(hours=1))
    world.now = start + timedelta(hours=2)
    assert balance(world) == 2
    reset(world, held, start + timedelta(minutes=30))
    assert balance(world) == 8
    found = world.check("acme", "tokens")
    assert found.period_start_minute == minute_of(start + timedelta(minutes=30))
    assert found.period_end_minute == minute_of(start + timedelta(days=1))
    reset(world, held, move=True)
    found = world.check("acme", "tokens")
    assert found.period_end_minute == minute_of(world.now + timedelta(days=1))
    assert exact(found.balance) == 10
    for minutes in (0, 30):
        time = start + timedelta(minutes=minutes)
        assert fields(partial(reset, world, held, time)) == {"reset_time"}
    assert fields(lambda: reset(world, held, world.now + timedelta(minutes=1))) == {"reset_time"}


def test_a_recurring_grant_is_whole_again_without_any_event(world: World) -> None:
    prepare(world)
    held = entitled(world, allowance="", cadence="P1M")
    granted(world, held, "5", recurs=True, cadence="P1W")
    world.use("alice", "9")
    assert balance(world) == -4
    world.now += timedelta(days=7)
    assert balance(world) == 1
    world.now += timedelta(days=7)
    assert balance(world) == 5


@pytest.mark.parametrize(
    ("aggregation", "left"), [("COUNT", 5), ("UNIQUE_COUNT", 7), ("LATEST", 9), ("MAX", 6)]
)
def test_every_aggregation_burns_grants(world: World, aggregation: str, left: int) -> None:
    prepare(world, aggregation)
    held = entitled(world, allowance="5", cadence="P1M")
    granted(world, held, "5", effective_time=world.now + timedelta(hours=1))
    start = world.now
    for minutes, value in ((0, "4"), (5, "2"), (65, "4"), (70, "2"), (75, "1")):
        world.use("alice", value, start + timedelta(minutes=minutes))
    world.checkpoint()
    world.now = start + timedelta(hours=2)
    assert balance(world) == left


def test_rolling_renews_long_histories_too(world: World) -> None:
    prepare(world)
    held = entitled(world)
    granted(world, held, "100")
    for _ in range(99):
        world.now += timedelta(hours=1)
        world.live.roll(world.now)
        world.use("alice", "1")
    # Not through check_all, which would put a counter that has run out anew.
    answer = check(world.live, world.tenant_id, Check("acme", None, "tokens", None), minute_of(world.now))
    # 23, 24, 24 and 24 in the days that are over, of which the allowance paid 10 each; 4 today.
    assert exact(answer.balance) == 10 - 4 + 100 - 13 - 3 * 14
    assert balance(world) == exact(answer.balance)


def test_every_fault_of_a_grant_is_named(world: World) -> None:
    prepare(world)
    held = entitled(world, to_time=world.now + timedelta(days=9))
    for changes, expected in (
        ({"amount": "0"}, {"grant.amount"}),
        ({"amount": "-1", "priority": 1001}, {"grant.amount", "grant.priority"}),
        ({"amount": "", "rollover_minimum": "-1"}, {"grant.amount", "grant.rollover_minimum"}),
        ({"rollover_minimum": "3", "rollover_maximum": "2"}, {"grant.rollover_minimum"}),
        ({"effective_time": world.now - timedelta(minutes=1)}, {"grant.effective_time"}),
        ({"effective_time": world.now + timedelta(days=9)}, {"grant.effective_time"}),
        ({"expire_time": world.now}, {"grant.expire_time"}),
        ({"recurs": True, "cadence": ""}, {"grant.recurrence.cadence"}),
        (
            {"recurs": True, "cadence": "P1D", "anchor_time": at("1990-01-01T00:00")},
            {"grant.recurrence.anchor_time"},
        ),
    ):
        assert fields(partial(granted, world, held, **changes)) == expected, changes
    assert isinstance(refused(lambda: granted(world, "ent_x")), NotFoundError)
    world.feature("sso")
    boolean = entitled(world, feature_key="sso", kind="boolean", allowance="", cadence="")
    assert fields(lambda: granted(world, boolean)) == {"grant.entitlement_id"}
    world.now += timedelta(days=9)
    assert refused(lambda: granted(world, held)).reason == "WRONG_STATE"


def test_a_million_tiny_grants_are_refused_after_a_bounded_number(world: World) -> None:
    prepare(world)
    held = entitled(world)
    for _ in range(MAX_RECURRING):
        granted(world, held, "1", recurs=True, cadence="P1D")
    error = refused(lambda: granted(world, held, "1", recurs=True, cadence="P1D"))
    assert error.reason == "LIMIT_EXCEEDED"
    for _ in range(MAX_GRANTS - MAX_RECURRING):
        granted(world, held, "1")
    error = refused(lambda: granted(world, held))
    assert (type(error), error.reason) == (InvalidInputError, "LIMIT_EXCEEDED")
    assert balance(world) == 10 + MAX_GRANTS


def test_ended_entitlements_take_no_resets(world: World) -> None:
    prepare(world)
    held = entitled(world, to_time=world.now + timedelta(days=1))
    world.now += timedelta(days=1)
    assert isinstance(refused(lambda: reset(world, held)), PreconditionError)
