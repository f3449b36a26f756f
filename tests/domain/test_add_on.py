"""Add-ons of one plan add up over time; what cannot go beside a subscription is refused."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ammeter.domain.add_on import (
    NOTHING,
    AddOn,
    beside,
    check_fits,
    check_from,
    ended,
    no_plan,
    on_two,
    plans_of_course,
    same_keys,
)
from ammeter.domain.catalog import Phase, Plan, RateCard
from ammeter.domain.price import FlatPrice, Price, UnitPrice
from ammeter.errors import InvalidInputError, PreconditionError
from tests.domain.test_period import sub

START = datetime(2026, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
SUB = sub(START)


def add_on(start: int, end: int | None, quantity: int = 1, plan_id: int = 5) -> AddOn:
    stop = None if end is None else START + end * MINUTE
    return AddOn("add_1", "sub_1", plan_id, "extra", 1, quantity, START + start * MINUTE, stop, START)


@given(
    st.lists(
        st.tuples(st.integers(-5, 30), st.one_of(st.none(), st.integers(-5, 40)), st.integers(1, 9)),
        min_size=1,
    )
)
def test_at_each_minute_there_are_as_many_as_were_attached(drawn: list[tuple[int, int | None, int]]) -> None:
    mine = [add_on(*each) for each in drawn]
    courses = beside(SUB, mine)
    if all(one.is_void for one in mine):
        assert not courses
        return
    [course] = courses
    assert course.course[0].start_time == START
    for first, second in zip(course.course, course.course[1:], strict=False):
        assert first.end_time == second.start_time
    for minute in range(45):
        time = START + minute * MINUTE
        [span] = [
            one
            for one in course.course
            if one.start_time <= time and (one.end_time is None or time < one.end_time)
        ]
        wanted = sum(q for start, end, q in drawn if start <= minute and (end is None or minute < end))
        assert (span.quantity if span.plan_id else 0) == wanted


def plan(*prices: Price, plan_id: int = 5, key: str = "fee", **fields: object) -> Plan:
    cards = tuple(
        RateCard(f"{key}{n}", "", "", price, None, rate_card_id=plan_id * 10 + n)
        for n, price in enumerate(prices)
    )
    return Plan("extra", "", "USD", "P1M", cards, plan_id=plan_id, **fields)  # type: ignore[arg-type]


ONE = FlatPrice(Decimal(1))
SEAT = FlatPrice(Decimal(1), per_seat=True)


def test_only_a_plan_with_a_price_per_seat_goes_more_than_once() -> None:
    check_fits(SUB, plan(ONE), 1)
    check_fits(SUB, plan(ONE, SEAT), 7)
    for quantity, one in ((2, plan(ONE, UnitPrice(Decimal(1)))), (0, plan(SEAT)), (1_000_001, plan(SEAT))):
        with pytest.raises(InvalidInputError) as refused:
            check_fits(SUB, one, quantity)
        assert refused.value.violations[0].field == "quantity"


@pytest.mark.parametrize(
    "other",
    [
        Plan("p", "", "EUR", "P1M", ()),
        Plan("p", "", "USD", "P1Y", ()),
        plan(ONE, minimum_amount=Decimal(1)),
        plan(ONE, phases=(Phase("a", duration="P1M"), Phase("b"))),
    ],
)
def test_what_is_no_add_on_of_it_is_refused(other: Plan) -> None:
    with pytest.raises(PreconditionError):
        check_fits(SUB, other, 1)


def test_lines_can_be_told_apart() -> None:
    own = Plan("own", "", "USD", "P1M", plan(ONE, plan_id=1).rate_cards, plan_id=1)
    plans = {1: own, 5: plan(ONE), 6: plan(ONE, plan_id=6, key="other"), NOTHING: no_plan(SUB)}
    meeting = [SUB, *beside(SUB, [add_on(10, None)])]
    assert same_keys(meeting, plans) == ["fee0"]
    assert same_keys([SUB, *beside(SUB, [add_on(10, None, plan_id=6)])], plans) == []
    two = beside(SUB, [add_on(0, 10), add_on(10, None, plan_id=6)])
    assert same_keys(two, {**plans, 6: plan(ONE, plan_id=6)}) == [], "one after the other"
    assert not on_two(meeting)
    assert on_two([SUB, *beside(SUB, [add_on(10, None, plan_id=1)])])
    assert set(plans_of_course(0, meeting, plans)) == {1, 6}
    assert set(plans_of_course(1, meeting, plans)) == {5, NOTHING}


def test_times_lie_where_nothing_is_billed() -> None:
    now = START + 30 * MINUTE
    assert check_from(None, START, now) == now
    for time in (START - MINUTE, now + timedelta(days=367)):
        with pytest.raises(InvalidInputError):
            check_from(time, START, now)
    assert ended(add_on(40, None), now, now).is_void
    with pytest.raises(InvalidInputError):
        ended(add_on(0, None), START, now)
