"""Access decisions, against the slow model."""

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from ammeter.domain.entitlement import MESSAGES, Access, Reason, metered_access
from tests import model

SCALE = 10**12
SCALED = st.integers(0, 10**15)


@given(
    allowance=SCALED,
    used=st.lists(st.integers(-(10**15), 10**15), max_size=5),
    amount=st.none() | st.integers(1, 10**15),
    soft=st.booleans(),
)
def test_access_balance_and_overage_are_those_of_the_model(
    allowance: int, used: list[int], amount: int | None, *, soft: bool
) -> None:
    answer = metered_access(allowance, sum(used), amount, (0, 1), soft_limit=soft)
    expected = model.access(
        Fraction(allowance, SCALE),
        [Fraction(one, SCALE) for one in used],
        None if amount is None else Fraction(amount, SCALE),
        soft=soft,
    )
    assert answer.balance is not None
    assert answer.overage is not None
    assert (answer.access, Fraction(answer.balance, SCALE), Fraction(answer.overage, SCALE)) == expected
    assert answer.access == (answer.reason is not Reason.LIMIT_REACHED)


@given(allowance=SCALED, usage=SCALED)
def test_asking_for_all_that_is_left_is_allowed_and_a_trillionth_more_is_not(
    allowance: int, usage: int
) -> None:
    left = max(allowance - usage, 0)
    if left:
        assert metered_access(allowance, usage, left, (0, 1), soft_limit=False).access
    assert not metered_access(allowance, usage, left + 1, (0, 1), soft_limit=False).access


def test_an_allowance_used_to_the_last_unit_is_used_up() -> None:
    answer = metered_access(5, 5, None, (3, 4), soft_limit=False)
    assert answer == Access(
        access=False,
        reason=Reason.LIMIT_REACHED,
        balance=0,
        overage=0,
        usage=5,
        allowance=5,
        period_start_minute=3,
        period_end_minute=4,
    )


def test_every_refusal_says_what_to_do() -> None:
    assert MESSAGES.keys() == set(Reason)
    assert all(message for reason, message in MESSAGES.items() if reason is not Reason.ALLOWED)
