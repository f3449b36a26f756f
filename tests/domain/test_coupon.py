"""Coupons take off what they say, never more than there is, however often they are reckoned."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ammeter.domain.coupon import AttachedCoupon, Coupon, CouponDraft, covers, make_coupon, shares
from ammeter.domain.coupon_line import coupon_lines
from ammeter.domain.invoice import Slot
from ammeter.domain.period import Period, period_number
from ammeter.domain.subscription import Subscription
from ammeter.errors import InvalidInputError
from tests import model

START = datetime(2026, 1, 1, tzinfo=UTC)
SUB = Subscription("sub_1", 1, "acme", 1, "pro", START, None, START, "UTC", "P1M", "USD", START)
JANUARY = Period(0, START, START + timedelta(days=31), 31 * 86_400)
FEBRUARY = Period(1, JANUARY.end, JANUARY.end + timedelta(days=28), 28 * 86_400)


def attached(
    coupon: Coupon, number: int = 0, *, start: datetime = START, end: datetime | None = None
) -> AttachedCoupon:
    return AttachedCoupon(f"cpn_{number}", coupon, 1, "acme", "", start, end, start)


kinds = st.one_of(
    st.tuples(st.just("percentage"), st.decimals("0.001", 100, places=3)),
    st.tuples(st.just("amount"), st.decimals(1, 500, places=0)),
)
costs = st.dictionaries(st.sampled_from(["", "a", "b", "c"]), st.integers(-3000, 20_000))
exponents = st.sampled_from([2, 0, 3])


def made(found: list[tuple[str, Decimal]]) -> list[AttachedCoupon]:
    coupons = [Coupon("k", **{kind: number}) for kind, number in found]  # type: ignore[arg-type]
    return [attached(coupon, number) for number, coupon in enumerate(coupons)]


@given(st.lists(kinds, max_size=4), costs, exponents)
def test_shares_are_what_the_model_says_and_never_more_than_there_is(
    found: list[tuple[str, Decimal]], cents: dict[str, int], exponent: int
) -> None:
    money = {name: Decimal(n).scaleb(-exponent) for name, n in cents.items()}
    taken = shares(made(found), money, exponent)
    wanted = model.coupon_discounts(
        [(kind, Fraction(number)) for kind, number in found],
        {name: Fraction(cost) for name, cost in money.items()},
        exponent,
    )
    by_coupon: list[dict[str, Fraction]] = [{} for _ in found]
    for share in taken:
        by_coupon[int(share.attached.attached_coupon_id[4:])][share.feature_key] = Fraction(share.amount)
        assert share.amount.as_tuple().exponent == -exponent
        assert 0 <= share.amount <= share.cost
    assert by_coupon == wanted
    assert sum(share.amount for share in taken) <= max(sum(money.values()), Decimal(0))


@given(st.lists(kinds, min_size=1, max_size=3), st.lists(costs, min_size=1, max_size=4))
def test_however_costs_change_the_lines_add_up_to_what_the_last_ones_say(
    found: list[tuple[str, Decimal]], history: list[dict[str, int]]
) -> None:
    coupons = made(found)
    taken: dict[tuple[str, str, int], Decimal] = {}
    names = set()
    for number, cents in enumerate(history):
        money = {name: Decimal(n).scaleb(-2) for name, n in cents.items()}
        slot = Slot(JANUARY) if not number else Slot(FEBRUARY, number)
        for line in coupon_lines(SUB, slot, JANUARY, money, coupons, taken, 2):
            key = line.attached_coupon_id, line.feature_key, 0
            taken[key] = taken.get(key, Decimal(0)) + line.amount
            assert sum(detail.amount for detail in line.details) == line.amount
            assert line.line_id not in names
            names.add(line.line_id)
        due = {
            (one.attached.attached_coupon_id, one.feature_key, 0): -one.amount
            for one in shares(coupons, money, 2)
        }
        assert {key: amount for key, amount in taken.items() if amount} == {
            key: amount for key, amount in due.items() if amount
        }


@pytest.mark.parametrize(
    ("from_day", "to_day", "count", "covered"),
    [
        (0, None, 0, [0, 1, 2, 3]),
        (0, None, 1, [0]),
        (0, None, 3, [0, 1, 2]),
        (-400, None, 2, [0, 1]),  # before the subscription began: from its first period on
        (30, None, 1, [0]),  # on the last day
        (31, None, 1, [1]),  # at the end: that period is over
        (40, None, 2, [1, 2]),
        (0, 59, 0, [0, 1]),  # detached exactly when a period ends: that is still covered
        (0, 58, 0, [0]),
        (0, 0, 0, []),
    ],
)
def test_a_coupon_holds_for_the_periods_at_whose_end_it_is_attached(
    from_day: int, to_day: int | None, count: int, covered: list[int]
) -> None:
    end = None if to_day is None else START + timedelta(days=to_day)
    coupon = Coupon("k", percentage=Decimal(1), period_count=count)
    one = attached(coupon, start=START + timedelta(days=from_day), end=end)
    periods = [period_number(SUB, index) for index in range(4)]
    assert [period.index for period in periods if period and covers(one, SUB, period)] == covered


def test_a_coupon_of_one_subscription_holds_for_no_other() -> None:
    one = AttachedCoupon("cpn_1", Coupon("k"), 1, "acme", "sub_2", START, None, START)
    assert not covers(one, SUB, JANUARY)


def test_what_a_coupon_took_in_advance_is_charged_back_when_it_is_detached() -> None:
    one = attached(Coupon("k", percentage=Decimal(10)), end=START + timedelta(days=40))
    taken = {("cpn_0", "", 1): Decimal("-2.00")}
    [line] = coupon_lines(SUB, Slot(FEBRUARY), FEBRUARY, {"": Decimal("20.00")}, [one], taken, 2)
    assert line.amount == Decimal("2.00")


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({"coupon_key": "X"}, ["coupon.coupon_key"]),
        ({"percentage": "0"}, ["coupon.percentage"]),
        ({"percentage": "100.1"}, ["coupon.percentage"]),
        ({"percentage": ""}, ["coupon"]),
        ({"currency": "USD"}, ["coupon.currency"]),
        ({"percentage": "", "amount": "1"}, ["coupon.currency"]),
        ({"percentage": "", "amount": "1.234", "currency": "USD"}, ["coupon.amount"]),
        ({"percentage": "", "amount": "-1", "currency": "USD"}, ["coupon.amount"]),
        ({"period_count": 1001, "name": "x" * 300}, ["coupon.name", "coupon.period_count"]),
        ({"period_count": -1}, ["coupon.period_count"]),
    ],
)
def test_a_coupon_that_cannot_be_is_refused_with_the_field(
    changes: dict[str, object], fields: list[str]
) -> None:
    with pytest.raises(InvalidInputError) as refused:
        make_coupon(CouponDraft(**{"coupon_key": "k", "percentage": "10"} | changes))  # type: ignore[arg-type]
    assert [one.field for one in refused.value.violations] == fields
