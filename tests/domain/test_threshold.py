"""When a threshold holds, against the model."""

from datetime import UTC, datetime
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from ammeter.domain.threshold import Standing, Threshold, ThresholdKind, holds
from tests.model_thresholds import reached

SCALE = 10**12
WHEN = datetime(2025, 1, 1, tzinfo=UTC)
# Near each other, so that being equal is no rarity.
quantities = st.one_of(
    st.integers(-200, 200).map(lambda n: n * SCALE), st.integers(-3 * SCALE, 3 * SCALE), st.integers(-3, 3)
)


def rule(kind: str, amount: int | None, percent: int | None) -> Threshold:
    return Threshold("thr", "", "", ThresholdKind(kind), amount, percent, WHEN)


@given(
    kind=st.sampled_from(["USAGE", "BALANCE", "LOW_BALANCE", "EXHAUSTED"]),
    level=st.one_of(st.integers(1, 200).map(lambda n: n * SCALE), st.integers(1, 10**14)),
    percent=st.booleans(),
    usage=quantities,
    left=quantities,
)
def test_a_rule_holds_exactly_when_the_model_says(
    kind: str, level: int, *, percent: bool, usage: int, left: int
) -> None:
    given_level = None if kind == "EXHAUSTED" else level
    made = rule(kind, None if percent else given_level, given_level if percent else None)
    said = holds(made, Standing(left, usage, 0, 10, is_further=False), 0)
    exact = Fraction(level, SCALE)
    wanted = reached(kind, exact, percent=percent, usage=Fraction(usage, SCALE), left=Fraction(left, SCALE))
    assert said == wanted


def test_exactly_a_hundred_percent_is_reached_and_a_hair_less_is_not() -> None:
    made = rule("USAGE", None, 100 * SCALE)
    assert holds(made, Standing(0, 3, 0, 10, is_further=False), 0)
    assert not holds(made, Standing(1, 10**30, 0, 10, is_further=False), 0)


def test_a_reset_is_told_of_further_periods_that_begin_after_the_rule() -> None:
    made = rule("RESET", None, None)
    for start, further, told in ((5, True, True), (5, False, False), (4, True, False)):
        assert holds(made, Standing(1, 0, start, 10, is_further=further), 4) is told
