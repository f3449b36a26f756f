from datetime import UTC, datetime, timedelta

import pytest

from ammeter.domain.invoice import Slot, State
from ammeter.domain.late import MARGIN, Head, late_periods, next_ordinal
from ammeter.domain.period import Period

HORIZON = timedelta(days=35)
WEEK = timedelta(days=7)
START = datetime(2026, 1, 1, tzinfo=UTC)
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


def week(index: int) -> Period:
    return Period(index, START + index * WEEK, START + (index + 1) * WEEK, 7 * 86_400)


def head(index: int, computed: datetime, *, ordinal: int = 0, state: State = State.ISSUED) -> Head:
    return Head(f"inv_{index}_{ordinal}", Slot(week(index), ordinal), state, computed)


def look(
    heads: list[Head],
    slot: Slot,
    *,
    subjects_time: datetime = LONG_AGO,
    reopened: frozenset[int] = frozenset(),
) -> list[int]:
    found = late_periods(heads, slot, horizon=HORIZON, subjects_time=subjects_time, reopened=reopened)
    return [period.index for period in found]


def test_a_period_is_looked_at_until_it_was_computed_a_day_after_its_usage_could_last_change() -> None:
    settled = week(0).end + HORIZON + MARGIN
    assert look([head(0, week(0).end), head(1, settled)], Slot(week(2))) == [0, 1]
    assert look([head(0, week(0).end), head(1, settled + timedelta(minutes=1))], Slot(week(2))) == [1]


def test_the_time_since_the_last_look_does_not_matter_only_the_last_look_does() -> None:
    heads = [head(0, week(0).end), head(1, week(1).end)]
    assert look(heads, Slot(week(200))) == [0, 1]


def test_only_invoices_of_the_same_or_later_periods_have_looked_at_a_period() -> None:
    late = START + timedelta(days=300)
    assert look([head(0, late), head(1, week(1).end)], Slot(week(2))) == [1]


def test_a_change_of_subjects_reopens_every_billed_period() -> None:
    computed = START + timedelta(days=300)
    heads = [head(index, computed) for index in range(4)]
    assert look(heads, Slot(week(4))) == []
    assert look(heads, Slot(week(4)), subjects_time=computed) == [0, 1, 2, 3]
    assert look(heads, Slot(week(4)), subjects_time=computed - 2 * MARGIN) == []


def test_what_was_taken_back_is_looked_at_however_old_it_is() -> None:
    computed = START + timedelta(days=300)
    assert look([head(index, computed) for index in range(4)], Slot(week(4)), reopened=frozenset({1, 9})) == [
        1
    ]


def test_a_period_whose_own_invoice_is_a_draft_is_left_to_it() -> None:
    assert look([head(0, START), head(1, START, state=State.DRAFT)], Slot(week(2))) == [0]


def test_an_invoice_carries_earlier_periods_only_and_one_after_the_end_the_last_one_too() -> None:
    heads = [head(index, START) for index in range(3)]
    assert look(heads, Slot(week(1))) == [0]
    assert look(heads, Slot(week(2), 1)) == [0, 1, 2]


@pytest.mark.parametrize(
    ("heads", "ordinal"),
    [
        ([], None),
        ([head(2, START)], None),
        ([head(3, START, state=State.DRAFT)], None),
        ([head(3, START)], 1),
        ([head(3, START), head(3, START, ordinal=1)], 2),
        ([head(3, START), head(3, START, ordinal=2)], 3),
        ([head(3, START), head(3, START, ordinal=1, state=State.DRAFT)], None),
        ([head(3, START, ordinal=1)], None),
    ],
)
def test_the_invoice_after_the_last_waits_for_that_and_for_open_drafts(
    heads: list[Head], ordinal: int | None
) -> None:
    assert next_ordinal(heads, week(3)) == ordinal
