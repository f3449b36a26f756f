from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ammeter.domain.catalog import RateCard
from ammeter.domain.invoice import Billed, Kind, Slot, flat_line, make_draft, usage_line
from ammeter.domain.period import Period
from ammeter.domain.price import NO_TERMS, FlatPrice, Price, UnitPrice
from ammeter.domain.pricing import Usage, rate
from ammeter.domain.subscription import Subscription
from tests import model

START = datetime(2026, 1, 1, tzinfo=UTC)
SUB = Subscription("sub_1", 1, "acme", 1, "pro", START, None, START, "UTC", "P1M", "USD", START)
MONTH = Period(0, START, START + timedelta(days=31), 31 * 86_400)
NEXT = Period(1, MONTH.end, MONTH.end + timedelta(days=28), 28 * 86_400)


def amount_of(price: Price, quantity: Decimal, period: Period, exponent: int) -> Decimal:
    return rate(price, NO_TERMS, Usage(quantity), period, exponent).amount


exponents = st.sampled_from([0, 2, 3, 4])
prices = st.decimals(allow_nan=False, allow_infinity=False, places=12, min_value=0, max_value=10**6)
quantities = st.decimals(
    allow_nan=False, allow_infinity=False, places=12, min_value=-(10**12), max_value=10**12
)


@st.composite
def cut_periods(draw: st.DrawFn) -> Period:
    full = draw(st.integers(1, 60 * 24 * 366))
    covered = draw(st.integers(1, full))
    return Period(0, START, START + timedelta(minutes=covered), full * 60)


@given(prices, cut_periods(), exponents)
def test_a_flat_price_is_due_for_the_seconds_covered(amount: Decimal, period: Period, exponent: int) -> None:
    wanted = model.flat_amount(Fraction(amount), period.covered_seconds, period.full_seconds, exponent)
    assert Fraction(amount_of(FlatPrice(amount), Decimal(1), period, exponent)) == wanted


@given(prices, quantities, cut_periods(), exponents)
def test_a_unit_price_is_multiplied_and_never_prorated(
    price: Decimal, quantity: Decimal, period: Period, exponent: int
) -> None:
    wanted = model.unit_amount(Fraction(price), Fraction(quantity), exponent)
    assert Fraction(amount_of(UnitPrice(price), quantity, period, exponent)) == wanted


def test_a_whole_period_owes_the_whole_flat_price_in_the_currencys_digits() -> None:
    assert str(amount_of(FlatPrice(Decimal(20)), Decimal(1), MONTH, 2)) == "20.00"
    assert str(amount_of(FlatPrice(Decimal(20)), Decimal(1), MONTH, 0)) == "20"


def test_a_month_with_an_hour_less_is_prorated_by_its_own_length() -> None:
    march = Period(0, START, START + timedelta(days=10), 31 * 86_400 - 3_600)
    assert str(amount_of(FlatPrice(Decimal(743)), Decimal(1), march, 2)) == "240.00"


@pytest.mark.parametrize(
    ("currency_exponent", "amount"), [(0, "-1"), (2, "-0.63"), (3, "-0.625"), (4, "-0.6250")]
)
def test_a_negative_quantity_is_a_credit(currency_exponent: int, amount: str) -> None:
    assert str(amount_of(UnitPrice(Decimal("0.25")), Decimal("-2.5"), MONTH, currency_exponent)) == amount


def card(key: str, price: FlatPrice | UnitPrice) -> RateCard:
    return RateCard(key, key.title(), key, price, None, rate_card_id=len(key))


@given(prices, st.lists(quantities, min_size=1, max_size=8), exponents)
def test_slices_of_a_period_add_up_to_the_price_of_all_of_it(
    price: Decimal, totals: list[Decimal], exponent: int
) -> None:
    billed = Billed()
    for number, total in enumerate(totals):
        line = usage_line(
            SUB,
            card("tokens", UnitPrice(price)),
            MONTH,
            Usage(total),
            number,
            billed=billed,
            exponent=exponent,
            carrier=Slot(NEXT, number) if number else None,
        )
        assert line.billed_amount == billed.amount
        billed = Billed(billed.quantity + line.quantity, billed.amount + line.amount)
        assert billed.quantity == total
        assert Fraction(billed.amount) == model.unit_amount(Fraction(price), Fraction(total), exponent)


def test_a_third_billed_twice_is_33_then_34() -> None:
    third = card("tokens", UnitPrice(Decimal("0.335")))
    first = usage_line(SUB, third, MONTH, Usage(Decimal(1)), 1, billed=Billed(), exponent=2)
    late = usage_line(
        SUB,
        third,
        MONTH,
        Usage(Decimal(2)),
        2,
        billed=Billed(first.quantity, first.amount),
        exponent=2,
        carrier=Slot(NEXT),
    )
    assert (str(first.amount), str(late.amount)) == ("0.34", "0.33")
    assert (first.kind, late.kind) == (Kind.USAGE, Kind.LATE_USAGE)


@given(st.lists(st.tuples(prices, quantities), max_size=6), exponents)
def test_the_total_is_the_sum_of_the_rounded_lines(
    cards: list[tuple[Decimal, Decimal]], exponent: int
) -> None:
    lines = [
        usage_line(
            SUB,
            card("x" * (n + 1), UnitPrice(price)),
            MONTH,
            Usage(quantity),
            n,
            billed=Billed(),
            exponent=exponent,
        )
        for n, (price, quantity) in enumerate(cards)
    ]
    draft = make_draft(SUB, Slot(MONTH), lines, exponent)
    wanted = sum((model.unit_amount(Fraction(p), Fraction(q), exponent) for p, q in cards), Fraction(0))
    assert Fraction(draft.total) == wanted
    assert draft.total.as_tuple().exponent == -exponent
    assert draft.position == max((line.position for line in lines), default=0)


def test_a_line_is_named_by_what_it_bills() -> None:
    tokens = card("tokens", UnitPrice(Decimal(1)))
    zero = Usage()
    lines = [
        flat_line(SUB, card("seat", FlatPrice(Decimal(9))), MONTH, 2),
        usage_line(SUB, tokens, NEXT, zero, 1, billed=Billed(), exponent=2),
        *(
            usage_line(SUB, tokens, period, zero, 1, billed=Billed(), exponent=2, carrier=carrier)
            for period in (MONTH, NEXT)
            for carrier in (Slot(NEXT, 1), Slot(NEXT, 2))
        ),
    ]
    assert [line.line_id for line in lines] == [
        "sub_1.seat.0",
        "sub_1.tokens.1",
        "sub_1.tokens.0.late.1.1",
        "sub_1.tokens.0.late.1.2",
        "sub_1.tokens.1.late.1.1",
        "sub_1.tokens.1.late.1.2",
    ]
