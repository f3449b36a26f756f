"""Money: currencies, exact arithmetic, and the one place where it rounds.

A sum of money is a Decimal; what it is of is said beside it. Nothing here is
rounded silently: every operation that would lose a digit raises, except
`round_money`, whose purpose it is.
"""

from collections.abc import Iterable
from decimal import ROUND_HALF_UP, Context, Decimal, DivisionByZero, Inexact, InvalidOperation, Overflow
from fractions import Fraction

from iso4217 import Currency

# A quantity and a price have up to 38 digits each, so their product has 76.
_DIGITS = 100
_EXACT = Context(prec=_DIGITS, traps=[Inexact, InvalidOperation, Overflow, DivisionByZero])
_ROUNDING = Context(prec=_DIGITS, rounding=ROUND_HALF_UP, traps=[InvalidOperation, Overflow])

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
        rounded = amount.quantize(Decimal(1).scaleb(-exponent), context=_ROUNDING)
    else:
        smallest = abs(amount) * 10**exponent
        whole = (2 * smallest.numerator + smallest.denominator) // (2 * smallest.denominator)
        rounded = _EXACT.scaleb(Decimal(whole).copy_sign(Decimal(-1 if amount < 0 else 1)), -exponent)
    return rounded or rounded.copy_abs()


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
