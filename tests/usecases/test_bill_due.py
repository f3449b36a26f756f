"""What the billing worker does when it looks, under a clock that the test moves."""

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from decimal import Decimal

import pytest

from ammeter.domain.invoice import State
from ammeter.domain.profile import IssueMode
from ammeter.store import clocks
from ammeter.store.db import Database
from ammeter.usecases.bill_due import Due, bill_due
from tests.usecases.billing_world import World, flat, lines, unit, utc

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)


@pytest.fixture
def db(new_database: Callable[[], str]) -> Iterator[Database]:
    one = Database(new_database())
    yield one
    one.close()


@pytest.fixture
def world(db: Database) -> World:
    return World(db)


def automatic(world: World, grace: timedelta = DAY) -> None:
    world.profile(issue_mode=IssueMode.AUTOMATIC, grace_seconds=int(grace.total_seconds()))


def test_without_a_profile_nothing_happens(world: World) -> None:
    world.subscribe(world.plan(flat("20")), utc(2026, 1, 1))
    world.now = utc(2026, 6, 1)
    assert world.due() == Due(0, 0)
    world.profile(issue_mode=IssueMode.MANUAL)
    assert world.due() == Due(0, 0)
    assert world.all() == []


def test_a_draft_is_made_at_the_periods_end_and_issued_after_the_grace_with_what_came_in_it(
    world: World,
) -> None:
    automatic(world)
    sub = world.subscribe(world.plan(unit("0.5")), utc(2026, 1, 1))
    world.use(sub, utc(2026, 1, 31), 3)
    seen: list[tuple[datetime, int, int]] = []
    for hour in range(72):
        world.now = utc(2026, 1, 31) + hour * HOUR
        if world.now == utc(2026, 2, 1, 23):
            world.use(sub, utc(2026, 1, 30), 4)
        done = world.due()
        if any(done):
            seen.append((world.now, *done))
    assert seen == [(utc(2026, 2, 1), 1, 0), (utc(2026, 2, 2), 0, 1)]
    [issued] = world.all()
    assert (issued.state, issued.issue_time) == (State.ISSUED, utc(2026, 2, 2))
    assert lines(issued) == [("usage", "card0", 0, "7", "3.50")]


def test_drafts_that_need_approval_wait_and_a_customers_own_mode_wins(world: World) -> None:
    world.profile(issue_mode=IssueMode.APPROVAL)
    plan = world.plan(flat("20"))
    waiting, going, by_hand = (world.subscribe(plan, utc(2026, 1, 1)) for _ in range(3))
    world.profile(going.customer_key, issue_mode=IssueMode.AUTOMATIC)
    world.profile(by_hand.customer_key, issue_mode=IssueMode.MANUAL)
    world.now = utc(2026, 2, 10)
    assert world.due() == Due(2, 1)
    states = {one.customer_key: one.state for one in world.all()}
    assert states == {waiting.customer_key: State.DRAFT, going.customer_key: State.ISSUED}
    world.profile(issue_mode=IssueMode.AUTOMATIC)
    assert world.due() == Due(0, 1), "the one that waited"
    world.profile(by_hand.customer_key)
    assert world.due() == Due(1, 1), "and the one that nobody looked at"


def test_periods_missed_while_nothing_ran_are_made_up_for(world: World) -> None:
    automatic(world)
    world.subscribe(world.plan(flat("20")), utc(2026, 1, 1))
    world.now = utc(2026, 5, 1, 12)
    assert world.due() == Due(4, 3), "the last one's grace runs"
    assert world.due() == Due(0, 0)


def test_a_cancelled_subscription_is_billed_at_its_end_and_then_for_what_came_late(world: World) -> None:
    automatic(world, HOUR)
    sub = world.subscribe(world.plan(flat("31"), unit("1")), utc(2026, 1, 1))
    world.now = utc(2026, 1, 10)
    assert world.due() == Due(0, 0)
    sub = world.end(sub, utc(2026, 1, 11))
    world.now = utc(2026, 1, 11, 1)
    assert world.due() == Due(1, 1)
    world.use(sub, utc(2026, 1, 5), 3)
    world.now += DAY
    assert world.due() == Due(1, 0), "late usage, looked for daily, in a draft that waits for more"
    world.use(sub, utc(2026, 1, 5), 4)
    world.now += HOUR
    assert world.due() == Due(0, 1)
    assert lines(world.all()[-1]) == [("late_usage", "card1", 0, "7", "7.00")]
    world.now += timedelta(days=100)
    world.due()
    asked = world.questions.total()
    world.now += timedelta(days=100)
    world.due()
    assert world.questions.total() == asked, "in the end nobody looks any more"
    world.use(sub, utc(2026, 1, 6), 1)
    world.subjects_changed(sub)
    assert world.due().made == 1, "unless the customer was given another subject's usage"


def test_what_is_billed_in_advance_is_issued_as_soon_as_a_subscription_begins(world: World) -> None:
    automatic(world)
    world.subscribe(world.plan(flat("20"), advance=[0]), utc(2026, 1, 1))
    world.now = utc(2025, 12, 31)
    assert world.due() == Due(0, 0)
    world.now = utc(2026, 1, 1)
    assert world.due() == Due(1, 1)
    world.now = utc(2026, 2, 1)
    assert world.due() == Due(1, 0), "the next one waits for usage that comes late"


def test_a_void_invoice_is_made_again_by_the_next_look(world: World) -> None:
    automatic(world, HOUR)
    world.subscribe(world.plan(flat("20")), utc(2026, 1, 1))
    world.now = utc(2026, 2, 2)
    world.due()
    [issued] = world.all()
    world.void(issued)
    assert world.due() == Due(1, 1)
    again = max(world.all(), key=lambda one: one.number or 0)
    assert again.replaces_invoice_id == issued.invoice_id


def test_what_cannot_be_billed_yet_is_put_off_and_holds_up_nothing(world: World) -> None:
    automatic(world, HOUR)
    world.subscribe(world.plan(unit("1"), served=False), utc(2026, 1, 1))
    world.subscribe(world.plan(flat("20")), utc(2026, 1, 1))
    world.now = utc(2026, 2, 2)
    assert world.due() == Due(1, 1)
    assert world.due() == Due(0, 0)


def test_a_clock_that_was_set_back_during_a_look_is_not_set_forward(world: World) -> None:
    sub = world.subscribe(world.plan(unit("1")), utc(2026, 1, 1))
    with world.db.tenant(world.tenant_id) as tx:
        [clock] = clocks.due(tx, world.now, 10)
        clocks.set_back(tx, sub.customer_id)
        clocks.move(tx, [(clock, None)])
        [again] = clocks.due(tx, world.now, 10)
        assert again.version > clock.version
        clocks.move(tx, [(again, None)])
        assert clocks.due(tx, world.now, 10) == []


def test_a_stop_ends_a_run_between_two_rounds_and_the_next_goes_on(world: World) -> None:
    automatic(world)
    world.subscribe(world.plan(flat("20")), utc(2026, 1, 1))
    world.subscribe(world.plan(flat("20")), utc(2026, 1, 1))
    world.now = utc(2026, 3, 1)
    answers = iter([False, False, True])
    assert bill_due(world.run, world.now, lambda: next(answers, True)) == Due(2, 0)
    assert world.due() == Due(2, 2)
    assert sum((one.total for one in world.all()), Decimal(0)) == 80
