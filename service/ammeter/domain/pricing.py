"""What a price makes of a quantity in a period: one pure function."""

from decimal import Decimal
from fractions import Fraction

from ammeter.domain.catalog import FlatPrice, Price
from ammeter.domain.money import multiply, round_money
from ammeter.domain.period import Period


def amount_of(price: Price, quantity: Decimal, period: Period, exponent: int) -> Decimal:
    """Price a period's whole quantity, rounded once to `exponent` digits, half away from zero.

    A flat price is due in full for a whole period and in proportion to the
    seconds covered for a cut one, whatever the quantity. A unit price is
    multiplied, never prorated; a negative quantity gives a credit.
    """
    if isinstance(price, FlatPrice):
        share = Fraction(period.covered_seconds, period.full_seconds)
        return round_money(price.amount if share == 1 else Fraction(price.amount) * share, exponent)
    return round_money(multiply(price.unit_amount, quantity), exponent)
