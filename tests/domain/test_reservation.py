"""How much is granted, until when it counts, and what ends it."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ammeter.domain.reservation import (
    Key,
    Renewal,
    Reservation,
    Standing,
    State,
    Wish,
    bounds,
    extended,
    grantable,
    released,
    renewed,
    settled,
)
from ammeter.errors import ConflictError, PreconditionError

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
END = NOW + timedelta(hours=1)
MINUTE = timedelta(minutes=1)
AMOUNTS = st.integers(0, 20)


def standing(left: int, held: int = 0, *, soft: bool = False) -> Standing:
    return Standing(left, held, soft, END)


def reservation(**fields: object) -> Reservation:
    made = Reservation(
        reservation_id="rsv_1",
        key=Key(1, 7, "tokens"),
        customer_key="acme",
        subject="",
        lease=False,
        wanted=5,
        granted=5,
        held=5,
        settled=0,
        state=State.HELD,
        create_time=NOW,
        expire_time=NOW + MINUTE,
        hold_time=NOW + MINUTE,
    )
    return replace(made, **fields)  # type: ignore[arg-type]


@given(st.integers(-20, 20), AMOUNTS, st.integers(1, 20), st.none() | st.integers(1, 20), st.booleans())
def test_a_hard_limit_grants_all_or_enough_of_what_is_free_or_nothing(
    left: int,
    held: int,
    amount: int,
    minimum: int | None,
    lease: bool,  # noqa: FBT001 - drawn
) -> None:
    minimum = None if minimum is None else min(minimum, amount)
    granted = grantable(standing(left, held), Wish(amount, minimum, MINUTE, lease))
    free = left - held
    least = amount if minimum is None else minimum
    assert granted == (amount if amount <= free else free if free >= least else 0)
    assert granted == 0 or (least <= granted <= free)


@given(st.integers(-20, 20), AMOUNTS, st.integers(1, 20), st.booleans())
def test_a_soft_limit_always_grants_and_a_lease_never_lies_across_it(
    left: int,
    held: int,
    amount: int,
    lease: bool,  # noqa: FBT001 - drawn
) -> None:
    granted = grantable(standing(left, held, soft=True), Wish(amount, None, MINUTE, lease))
    free = left - held
    assert 0 < granted <= amount
    if lease and free > 0:
        assert granted == min(amount, free)
    else:
        assert granted == amount


def test_a_lease_ends_with_the_period_and_counts_up_to_there_on_a_hard_limit() -> None:
    day = Wish(1, None, timedelta(days=1), lease=True)
    short = Wish(1, None, MINUTE, lease=True)
    plain = Wish(1, None, timedelta(days=1), lease=False)
    assert bounds(standing(1), day, NOW) == (END, END)
    assert bounds(standing(1), short, NOW) == (NOW + MINUTE, END)
    assert bounds(standing(1, soft=True), short, NOW) == (NOW + MINUTE, NOW + MINUTE)
    assert bounds(standing(1), plain, NOW) == (NOW + plain.lifetime, NOW + plain.lifetime)


def test_a_reservation_is_extended_from_now_and_never_shortened() -> None:
    mine = reservation()
    assert extended(mine, 2 * MINUTE, NOW, expired=False).expire_time == NOW + 2 * MINUTE
    assert extended(mine, timedelta(seconds=1), NOW, expired=False).expire_time == NOW + MINUTE
    for refused in (reservation(lease=True), reservation(state=State.RELEASED)):
        with pytest.raises(PreconditionError):
            extended(refused, MINUTE, NOW, expired=False)
    with pytest.raises(PreconditionError):
        extended(mine, MINUTE, NOW, expired=True)


def test_it_is_settled_once_and_released_as_often_as_one_likes() -> None:
    ended = settled(reservation(), 7, NOW, late=False)
    assert (ended.settled, ended.held, ended.state, ended.end_time) == (7, 0, State.SETTLED, NOW)
    freed = released(reservation(), NOW)
    assert released(freed, END) is freed
    for over in (ended, freed):
        with pytest.raises(PreconditionError):
            settled(over, 1, NOW, late=False)
    with pytest.raises(PreconditionError):
        released(ended, NOW)


def renewal(used: int, amount: int, generation: int = 1, *, recorded: bool = False) -> Renewal:
    return Renewal(generation, used, Wish(amount, None, MINUTE, lease=True), recorded)


def test_a_generation_is_renewed_once() -> None:
    mine = reservation(lease=True)
    after = renewed(mine, renewal(0, 5), standing(5, 5), NOW, counted=5, expired=False)
    for generation in (0, 1, 3):
        with pytest.raises(ConflictError):
            renewed(after, renewal(0, 5, generation), standing(5, 5), NOW, counted=5, expired=False)


@given(AMOUNTS, AMOUNTS, AMOUNTS, AMOUNTS, AMOUNTS)
def test_a_renewal_never_takes_away_what_is_left_nor_gives_more_than_is_free(
    counted: int, used: int, amount: int, others: int, free: int
) -> None:
    mine = reservation(lease=True, held=counted)
    stands = standing(counted + others + free, counted + others)
    after = renewed(mine, renewal(used, amount), stands, NOW, counted=counted, expired=False)
    rest = max(0, counted - used)
    added = after.granted - mine.granted
    assert 0 <= added <= free
    assert after.held == min(rest, amount) + added
    assert after.held >= min(rest, amount)
    assert after.held == amount or added == free or amount <= rest
    assert after.settled == used


def test_what_is_no_lease_or_over_is_not_renewed() -> None:
    for mine, expired in ((reservation(), False), (reservation(lease=True), True)):
        with pytest.raises(PreconditionError):
            renewed(mine, renewal(0, 5), standing(5, 5), NOW, counted=5, expired=expired)


def test_what_it_is_and_holds_is_told_by_the_clock() -> None:
    lapsed = reservation(lease=True, hold_time=END)
    assert (lapsed.state_at(NOW), lapsed.held_at(NOW)) == (State.HELD, 5)
    assert (lapsed.state_at(NOW + MINUTE), lapsed.held_at(NOW + MINUTE)) == (State.EXPIRED, 5)
    assert (lapsed.state_at(END), lapsed.held_at(END)) == (State.EXPIRED, 0)
