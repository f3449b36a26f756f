import decimal
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ammeter.domain.money import add, currency_exponent, multiply, round_money, subtract
from tests import model

exponents = st.sampled_from([0, 2, 3, 4])
decimals = st.decimals(
    allow_nan=False, allow_infinity=False, places=12, min_value=-(10**20), max_value=10**20
)


@pytest.mark.parametrize(
    ("code", "exponent"), [("USD", 2), ("EUR", 2), ("JPY", 0), ("KWD", 3), ("CLF", 4), ("ISK", 0), ("UGX", 0)]
)
def test_a_currency_has_the_digits_of_iso_4217(code: str, exponent: int) -> None:
    assert currency_exponent(code) == exponent


@pytest.mark.parametrize("code", ["", "usd", "XXX", "XAU", "DEM", "EURO", "US"])
def test_what_is_no_currency_to_sell_in_is_refused(code: str) -> None:
    with pytest.raises(ValueError, match="ISO 4217"):
        currency_exponent(code)


@given(decimals, exponents)
def test_rounding_agrees_with_counting_coins(amount: Decimal, exponent: int) -> None:
    wanted = model.rounded(Fraction(amount), exponent)
    for form in (amount, Fraction(amount)):
        got = round_money(form, exponent)
        assert Fraction(got) == wanted
        assert got.as_tuple().exponent == -exponent
        assert got or not got.is_signed()


@given(st.fractions(), exponents)
def test_rounding_a_ratio_agrees_with_counting_coins(amount: Fraction, exponent: int) -> None:
    assert Fraction(round_money(amount, exponent)) == model.rounded(amount, exponent)


@pytest.mark.parametrize(
    ("amount", "rounded"),
    [("0.005", "0.01"), ("-0.005", "-0.01"), ("0.0049", "0.00"), ("-0.0049", "0.00"), ("2.675", "2.68")],
)
def test_half_goes_away_from_zero(amount: str, rounded: str) -> None:
    assert str(round_money(Decimal(amount), 2)) == rounded


def test_the_largest_quantity_times_the_largest_price_loses_no_digit() -> None:
    most = Decimal("9" * 26 + "." + "9" * 12)
    assert Fraction(multiply(most, most)) == Fraction(most) ** 2


def test_what_would_lose_a_digit_fails_instead() -> None:
    with pytest.raises(decimal.Inexact):
        add([Decimal("1e90"), Decimal("1e-90")])
    with pytest.raises(decimal.Inexact):
        subtract(Decimal("1e90"), Decimal("1e-90"))
