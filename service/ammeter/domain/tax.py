"""Taxes: of each rate on the sum of the lines it covers, rounded once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from fractions import Fraction

from ammeter.domain.money import add, round_money

_HUNDRED = 100


@dataclass(frozen=True)
class TaxRate:
    """A rate by name. Inclusive: amounts contain it; otherwise it comes on top."""

    tax_rate_key: str
    name: str
    percentage: Decimal
    inclusive: bool
    note: str = ""
    create_time: datetime | None = None
    archive_time: datetime | None = None


@dataclass(frozen=True)
class Tax:
    """What a rate takes on an invoice; covered_amount is the sum of the lines named."""

    tax_rate_key: str
    name: str
    percentage: Decimal
    inclusive: bool
    note: str
    covered_amount: Decimal
    amount: Decimal
    line_ids: tuple[str, ...]


def taxes_of(
    amounts: Mapping[str, Decimal], rates: Mapping[str, Sequence[TaxRate]], exponent: int
) -> tuple[Tax, ...]:
    """Compute the taxes of lines, both by line_id; in the order in which rates first occur."""
    covered: dict[TaxRate, list[str]] = {}
    for line_id, theirs in rates.items():
        for rate in theirs:
            covered.setdefault(rate, []).append(line_id)
    zero = Decimal(0)
    blank = [
        Tax(
            rate.tax_rate_key, rate.name, rate.percentage, rate.inclusive, rate.note, zero, zero, tuple(lines)
        )
        for rate, lines in covered.items()
    ]
    return taxes_on(amounts, blank, exponent)


def taxes_on(amounts: Mapping[str, Decimal], taxes: Sequence[Tax], exponent: int) -> tuple[Tax, ...]:
    """Compute taxes anew for other amounts of the lines that they cover; a missing line counts as 0.

    An amount contains all its inclusive taxes: of 119.00 with 19 percent in
    it, 19.00 is tax; with 10 and 9 percent in it, 10.00 and 9.00.
    """
    inside: dict[str, Decimal] = {}
    for tax in taxes:
        for line_id in tax.line_ids if tax.inclusive else ():
            inside[line_id] = add([inside.get(line_id, Decimal(0)), tax.percentage])
    found = []
    for tax in taxes:
        of_lines = [(line_id, amounts.get(line_id, Decimal(0))) for line_id in tax.line_ids]
        exact = sum(
            (
                Fraction(amount) * Fraction(tax.percentage) / (_HUNDRED + Fraction(inside.get(line_id, 0)))
                for line_id, amount in of_lines
            ),
            Fraction(0),
        )
        sum_of_lines = round_money(add(amount for _, amount in of_lines), exponent)
        found.append(replace(tax, covered_amount=sum_of_lines, amount=round_money(exact, exponent)))
    return tuple(found)


def on_top(taxes: Sequence[Tax]) -> Decimal:
    """Add up the taxes that amounts do not contain."""
    return add(tax.amount for tax in taxes if not tax.inclusive)
