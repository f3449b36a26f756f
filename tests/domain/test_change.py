"""Changes of a subscription's spans, against a diary that is read minute by minute."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ammeter.domain.cancellation import Timing
from ammeter.domain.catalog import WHOLE, Phase, Plan
from ammeter.domain.change import check_quantity, migrated, on_plan, time_of_change, with_quantity
from ammeter.domain.spans import Span, plan_spans, span_at
from ammeter.domain.subscription import Subscription
from ammeter.errors import InvalidInputError, PreconditionError
from tests.model_spans import Entry, ModelPlan, stage

START = datetime(2026, 1, 5, tzinfo=UTC)
MODELS = (ModelPlan("free", (None,)), ModelPlan("trial", (14, None)), ModelPlan("long", (3, 7, 30, None)))


def plan_of(model: ModelPlan, plan_id: int, version: int = 1) -> Plan:
    phases = tuple(
        Phase(f"phase{number}", "", "" if days is None else f"P{days}D")
        for number, days in enumerate(model.days)
    )
    return Plan(model.name, "", "USD", "P1M", (), plan_id=plan_id, phases=phases, version=version)


PLANS = tuple(plan_of(model, number) for number, model in enumerate(MODELS, start=1))


def subscribed(plan: Plan, seats: int = 1) -> Subscription:
    spans = tuple(plan_spans(plan, START, "UTC", quantity=seats))
    return Subscription(
        "sub",
        1,
        "acme",
        plan.plan_id,
        plan.plan_key,
        START,
        None,
        START,
        "UTC",
        "P1M",
        "USD",
        START,
        spans=spans,
    )


def seen(sub: Subscription, minute: datetime) -> tuple[str, int, int]:
    span = span_at(sub.course, minute)
    return span.plan_key, span.phase, span.quantity


OPERATIONS = st.lists(
    st.tuples(
        st.integers(0, 40 * 1440), st.sampled_from([None, 0, 1, 2]), st.integers(0, 3), st.integers(0, 5)
    ),
    max_size=6,
)


@given(first=st.sampled_from([0, 1, 2]), operations=OPERATIONS, probes=st.lists(st.integers(0, 90 * 1440)))
def test_spans_say_what_the_diary_says(
    first: int, operations: list[tuple[int, int | None, int, int]], probes: list[int]
) -> None:
    sub = subscribed(PLANS[first])
    diary = [Entry(START, MODELS[first], 0, 1)]
    for minutes, wanted, phase, seats in sorted(operations, key=lambda one: one[0]):
        time = START + timedelta(minutes=minutes)
        try:
            if wanted is None:
                sub = with_quantity(sub, seats, time)
                diary.append(Entry(time, None, 0, seats))
            else:
                number = min(phase, len(MODELS[wanted].days) - 1)
                sub = on_plan(sub, PLANS[wanted - 0], number, seats, time)
                diary.append(Entry(time, MODELS[wanted], number, seats))
        except PreconditionError:
            continue
    assert sub.course[0].start_time == START
    assert sub.course[-1].end_time is None
    assert all(one.end_time == two.start_time for one, two in pairwise(sub.course))
    edges = [(span.start_time - START) // timedelta(minutes=1) for span in sub.course]
    for minute in {*probes, *edges, *(edge - 1 for edge in edges if edge)}:
        time = START + timedelta(minutes=minute)
        assert seen(sub, time) == stage(diary, time), time


def test_a_change_drops_what_was_planned_for_later_and_keeps_seats() -> None:
    sub = subscribed(PLANS[1], seats=4)
    later = on_plan(sub, PLANS[2], 1, 4, START + timedelta(days=20))
    assert [span.phase_key for span in later.course] == ["phase0", "phase1", "phase1", "phase2", "phase3"]
    sooner = on_plan(later, PLANS[0], 0, 4, START + timedelta(days=2))
    assert [(span.plan_key, span.quantity) for span in sooner.course] == [("trial", 4), ("free", 4)]


def test_nothing_to_change_is_refused_and_a_planned_change_can_be_taken_back() -> None:
    sub = subscribed(PLANS[0])
    with pytest.raises(PreconditionError, match="nothing to change"):
        on_plan(sub, PLANS[0], 0, 1, START + timedelta(days=1))
    planned = on_plan(sub, PLANS[1], 0, 1, START + timedelta(days=9))
    assert on_plan(planned, PLANS[0], 0, 1, START + timedelta(days=1)).course == sub.course


@pytest.mark.parametrize(
    ("fields", "why"), [({"currency": "EUR"}, "EUR"), ({"billing_cadence": "P1Y"}, "each P1Y")]
)
def test_a_plan_that_does_not_fit_is_refused(fields: dict[str, str], why: str) -> None:
    other = replace(plan_of(MODELS[1], 9), **fields)  # type: ignore[arg-type]
    with pytest.raises(PreconditionError, match=why):
        on_plan(subscribed(PLANS[0]), other, 0, 1, START)


def test_the_time_of_a_change_is_now_the_periods_end_or_ahead() -> None:
    sub, now = subscribed(PLANS[0]), START + timedelta(days=3, seconds=30)
    assert time_of_change(sub, Timing.NOW, None, now) == START + timedelta(days=3)
    assert time_of_change(sub, Timing.PERIOD_END, None, now) == datetime(2026, 2, 5, tzinfo=UTC)
    assert time_of_change(sub, Timing.NOW, None, START - timedelta(days=1)) == START
    ahead = now + timedelta(days=1)
    assert time_of_change(sub, Timing.AT_TIME, ahead, now) == ahead.replace(second=0)
    for timing, time in (
        (Timing.AT_TIME, None),
        (Timing.AT_TIME, now),
        (Timing.AT_TIME, now + timedelta(days=367)),
        (Timing.NOW, ahead),
    ):
        with pytest.raises(InvalidInputError, match="change_time"):
            time_of_change(sub, timing, time, now)


def test_what_ends_before_a_change_is_not_changed() -> None:
    sub, now = replace(subscribed(PLANS[0]), end_time=datetime(2026, 2, 5, tzinfo=UTC)), START
    with pytest.raises(PreconditionError, match="resume it first"):
        time_of_change(sub, Timing.PERIOD_END, None, now)
    with pytest.raises(PreconditionError, match="has ended"):
        time_of_change(sub, Timing.NOW, None, now + timedelta(days=99))
    assert time_of_change(sub, Timing.NOW, None, now) == now


@pytest.mark.parametrize("quantity", [-1, 1_000_000_001])
def test_seats_out_of_range_are_refused(quantity: int) -> None:
    with pytest.raises(InvalidInputError, match="quantity"):
        check_quantity(quantity)


# Versions


def courses(sub: Subscription | None) -> list[tuple[int, str, str]]:
    assert sub is not None
    return [(span.plan_version, span.phase_key, span.start_time.isoformat()[5:10]) for span in sub.course]


def test_who_migrates_keeps_the_end_of_the_phase_and_gets_the_new_ones_after_it() -> None:
    old = PLANS[1]
    new = plan_of(ModelPlan("trial", (30, 7, None)), 12, 2)
    sub = subscribed(old)
    moved = migrated(sub, old, new, START + timedelta(days=4))
    assert courses(moved) == [
        (1, "phase0", "01-05"),
        (2, "phase0", "01-09"),
        (2, "phase1", "01-19"),
        (2, "phase2", "01-26"),
    ]
    assert moved is not None
    assert migrated(moved, old, new, START + timedelta(days=5)) is None


def test_who_is_in_the_open_phase_comes_into_the_open_phase() -> None:
    old = Plan("trial", "", "USD", "P1M", (), plan_id=20, phases=(WHOLE,))
    new = plan_of(MODELS[2], 21, 2)
    assert courses(migrated(subscribed(old), old, new, START + timedelta(days=40))) == [
        (1, "", "01-05"),
        (2, "phase3", "02-14"),
    ]


def test_a_phase_that_the_new_version_lacks_is_a_problem() -> None:
    old, new = PLANS[1], plan_of(ModelPlan("trial", (None,)), 22, 2)
    renamed = replace(new, phases=(Phase("other"),))
    with pytest.raises(PreconditionError, match="wait until it is over"):
        migrated(subscribed(old), old, renamed, START + timedelta(days=1))


def test_what_was_planned_for_later_stays() -> None:
    old, new = PLANS[0], plan_of(MODELS[0], 23, 2)
    sub = with_quantity(subscribed(old, seats=2), 5, START + timedelta(days=10))
    sub = replace(
        sub,
        spans=(
            *sub.spans[:-1],
            replace(sub.spans[-1], end_time=START + timedelta(days=20)),
            Span(START + timedelta(days=20), None, 2, 1, 5, "trial", 1, "phase1"),
        ),
    )
    moved = migrated(sub, old, new, START + timedelta(days=3))
    assert moved is not None
    assert [(span.plan_key, span.plan_version, span.quantity) for span in moved.course] == [
        ("free", 1, 2),
        ("free", 2, 2),
        ("free", 2, 5),
        ("trial", 1, 5),
    ]
