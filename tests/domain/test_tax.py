"""Taxes are exact on the sum of the lines, and rounded once."""

from decimal import Decimal
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from ammeter.domain.tax import Tax, TaxRate, on_top, taxes_of, taxes_on
from tests import model


def rate(key: str, percentage: str, *, inclusive: bool = False) -> TaxRate:
    return TaxRate(key, key, Decimal(percentage), inclusive)


def compute(rates: dict[str, list[TaxRate]], exponent: int = 2, **amounts: str) -> tuple[Tax, ...]:
    money = {line: Decimal(amount) for line, amount in amounts.items()}
    return taxes_of(money, {line: rates.get(line, []) for line in money}, exponent)


VAT = rate("vat", "19")
REDUCED = rate("reduced", "7")
INSIDE = rate("inside", "19", inclusive=True)


def test_tax_is_taken_of_the_sum_and_not_line_by_line() -> None:
    # Each of the lines would have 0.00 by itself: 0.02 times 19 percent is 0.0038.
    [found] = compute({"a": [VAT], "b": [VAT], "c": [VAT]}, a="0.02", b="0.02", c="0.02")
    assert (found.covered_amount, found.amount) == (Decimal("0.06"), Decimal("0.01"))
    assert found.line_ids == ("a", "b", "c")


def test_a_rate_covers_the_lines_that_bear_it_and_a_line_may_bear_none() -> None:
    first, second = compute({"a": [VAT], "b": [REDUCED]}, a="100.00", b="50.00", c="25.00")
    assert (first.covered_amount, first.amount) == (Decimal("100.00"), Decimal("19.00"))
    assert (second.covered_amount, second.amount) == (Decimal("50.00"), Decimal("3.50"))
    assert on_top((first, second)) == Decimal("22.50")


def test_an_inclusive_tax_is_part_of_the_amount_and_two_share_one_net() -> None:
    [found] = compute({"a": [INSIDE]}, a="119.00")
    assert found.amount == Decimal("19.00")
    assert on_top([found]) == 0
    state, county = compute(
        {"a": [rate("state", "10", inclusive=True), rate("county", "9", inclusive=True)]}, a="119.00"
    )
    assert (state.amount, county.amount) == (Decimal("10.00"), Decimal("9.00"))


def test_half_a_cent_goes_away_from_zero_and_a_credit_mirrors_its_charge() -> None:
    assert compute({"a": [rate("r", "10")]}, a="0.05")[0].amount == Decimal("0.01")
    assert compute({"a": [rate("r", "10")]}, a="-0.05")[0].amount == Decimal("-0.01")
    assert compute({"a": [VAT]}, exponent=0, a="150")[0].amount == Decimal(29)  # 28.5


percentages = st.decimals(0, 100, places=4)
amounts = st.lists(st.integers(-(10**12), 10**12), min_size=1, max_size=6)


@st.composite
def taxed(draw: st.DrawFn) -> tuple[int, list[int], list[TaxRate], list[set[int]]]:
    exponent = draw(st.sampled_from((0, 2, 3)))
    units = draw(amounts)
    kinds = draw(st.lists(st.tuples(percentages, st.booleans()), min_size=1, max_size=4))
    rates = [TaxRate(f"r{n}", "", percentage, inclusive) for n, (percentage, inclusive) in enumerate(kinds)]
    # A line bears rates of one kind only.
    of_kind = [draw(st.booleans()) for _ in units]
    chosen = [
        {n for n, each in enumerate(rates) if each.inclusive is of_kind[place] and draw(st.booleans())}
        for place in range(len(units))
    ]
    return exponent, units, rates, chosen


@given(taxed())
def test_every_tax_is_that_of_the_model(case: tuple[int, list[int], list[TaxRate], list[set[int]]]) -> None:
    exponent, units, rates, chosen = case
    money = {str(place): Decimal(unit).scaleb(-exponent) for place, unit in enumerate(units)}
    found = taxes_of(money, {line: [rates[n] for n in sorted(chosen[int(line)])] for line in money}, exponent)
    slow = [
        model.Rate(
            Fraction(each.percentage),
            each.inclusive,
            frozenset(place for place, borne in enumerate(chosen) if n in borne),
        )
        for n, each in enumerate(rates)
    ]
    exact = [Fraction(unit, 10**exponent) for unit in units]
    by_key = {tax.tax_rate_key: tax.amount for tax in found}
    for n, each in enumerate(slow):
        expected = model.tax(exact, slow, each, exponent)
        assert Fraction(by_key.get(f"r{n}", Decimal(0))) == expected
    assert taxes_on(money, found, exponent) == found, "and computing them anew changes nothing"
