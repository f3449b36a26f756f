"""What a price makes of usage, or of a period: one pure function, for every line there is.

The order is: unit conversion, usage discount, price, percentage discount,
maximum, minimum. All of it is exact; what is said of each step is the
difference of two rounded sums, so that steps add up to the amount, and the
amount is rounded once.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

from ammeter.domain import price as p
from ammeter.domain.money import (
    Number,
    divide,
    minus,
    plus,
    round_down,
    round_money,
    round_up,
    subtract,
    times,
)
from ammeter.domain.period import Period
from ammeter.domain.price_steps import (
    Step,
    flat_steps,
    free,
    matrix_steps,
    priced,
    share_of,
    total_of,
    usage_steps,
)
from ammeter.domain.quantity import SCALE_DIGITS, decimal_text

_ZERO = Decimal(0)
MAX_UNPRICED = 20
_NO_GROUPS: Mapping[tuple[str, ...], Decimal] = {}


class Part(NamedTuple):
    """Usage of a model while it had one price; None: it had none. `label` says which price it was.

    price_time: from when on; None if it always was.
    """

    model: str
    label: str
    unit_amount: Decimal | None
    quantity: Decimal
    price_time: datetime | None = None


class Usage(NamedTuple):
    """What was metered in a period.

    groups by the values of a matrix's dimensions, if it has any; parts where
    prices are from a price list (see domain/price_list.py).
    """

    quantity: Decimal = _ZERO
    event_count: int = 0
    groups: Mapping[tuple[str, ...], Decimal] = _NO_GROUPS
    parts: tuple[Part, ...] = ()


NO_USAGE = Usage()


class Detail(NamedTuple):
    """One step of an amount, as it is shown; None where there are no units.

    price_time: since when a price list has said so.
    """

    description: str
    quantity: Decimal | None
    unit_price: Decimal | None
    amount: Decimal
    price_time: datetime | None = None


class Rated(NamedTuple):
    """An amount in the currency's digits, and the details that add up to it."""

    amount: Decimal
    details: tuple[Detail, ...]


def rate(
    price: p.Price, terms: p.Terms, usage: Usage, period: Period, exponent: int, *, last: bool = True
) -> Rated:
    """Price a period's whole usage so far, rounded once to `exponent` digits, half away from zero.

    Of a flat price per seat, the usage's quantity is the seats.

    A slice of a period is the difference of two of these. The minimum is due
    with the `last` slice only. Raises ValueError for a volume price before:
    its amount may fall with more usage, so it cannot be split.
    """
    if not last and isinstance(price, p.VolumePrice):
        message = "a volume price cannot be split in the midst of a period"
        raise ValueError(message)
    if isinstance(price, p.FlatPrice):
        steps = list(flat_steps(price, usage.quantity, period.covered_seconds, period.full_seconds))
    elif isinstance(price, p.MatrixPrice):
        groups = {values: _converted(part, terms) for values, part in usage.groups.items()}
        steps = [*_conversion_steps(usage.quantity, total_of(groups.values()), terms)]
        steps += matrix_steps(price, groups)
    elif isinstance(price, p.LlmPrice):
        steps = list(_part_steps(terms, usage))
    else:
        steps = _quantity_steps(price, terms, usage)
    if terms.discounts or terms.commitments:
        steps += _bounds(total_of(step.amount for step in steps), terms, last=last)
    return _rounded(steps, exponent)


def _quantity_steps(price: p.Price, terms: p.Terms, usage: Usage) -> list[Step]:
    units: Number = usage.quantity
    steps: list[Step] = []
    if terms.unit_conversion:
        units = _converted(usage.quantity, terms)
        steps += _conversion_steps(usage.quantity, units, terms)
    if terms.discounts and terms.discounts.usage_quantity is not None:
        exempt = free("free units", units, terms.discounts.usage_quantity)
        steps.append(exempt)
        units = minus(units, exempt.quantity or _ZERO)
    steps += usage_steps(price, units, usage.event_count)
    return steps


def _part_steps(terms: p.Terms, usage: Usage) -> Iterator[Step]:
    """Charge each model's units at the price of their time; what has no price costs nothing yet."""
    units = [_converted(part.quantity, terms) for part in usage.parts]
    yield from _conversion_steps(usage.quantity, total_of(units), terms)
    for part, each in zip(usage.parts, units, strict=True):
        if part.unit_amount is None:
            yield Step(part.label, each, None, _ZERO, part.price_time)
        else:
            yield priced(part.label, each, part.unit_amount)._replace(price_time=part.price_time)


def unpriced_models(usage: Usage) -> tuple[str, ...]:
    """Name the models that were used and have no price, the first of them if there are many."""
    found = {part.model: None for part in usage.parts if part.unit_amount is None and part.quantity}
    return tuple(found)[:MAX_UNPRICED]


def _converted(quantity: Decimal, terms: p.Terms) -> Number:
    """Turn a metered quantity into units."""
    conversion = terms.unit_conversion
    if conversion is None:
        return quantity
    units: Number = quantity
    if conversion.multiply_by is not None:
        units = times(quantity, conversion.multiply_by)
    elif conversion.divide_by is not None:
        units = divide(quantity, conversion.divide_by)
    match conversion.rounding:
        case p.Rounding.CEILING:
            return round_up(units, conversion.precision)
        case p.Rounding.FLOOR:
            return round_down(units, conversion.precision)
        case p.Rounding.HALF_UP:
            return round_money(units, conversion.precision)
    return units


def _conversion_steps(quantity: Decimal, units: Number, terms: p.Terms) -> Iterator[Step]:
    """Say what conversion did; it costs nothing."""
    conversion = terms.unit_conversion
    if conversion is not None:
        text = decimal_text(quantity)
        if conversion.multiply_by is not None:
            text += f" times {decimal_text(conversion.multiply_by)}"
        if conversion.divide_by is not None:
            text += f" divided by {decimal_text(conversion.divide_by)}"
        if conversion.rounding is not None:
            text += f", rounded {_ROUNDED[conversion.rounding]}"
        yield Step(f"{text}: {decimal_text(_shown(units))} units", None, None, _ZERO)


_ROUNDED = {p.Rounding.CEILING: "up", p.Rounding.FLOOR: "down", p.Rounding.HALF_UP: "to the nearest"}


def _bounds(amount: Number, terms: p.Terms, *, last: bool) -> Iterator[Step]:
    """Take the percentage discount off, then hold the rest between maximum and minimum."""
    if terms.discounts and terms.discounts.percentage is not None:
        percentage = terms.discounts.percentage
        off = times(amount, -share_of(percentage))
        yield Step(f"{decimal_text(percentage)} percent discount", None, None, off)
        amount = total_of((amount, off))
    bounds = terms.commitments or p.Commitments()
    if bounds.maximum_amount is not None and amount > bounds.maximum_amount:
        most = bounds.maximum_amount
        yield Step(f"at most {decimal_text(most)}", None, None, minus(most, amount))
        amount = most
    if last and bounds.minimum_amount is not None and amount < bounds.minimum_amount:
        least = bounds.minimum_amount
        yield Step(f"at least {decimal_text(least)}", None, None, minus(least, amount))


def _rounded(steps: Iterable[Step], exponent: int) -> Rated:
    """Round the running sum after each step; what it grew by is the step's amount."""
    exact: Number = _ZERO
    amount = round_money(_ZERO, exponent)
    details = []
    for description, units, unit_price, cost, price_time in steps:
        exact = plus(exact, cost)
        before, amount = amount, round_money(exact, exponent)
        quantity = None if units is None else _shown(units)
        grown = subtract(amount, before)
        details.append(Detail(description, quantity, unit_price, grown or grown.copy_abs(), price_time))
    return Rated(amount, tuple(details))


def _shown(number: Number) -> Decimal:
    """Write a number as a decimal; what does not end is cut to as many digits as a quantity has."""
    return number if isinstance(number, Decimal) else round_money(number, SCALE_DIGITS)
