"""What passing time alone tells, and what a death in between leaves to be told."""

from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest

from ammeter.domain.entitlement_rules import GrantDraft
from ammeter.domain.threshold import ThresholdKind
from ammeter.store import chain, entitlements
from ammeter.store import notifications as store
from ammeter.store.notifications import Told, Wanted
from ammeter.usecases.grants import create_grant
from ammeter.usecases.herald import Herald
from ammeter.usecases.thresholds import create_threshold
from tests.usecases.world import World, at, metered


class HeraldWorld(World):
    """A world with a herald."""

    def __init__(self, database_url: str) -> None:
        super().__init__(database_url, now="2025-03-10T12:00")
        self.meter("tokens")
        self.feature("tokens", "tokens")
        self.plan("basic", metered("tokens", "100"), cadence="P1D")
        self.customer("acme", "alice")
        self.new_herald()

    def new_herald(self) -> None:
        with self.db.engine() as conn:
            epoch = chain.epoch(conn)
        self.herald = Herald(self.db, self.live, epoch)
        self.live.listeners = [self.herald.customer_changed]
        self.herald.begin(self.now)

    def rule(self, kind: str, amount: str = "", percent: str = "") -> str:
        with self.tx() as tx:
            made = create_threshold(
                tx,
                ("", ""),
                ThresholdKind(kind),
                (amount, percent),
                self.herald.rules_changed,
                self.now,
            )
        return made.threshold_id

    def look(self) -> list[tuple[str, str]]:
        """Look now; returns (kind, period's start) of what was told by this look."""
        before = len(self.told())
        self.herald.look(self.engine.take_touched(), self.now)
        return [(one.rule.kind.value, _day(one)) for one in self.told()[before:]]

    def told(self) -> list[Told]:
        with self.tx() as tx:
            return store.page(tx, Wanted(0, "", "", ""), 1000)

    def entitlement_id(self) -> str:
        with self.tx() as tx:
            held = next(entitlements.held(tx.conn, (self.tenant_id, [*_ids(self)])))
        return held.entitlement.entitlement_id


def _ids(world: World) -> list[int]:
    return [customer_id for tenant, customer_id in world.live.by_id if tenant == world.tenant_id]


def _day(one: Told) -> str:
    return (at("1970-01-01T00:00") + timedelta(minutes=one.start_minute)).strftime("%d %H:%M")


@pytest.fixture
def world(new_database: Callable[[], str]) -> Iterator[HeraldWorld]:
    world = HeraldWorld(new_database())
    yield world
    world.close()


def pass_time(world: World, **step: int) -> None:
    world.now += timedelta(**step)


def test_a_reset_is_told_when_its_minute_comes_though_nobody_did_anything(world: HeraldWorld) -> None:
    world.subscribe("acme", "basic", start="2025-03-10T12:00")
    world.rule("RESET")
    assert world.look() == []
    pass_time(world, hours=23, minutes=59)
    assert world.look() == []
    pass_time(world, minutes=1)
    assert world.look() == [("RESET", "11 12:00")]
    pass_time(world, minutes=5)
    assert world.look() == []
    pass_time(world, days=1)
    assert world.look() == [("RESET", "12 12:00")]


def test_a_period_that_begins_makes_everything_new(world: HeraldWorld) -> None:
    world.subscribe("acme", "basic", start="2025-03-10T12:00")
    world.rule("EXHAUSTED")
    world.use("alice", "100")
    assert world.look() == [("EXHAUSTED", "10 12:00")]
    pass_time(world, days=1)
    assert world.look() == []
    world.use("alice", "99")
    assert world.look() == []
    world.use("alice", "1")
    assert world.look() == [("EXHAUSTED", "11 12:00")]


def test_what_came_in_a_periods_last_moment_is_told_after_it(world: HeraldWorld) -> None:
    world.subscribe("acme", "basic", start="2025-03-10T12:00")
    world.rule("USAGE", amount="10")
    world.look()
    pass_time(world, days=1, minutes=30)
    world.use("alice", "10", at("2025-03-11T11:59"))
    assert world.look() == [("USAGE", "10 12:00")]
    pass_time(world, hours=2)
    world.use("alice", "500", at("2025-03-11T11:58"))
    assert world.look() == []


def test_a_grant_that_ends_or_begins_is_told_by_time_alone(world: HeraldWorld) -> None:
    world.subscribe("acme", "basic", start="2025-03-10T12:00")
    with world.tx() as tx:
        span = (at("2025-03-10T12:10"), at("2025-03-10T12:20"))
        draft = GrantDraft(world.entitlement_id(), "50", 0, *span)
        create_grant(tx, world.live, draft, world.now)
    world.rule("USAGE", percent="60")
    world.rule("BALANCE", amount="60")
    world.use("alice", "70")
    assert world.look() == [("USAGE", "10 12:00")]
    pass_time(world, minutes=9)
    assert world.look() == []
    pass_time(world, minutes=1)
    assert world.look() == [("BALANCE", "10 12:00")], "80 are left when the grant is there"


def test_who_takes_over_tells_what_was_not_told_and_nothing_twice(world: HeraldWorld) -> None:
    world.subscribe("acme", "basic", start="2025-03-10T12:00")
    world.rule("USAGE", amount="10")
    world.rule("USAGE", amount="20")
    world.use("alice", "10")
    assert world.look() == [("USAGE", "10 12:00")]
    world.use("alice", "10")
    world.checkpoint()
    world.restart()
    world.new_herald()
    assert world.look() == [("USAGE", "10 12:00")]
    world.new_herald()
    assert world.look() == []


def test_a_writer_that_was_replaced_tells_nothing(world: HeraldWorld) -> None:
    world.subscribe("acme", "basic", start="2025-03-10T12:00")
    world.rule("EXHAUSTED")
    world.look()
    world.use("alice", "100")
    stale = Herald(world.db, world.live, 10**9)
    stale.begin(world.now)
    stale.look(world.engine.take_touched(), world.now)
    assert world.told() == []
    world.new_herald()
    assert world.look() == [("EXHAUSTED", "10 12:00")]


def test_entitlements_that_come_later_are_looked_at_when_they_begin(world: HeraldWorld) -> None:
    world.rule("BALANCE", amount="100")
    assert world.look() == []
    world.subscribe("acme", "basic", start="2025-03-10T12:05")
    assert world.look() == []
    pass_time(world, minutes=5)
    assert world.look() == [("BALANCE", "10 12:05")]
