"""Which lots of prepaid credits pay which lines of an invoice."""

from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from typing import NamedTuple

from ammeter.domain.credit_lot import CreditLot, burn_order
from ammeter.domain.invoice import Invoice, Prepaid
from ammeter.domain.money import add, currency_exponent, round_money, subtract

_NOTHING = Decimal(0)


class Payable(NamedTuple):
    """What can be paid of a line: its amount, the taxes on top, less what other lines give back."""

    line_id: str
    feature_key: str
    amount: Decimal


def payables(invoice: Invoice) -> list[Payable]:
    """Say what each line leaves to be paid; together the invoice's total, or nothing where that is negative.

    Negative lines are taken off first: from lines of the same feature, then
    from all others, in the invoice's order.
    """
    gross = _with_taxes(invoice)
    features = {line.line_id: line.feature_key for line in invoice.lines}
    left = {line_id: max(amount, _NOTHING) for line_id, amount in gross.items()}
    for line_id, amount in gross.items():
        if amount >= 0:
            continue
        owed = amount.copy_negate()
        others = sorted(left, key=lambda other, mine=line_id: features[other] != features[mine])  # type: ignore[misc]  # stable
        for other in others:
            taken = min(owed, left[other])
            left[other] = subtract(left[other], taken)
            owed = subtract(owed, taken)
    return [Payable(line_id, features[line_id], amount) for line_id, amount in left.items()]


def _with_taxes(invoice: Invoice) -> dict[str, Decimal]:
    """Add to each line its share of the taxes on top.

    The running sum over the lines that a tax covers is rounded, so that the
    shares add up to the tax, which is rounded once.
    """
    exponent = currency_exponent(invoice.currency)
    gross = {line.line_id: line.amount for line in invoice.lines}
    for tax in invoice.taxes:
        if tax.inclusive:
            continue
        covered, so_far = Fraction(0), round_money(_NOTHING, exponent)
        amounts = {line.line_id: line.amount for line in invoice.lines}
        for line_id in tax.line_ids:
            covered += Fraction(amounts[line_id])
            upto = round_money(covered * Fraction(tax.percentage) / 100, exponent)
            gross[line_id] = add((gross[line_id], subtract(upto, so_far)))
            so_far = upto
    return gross


def pay_from(lots: Sequence[CreditLot], invoice: Invoice) -> tuple[Prepaid, ...]:
    """Let usable lots pay an invoice, each as many lines as it may, in order, until either is used up."""
    open_lines = payables(invoice)
    left = {line.line_id: line.amount for line in open_lines}
    paid = []
    for lot in sorted(lots, key=burn_order):
        rest = lot.remaining
        for line in open_lines:
            if lot.feature_keys and line.feature_key not in lot.feature_keys:
                continue
            taken = min(rest, left[line.line_id])
            if taken > 0:
                left[line.line_id] = subtract(left[line.line_id], taken)
                rest = subtract(rest, taken)
                paid.append(Prepaid(lot.credit_lot_id, line.line_id, taken))
    return tuple(paid)


def with_prepaid(invoice: Invoice, prepaid: Sequence[Prepaid]) -> tuple[tuple[Prepaid, ...], Decimal]:
    """Give what credits paid of an invoice and its sum, in the currency's digits."""
    total = round_money(add(one.amount for one in prepaid), currency_exponent(invoice.currency))
    return tuple(prepaid), total
