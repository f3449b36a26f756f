"""The steps by which each kind of price comes to its amount; nothing is rounded here.

Below zero there is nothing but the price of the first unit, as a credit: a
step's quantity may be negative, packages and free units may not.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from typing import NamedTuple

from ammeter.domain import price as p
from ammeter.domain.money import Number, minus, multiply, plus, times
from ammeter.domain.quantity import decimal_text

_ZERO = Decimal(0)
_ONE = Decimal(1)
_PERCENT = Decimal("0.01")


class Step(NamedTuple):
    """A part of an amount, and why; None where there are no units.

    price_time: since when a price list has said so.
    """

    description: str
    quantity: Number | None
    unit_price: Decimal | None
    amount: Number
    price_time: datetime | None = None


def priced(description: str, quantity: Number, unit_price: Decimal) -> Step:
    """Make the step of some units at one price."""
    return Step(description, quantity, unit_price, times(quantity, unit_price))


def free(description: str, quantity: Number, allowed: Decimal) -> Step:
    """Make the step of the units that cost nothing: what is above zero, as far as allowed."""
    return Step(description, min(max(quantity, _ZERO), allowed), _ZERO, _ZERO)


def share_of(percentage: Decimal) -> Decimal:
    """Turn percent into a share."""
    return multiply(percentage, _PERCENT)


def flat_steps(
    price: p.FlatPrice, quantity: Decimal, covered_seconds: int, full_seconds: int
) -> Iterator[Step]:
    """Charge an amount, or one for each seat, for the part of a period that is covered."""
    share = Fraction(covered_seconds, full_seconds)
    what = "whole period" if share == 1 else f"{covered_seconds} of {full_seconds} seconds"
    if not price.per_seat:
        yield priced(what, _ONE if share == 1 else share, price.amount)
        return
    seats: Number = quantity if share == 1 else share * Fraction(quantity)
    yield priced(f"{decimal_text(quantity)} seats, {what}", seats, price.amount)


def usage_steps(price: p.Price, quantity: Number, event_count: int) -> Iterable[Step]:
    """Charge units that do not depend on dimensions."""
    steps: Iterable[Step]
    match price:
        case p.UnitPrice():
            steps = [priced("units", quantity, price.unit_amount)]
        case p.GraduatedPrice():
            steps = _graduated(price.stairs, quantity)
        case p.VolumePrice():
            steps = _volume(price.stairs, quantity)
        case p.PackagePrice():
            started = math.ceil(Fraction(quantity) / Fraction(price.package_size)) if quantity > 0 else 0
            size = decimal_text(price.package_size)
            steps = [priced(f"packages of {size}", Decimal(started), price.package_amount)]
        case p.PercentagePrice():
            steps = _percentage(price, quantity, event_count)
        case p.GraduatedPercentagePrice():
            steps = _graduated(p.stairs_of(map(_as_tier, price.tiers)), quantity)
        case p.DynamicPrice():
            steps = [priced("metered amount", quantity, price.multiplier)]
        case _:
            message = f"{type(price).__name__} is not by quantity alone"
            raise TypeError(message)
    return steps


def _as_tier(tier: p.PercentageTier) -> p.Tier:
    share = None if tier.percentage is None else share_of(tier.percentage)
    return p.Tier(tier.up_to, share, tier.flat_amount)


def _graduated(stairs: Sequence[p.Stair], quantity: Number) -> list[Step]:
    steps: list[Step] = []
    for number, (name, floor, tier) in enumerate(stairs):
        if number and quantity <= floor:
            break
        top = quantity if tier.up_to is None or quantity <= tier.up_to else tier.up_to
        _add_tier(steps, name, tier, minus(top, floor))
    return steps


def _volume(stairs: Sequence[p.Stair], quantity: Number) -> list[Step]:
    steps: list[Step] = []
    for name, _, tier in stairs:
        if tier.up_to is None or quantity <= tier.up_to:
            _add_tier(steps, name, tier, quantity)
            break
    return steps


def _add_tier(steps: list[Step], name: str, tier: p.Tier, units: Number) -> None:
    if tier.unit_amount is not None:
        steps.append(priced(name, units, tier.unit_amount))
    if tier.flat_amount is not None:
        steps.append(priced(f"{name}, flat amount", _ONE, tier.flat_amount))


def _percentage(price: p.PercentagePrice, amount: Number, event_count: int) -> Iterator[Step]:
    if price.free_amount is not None:
        exempt = free("free amount", amount, price.free_amount)
        yield exempt
        amount = minus(amount, exempt.quantity or _ZERO)
    yield priced(f"{decimal_text(price.percentage)} percent", amount, share_of(price.percentage))
    if price.event_amount is None:
        return
    exempt_count = min(event_count, price.free_event_count)
    if price.free_event_count:
        yield priced("free events", Decimal(exempt_count), _ZERO)
    yield priced("fee per event", Decimal(event_count - exempt_count), price.event_amount)


def matrix_steps(price: p.MatrixPrice, groups: Mapping[tuple[str, ...], Number]) -> Iterator[Step]:
    """Charge units by the values of dimensions; those that no cell names are one step."""
    for cell in price.cells:
        if cell.values in groups:
            values = zip(price.dimensions, cell.values, strict=True)
            name = ", ".join(f"{dimension} {value!r}" for dimension, value in values)
            yield priced(name, groups[cell.values], cell.unit_amount)
    named = {cell.values for cell in price.cells}
    others = [quantity for values, quantity in groups.items() if values not in named]
    if others:
        yield priced("all others", total_of(others), price.default_unit_amount)


def total_of(quantities: Iterable[Number]) -> Number:
    """Add up exactly."""
    total: Number = _ZERO
    for quantity in quantities:
        total = plus(total, quantity)
    return total
