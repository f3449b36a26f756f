"""How balances came about: windows, segments and plain sentences, the same as checks say."""

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from ammeter.domain.entitlement import Reason
from ammeter.domain.history import Cause
from ammeter.errors import InvalidInputError, NotFoundError
from ammeter.store.entitlements import Held
from ammeter.usecases.check import Check
from ammeter.usecases.history import (
    MAX_WINDOWS,
    Explanation,
    History,
    Question,
    entitlement_history,
    explain_access,
)
from tests.usecases.test_grants import balance, entitled, granted, prepare, reset, void
from tests.usecases.world import World, at, exact


@pytest.fixture
def world(new_database: Callable[[], str]) -> Iterator[World]:
    world = World(new_database())
    yield world
    world.close()


def history(world: World, held: Held, **question: object) -> History:
    asked = Question(held.entitlement.entitlement_id, **question)  # type: ignore[arg-type]
    found = entitlement_history(world.db, world.engine, world.tenant_id, asked, world.now)
    assert world.engine.stats()["counters"] == len(world.live.by_id), "nothing is left of the question"
    return found


def explain(world: World, amount: int | None = None) -> Explanation:
    asked = Check("acme", None, "tokens", amount)
    found = explain_access(world.live, world.db, world.tenant_id, asked, world.now)
    assert found.access == world.ask(asked)[0]
    return found


def minutes(start: datetime, number: int) -> datetime:
    return start + timedelta(minutes=number)


def test_segments_tell_who_paid_and_why_they_ended(world: World) -> None:
    prepare(world)
    held = entitled(world)
    start = world.now
    world.use("alice", "4", start)
    sooner = granted(world, held, "5", effective_time=minutes(start, 60), expire_time=minutes(start, 120))
    world.now = minutes(start, 60)
    later = granted(world, held, "7", recurs=True, cadence="P1D", anchor_time=minutes(start, 180))
    world.use("alice", "8", minutes(start, 61))
    world.use("alice", "5", minutes(start, 130))
    world.now = minutes(start, 200)
    void(world, later, minutes(start, 190))
    reset(world, held, minutes(start, 195))
    found = history(world, held, from_time=start)
    told = [
        (
            [
                (each.grant.grant_id[:3] and each.grant.amount // 10**12, each.paid // 10**12)
                for each in one.grants
            ],
            one.left_at_start // 10**12,
            one.left_at_end // 10**12,
            [(end.cause, end.grant_id) for end in one.endings],
        )
        for one in found.segments
    ]
    ids = sooner.grant.grant_id, later.grant.grant_id
    assert told == [
        ([("", 4)], 10, 6, [(Cause.GRANT_STARTED, ids[0]), (Cause.GRANT_STARTED, ids[1])]),
        ([(5, 5), ("", 3), (7, 0)], 18, 10, [(Cause.GRANT_EXPIRED, ids[0])]),
        ([("", 3), (7, 2)], 10, 5, [(Cause.GRANT_RECURRED, ids[1])]),
        ([("", 0), (7, 0)], 7, 7, [(Cause.GRANT_VOIDED, ids[1])]),
        ([("", 0)], 0, 0, [(Cause.RESET, "")]),
        ([("", 0)], 10, 10, []),
    ]
    assert found.position == world.engine.position(world.tenant_id)


def test_windows_sum_up_and_say_what_was_left(world: World) -> None:
    prepare(world)
    held = entitled(world, preserve_overage=True)
    start = world.now
    world.now = start + timedelta(hours=26)
    for hours, amount in ((0, 3), (1, 9), (23, 1), (25, 2)):
        world.use("alice", str(amount), start + timedelta(hours=hours))
    found = history(world, held, from_time=start, to_time=world.now, size="HOUR", zone=ZoneInfo("UTC"))
    assert len(found.windows) == 26
    used = [window.used // 10**12 for window in found.windows]
    left = [window.left // 10**12 for window in found.windows]
    assert used == [3, 9, *[0] * 21, 1, 0, 2]
    assert left == [10, 7, *[-2] * 22, 7, 7]
    days = history(world, held, from_time=start, zone=ZoneInfo("Asia/Tokyo")).windows
    assert [window.start_minute % 1440 for window in days] == [720, 900]
    assert sum(window.used for window in days) == 15 * 10**12
    default = history(world, held)
    assert default.windows[0].start_minute == default.segments[0].start_minute
    assert sum(window.used for window in default.windows) == 2 * 10**12


@pytest.mark.parametrize(
    ("aggregation", "used", "left"),
    [("UNIQUE_COUNT", [2, 1], [5, 3]), ("LATEST", [2, 4], [5, 3]), ("MAX", [4, 4], [5, 1])],
)
def test_windows_of_other_aggregations(
    world: World, aggregation: str, used: list[int], left: list[int]
) -> None:
    prepare(world, aggregation)
    held = entitled(world, allowance="5", cadence="P1M")
    start = world.now
    for minute, value in ((0, "4"), (5, "2"), (65, "1"), (70, "2"), (75, "4")):
        world.use("alice", value, minutes(start, minute))
    world.now = minutes(start, 120)
    found = history(world, held, from_time=start, to_time=world.now, size="HOUR")
    assert [window.used // 10**12 for window in found.windows] == used
    assert [window.left // 10**12 for window in found.windows] == left


def test_an_explanation_says_what_the_check_says_and_why(world: World) -> None:
    prepare(world)
    held = entitled(world)
    world.use("alice", "8")
    granted(world, held, "5")
    world.use("alice", "4")
    # Ahead, but acceptable: checks count it, so the explanation does.
    world.use("alice", "0.5", minutes(world.now, 3))
    found = explain(world)
    assert found.segment is not None
    assert exact(found.segment.left_at_end) == balance(world) == exact(found.access.balance)
    text = "\n".join(found.lines)
    assert "made by hand" in text
    assert "12.5 was used" in text
    assert "Allowance of 10: 10 at 2025-03-10T12:00Z, 10 paid since, 0 left." in text
    assert "2.5 is left" in text
    assert found.lines[-1].startswith("Yes")
    assert explain(world, 3 * 10**12).lines[-1].startswith("No for 3")


def test_plain_allowances_and_other_kinds_are_explained_too(world: World) -> None:
    assert explain(world).lines == [
        "No: no such customer, or nobody owns the subject now: check it, or assign it."
    ]
    prepare(world)
    assert explain(world).access.reason is Reason.NOT_ENTITLED
    entitled(world)
    world.use("alice", "11")
    found = explain(world)
    assert "nothing is left and 1 is overage" in "\n".join(found.lines)
    world.now += timedelta(days=1)
    assert exact(explain(world).access.balance) == 10
    world.feature("sso")
    entitled(world, feature_key="sso", kind="boolean", allowance="", cadence="")
    asked = Check("acme", None, "sso", None)
    boolean = explain_access(world.live, world.db, world.tenant_id, asked, world.now)
    assert boolean.segment is None
    assert boolean.lines[-1] == "Yes: it is allowed."


def test_history_that_cannot_be_told_is_refused(world: World) -> None:
    prepare(world)
    held = entitled(world, from_time=at("2025-03-01T00:00"))
    for question, field in (
        ({"to_time": minutes(world.now, 1)}, "to_time"),
        ({"from_time": minutes(world.now, 1)}, "from_time"),
        ({"to_time": at("2025-03-01T00:00")}, "from_time"),
    ):
        with pytest.raises(InvalidInputError) as caught:
            history(world, held, **question)
        assert [violation.field for violation in caught.value.violations] == [field]
    world.now += timedelta(days=50)
    with pytest.raises(InvalidInputError, match=f"more than {MAX_WINDOWS} windows"):
        history(world, held, from_time=at("2025-03-01T00:00"), size="HOUR")
    with pytest.raises(NotFoundError):
        entitlement_history(world.db, world.engine, world.tenant_id, Question("ent_x"), world.now)
