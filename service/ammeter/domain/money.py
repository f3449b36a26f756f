"""Money: currencies, exact arithmetic, and the one place where it rounds.

A sum of money is a Decimal; what it is of is said beside it. Nothing here is
rounded silently: every operation that would lose a digit raises, except
`round_money`, whose purpose it is.
"""

import math
from collections.abc import Iterable
from decimal import ROUND_HALF_UP, Context, Decimal, DivisionByZero, Inexact, InvalidOperation, Overflow
from fractions import Fraction
from functools import cache

from iso4217 import Currency

# A quantity, a factor and a price have up to 38 digits each, a share has 15: their product has 129.
_DIGITS = 160
_EXACT = Context(prec=_DIGITS, traps=[Inexact, InvalidOperation, Overflow, DivisionByZero])
_ROUNDING = Context(prec=_DIGITS, rounding=ROUND_HALF_UP, traps=[InvalidOperation, Overflow])

# Exact either way; a Fraction only where a decimal would not end.
Number = Decimal | Fraction

# Metals, test and "no currency" codes have no minor unit: nothing is sold in them.
_EXPONENTS = {currency.code: currency.exponent for currency in Currency if currency.exponent is not None}


def currency_exponent(code: str) -> int:
    """Return the number of digits after the point that a currency has (ISO 4217).

    Raises ValueError, which says what to do, for a code that is none.
    """
    try:
        return _EXPONENTS[code]
    except KeyError:
        message = f"{code!r} is not an active ISO 4217 currency: give three capital letters such as USD"
        raise ValueError(message) from None


def round_money(amount: Decimal | Fraction, exponent: int) -> Decimal:
    """Round to `exponent` digits after the point, half away from zero; never gives minus zero."""
    if isinstance(amount, Decimal):
        rounded = amount.quantize(_coin(exponent), context=_ROUNDING)
    else:
        smallest = abs(amount) * 10**exponent
        whole = (2 * smallest.numerator + smallest.denominator) // (2 * smallest.denominator)
        rounded = _EXACT.scaleb(Decimal(whole).copy_sign(Decimal(-1 if amount < 0 else 1)), -exponent)
    return rounded or rounded.copy_abs()


@cache
def _coin(exponent: int) -> Decimal:
    return Decimal(1).scaleb(-exponent)


def multiply(left: Decimal, right: Decimal) -> Decimal:
    """Multiply exactly."""
    return _EXACT.multiply(left, right)


def subtract(left: Decimal, right: Decimal) -> Decimal:
    """Subtract exactly."""
    return _EXACT.subtract(left, right)


def add(amounts: Iterable[Decimal]) -> Decimal:
    """Add up exactly; nothing gives zero."""
    total = Decimal(0)
    for amount in amounts:
        total = _EXACT.add(total, amount)
    return total


def times(left: Number, right: Number) -> Number:
    """Multiply exactly, whatever the two are."""
    try:
        return _EXACT.multiply(left, right)  # type: ignore[arg-type]  # it says so if one is a fraction
    except TypeError:
        return Fraction(left) * Fraction(right)


def plus(left: Number, right: Number) -> Number:
    """Add exactly, whatever the two are."""
    try:
        return _EXACT.add(left, right)  # type: ignore[arg-type]  # it says so if one is a fraction
    except TypeError:
        return Fraction(left) + Fraction(right)


def minus(left: Number, right: Number) -> Number:
    """Subtract exactly, whatever the two are."""
    try:
        return _EXACT.subtract(left, right)  # type: ignore[arg-type]  # it says so if one is a fraction
    except TypeError:
        return Fraction(left) - Fraction(right)


def divide(left: Decimal, right: Decimal) -> Number:
    """Divide exactly: a decimal where it ends, else a fraction."""
    try:
        return _EXACT.divide(left, right)
    except Inexact:
        return Fraction(left) / Fraction(right)


def round_up(number: Number, digits: int) -> Decimal:
    """Round to the next greater number with so many digits after the point."""
    return _whole(math.ceil(_shift(number, digits)), digits)


def round_down(number: Number, digits: int) -> Decimal:
    """Round to the next lesser number with so many digits after the point."""
    return _whole(math.floor(_shift(number, digits)), digits)


def _shift(number: Number, digits: int) -> Fraction:
    scale: int = 10**digits
    return Fraction(number) * scale


def _whole(number: int, digits: int) -> Decimal:
    return _EXACT.scaleb(Decimal(number), -digits)
