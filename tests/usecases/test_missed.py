"""What was reached before a reset is told by whoever comes after it, once; and what came too late is not."""

from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest

from ammeter.domain.cancellation import Timing
from ammeter.domain.entitlement_rules import GrantDraft
from ammeter.domain.minute import minute_of
from ammeter.usecases.grants import create_grant
from tests.usecases.test_herald import HeraldWorld, _day
from tests.usecases.world import at


class LaterWorld(HeraldWorld):
    """A world whose server goes away and comes back."""

    def away(self, **step: int) -> list[tuple[str, str]]:
        """Be away for a time after the last usage; returns what is told by whoever comes back."""
        last = self.now
        self.checkpoint()
        self.now += timedelta(**step)
        self.restart()
        self.new_herald()
        missed = self.herald._missed
        # No segments are written in this world: say when the last one was.
        missed._waiting = type(missed._waiting)(
            (tenant_id, minute_of(last) - 60, customers) for tenant_id, _, customers in missed._waiting
        )
        before = len(self.told())
        for _ in range(3):
            self.herald.look(self.engine.take_touched(), self.now)
        return sorted((one.rule.kind.value, _day(one)[:2]) for one in self.told()[before:])


@pytest.fixture
def world(new_database: Callable[[], str]) -> Iterator[LaterWorld]:
    world = LaterWorld(new_database())
    yield world
    world.close()


def test_what_was_reached_in_the_last_moment_is_told_days_later(world: LaterWorld) -> None:
    world.subscribe("acme", "basic", start="2025-03-10T12:00")
    world.rule("EXHAUSTED")
    world.rule("USAGE", percent="50")
    assert world.look() == []
    world.use("alice", "60")
    world.now += timedelta(hours=23)
    world.use("alice", "40")
    assert world.away(days=3) == [("EXHAUSTED", "10"), ("USAGE", "10")]
    assert world.away(days=0) == [], "and once"


def test_every_reset_that_went_by_is_told(world: LaterWorld) -> None:
    world.subscribe("acme", "basic", start="2025-03-10T12:00")
    world.rule("RESET")
    world.rule("BALANCE", amount="150")
    with world.tx() as tx:
        span = (at("2025-03-12T12:10"), at("2025-03-12T12:20"))
        create_grant(tx, world.live, GrantDraft(world.entitlement_id(), "70", 0, *span), world.now)
    assert world.look() == []
    assert world.away(days=4, hours=2) == [("RESET", day) for day in ("11", "12", "13", "14")]


def test_a_rule_made_later_tells_nothing_of_what_had_ended(world: LaterWorld) -> None:
    world.subscribe("acme", "basic", start="2025-03-10T12:00")
    world.use("alice", "100")
    world.now += timedelta(days=2)
    world.rule("EXHAUSTED")
    assert world.look() == []
    assert world.away(minutes=1) == []


def test_usage_that_came_too_late_is_not_told_after_a_restart_either(world: LaterWorld) -> None:
    world.subscribe("acme", "basic", start="2025-03-10T12:00")
    world.rule("EXHAUSTED")
    assert world.look() == []
    world.now += timedelta(days=1, hours=2)
    world.use("alice", "100", at("2025-03-11T11:59"))
    assert world.look() == []
    assert world.away(hours=1) == []


def test_an_entitlement_that_ended_meanwhile_is_looked_at_too(world: LaterWorld) -> None:
    subscription = world.subscribe("acme", "basic", start="2025-03-10T12:00")
    world.rule("EXHAUSTED")
    assert world.look() == []
    world.cancel(subscription, Timing.PERIOD_END)
    world.use("alice", "100")
    assert world.away(days=10) == [("EXHAUSTED", "10")]
