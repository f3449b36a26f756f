"""Credit notes: what of an issued invoice is taken back, line by line."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from fractions import Fraction

from ammeter.domain.invoice import Invoice
from ammeter.domain.money import add, currency_exponent, round_money, subtract
from ammeter.domain.tax import Tax, on_top, taxes_on
from ammeter.errors import InvalidInputError, PreconditionError, Violation, invalid

_NOTHING = Decimal(0)


@dataclass(frozen=True)
class CreditNoteLine:
    """What is taken back of an invoice's line; of its sign, and never beyond it."""

    line_id: str
    description: str
    amount: Decimal


@dataclass(frozen=True)
class CreditNote:
    """A paper beside an invoice, which never changes either."""

    credit_note_id: str
    number: int
    number_text: str
    invoice_id: str
    invoice_number_text: str
    customer_key: str
    currency: str
    reason: str
    subtotal: Decimal
    taxes: tuple[Tax, ...]
    total: Decimal
    create_time: datetime
    lines: tuple[CreditNoteLine, ...] = ()


@dataclass(frozen=True)
class CreditRequest:
    """What to take back: some lines (None: all that is left of one), an amount over all, or all."""

    lines: tuple[tuple[str, Decimal | None], ...] = ()
    amount: Decimal | None = None


def left_of(invoice: Invoice, credited: Mapping[str, Decimal]) -> dict[str, Decimal]:
    """Return what is left of each line after what credit notes took, by line_id."""
    return {
        line.line_id: subtract(line.amount, credited.get(line.line_id, _NOTHING)) for line in invoice.lines
    }


def choose(
    invoice: Invoice, credited: Mapping[str, Decimal], request: CreditRequest
) -> tuple[CreditNoteLine, ...]:
    """Decide what is taken back of which line.

    Raises InvalidInputError where more is asked for than is left, and
    PreconditionError when nothing is left.
    """
    left = left_of(invoice, credited)
    _check_digits(request, currency_exponent(invoice.currency))
    if request.lines:
        amounts = _of_lines(left, request.lines, currency_exponent(invoice.currency))
    elif request.amount is not None:
        amounts = _spread(left, request.amount, currency_exponent(invoice.currency))
    else:
        amounts = left
    titles = {line.line_id: line.description for line in invoice.lines}
    chosen = tuple(
        CreditNoteLine(line_id, titles[line_id], amount) for line_id, amount in amounts.items() if amount
    )
    if not chosen:
        raise PreconditionError(
            f"nothing of that is left of invoice {invoice.invoice_id}: everything is credited already",
            field="invoice_id",
        )
    return chosen


def _check_digits(request: CreditRequest, exponent: int) -> None:
    asked = [("amount", request.amount)]
    asked += [(f"lines[{place}].amount", amount) for place, (_, amount) in enumerate(request.lines)]
    violations = [
        Violation(field, f"must have at most {exponent} digits after the point")
        for field, amount in asked
        if amount is not None and round_money(amount, exponent) != amount
    ]
    if violations:
        raise InvalidInputError(violations)


def _of_lines(
    left: Mapping[str, Decimal], wanted: Sequence[tuple[str, Decimal | None]], exponent: int
) -> dict[str, Decimal]:
    chosen: dict[str, Decimal] = {}
    violations = []
    for place, (line_id, amount) in enumerate(wanted):
        there = left.get(line_id)
        if there is None or line_id in chosen:
            why = "is no line of this invoice" if there is None else "is named twice: name it once"
            violations.append(Violation(f"lines[{place}].line_id", why))
            continue
        chosen[line_id] = there if amount is None else round_money(amount, exponent)
        if not _within(chosen[line_id], there):
            why = f"must be between 0 and {there:f}, which is left of the line"
            violations.append(Violation(f"lines[{place}].amount", why))
    if violations:
        raise InvalidInputError(violations)
    return chosen


def _within(amount: Decimal, left: Decimal) -> bool:
    return 0 <= amount <= left if left >= 0 else left <= amount <= 0


def _spread(left: Mapping[str, Decimal], amount: Decimal, exponent: int) -> dict[str, Decimal]:
    """Spread an amount over lines in proportion, in whole smallest units.

    The running sum of the shares is rounded, not each share: so they add up,
    and none exceeds its line.
    """
    whole = add(left.values())
    if not amount or not _within(amount, whole):
        raise invalid("amount", f"must be more than 0 and at most {whole:f}, which is left of the lines")
    chosen: dict[str, Decimal] = {}
    running = Fraction(0)
    units = 0
    for line_id, there in left.items():
        running += Fraction(there) * 10**exponent
        upto = (2 * running * Fraction(amount) + Fraction(whole)) // (2 * Fraction(whole))
        chosen[line_id] = round_money(Fraction(upto - units, 10**exponent), exponent)
        units = upto
    return chosen


def settle(
    invoice: Invoice, credited: Mapping[str, Decimal], lines: Sequence[CreditNoteLine]
) -> tuple[Decimal, tuple[Tax, ...], Decimal]:
    """Return subtotal, taxes and total of a credit note.

    A tax is that of everything credited now less that of what was credited
    before, each rounded: so the notes over a whole invoice give back its taxes.
    """
    exponent = currency_exponent(invoice.currency)
    now = dict(credited)
    for line in lines:
        now[line.line_id] = add([now.get(line.line_id, _NOTHING), line.amount])
    before, after = taxes_on(credited, invoice.taxes, exponent), taxes_on(now, invoice.taxes, exponent)
    named = {line.line_id for line in lines}
    taxes = tuple(
        replace(
            late,
            covered_amount=subtract(late.covered_amount, early.covered_amount),
            amount=subtract(late.amount, early.amount),
            line_ids=tuple(line_id for line_id in late.line_ids if line_id in named),
        )
        for early, late in zip(before, after, strict=True)
        if named & set(late.line_ids)
    )
    subtotal = round_money(add(line.amount for line in lines), exponent)
    return subtotal, taxes, add([subtotal, on_top(taxes)])
