"""Prices: what a quantity, or a period, costs.

Field names are those of the proto; domain/price_form.py writes and reads them
as text by these names.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from functools import cached_property
from typing import NamedTuple

from ammeter.domain.quantity import decimal_text


@dataclass(frozen=True)
class FlatPrice:
    """A fixed amount for each period, prorated by elapsed time when a period is cut short.

    `per_seat`: for each of the subscription's quantity.
    """

    amount: Decimal
    per_seat: bool = False


@dataclass(frozen=True)
class UnitPrice:
    """An amount for each unit used in the period; never prorated."""

    unit_amount: Decimal


@dataclass(frozen=True)
class Tier:
    """Up to and with `up_to`, None: without end. None for an amount: it has no such part."""

    up_to: Decimal | None
    unit_amount: Decimal | None = None
    flat_amount: Decimal | None = None


class Stair(NamedTuple):
    """A tier with what it is called, and where it begins."""

    name: str
    floor: Decimal
    tier: Tier


def stairs_of(tiers: Iterable[Tier]) -> tuple[Stair, ...]:
    """Say where each tier begins."""
    found = []
    floor = Decimal(0)
    for number, tier in enumerate(tiers, start=1):
        end = "on" if tier.up_to is None else f"to {decimal_text(tier.up_to)}"
        found.append(Stair(f"tier {number}, from {decimal_text(floor)} {end}", floor, tier))
        floor = floor if tier.up_to is None else tier.up_to
    return tuple(found)


@dataclass(frozen=True)
class GraduatedPrice:
    """Each unit costs what its own tier says."""

    tiers: tuple[Tier, ...]

    @cached_property
    def stairs(self) -> tuple[Stair, ...]:
        """Its tiers, each with where it begins."""
        return stairs_of(self.tiers)


@dataclass(frozen=True)
class VolumePrice:
    """All units cost what the tier of the whole quantity says."""

    tiers: tuple[Tier, ...]

    @cached_property
    def stairs(self) -> tuple[Stair, ...]:
        """Its tiers, each with where it begins."""
        return stairs_of(self.tiers)


@dataclass(frozen=True)
class PackagePrice:
    """An amount for each package of units that was started."""

    package_size: Decimal
    package_amount: Decimal


@dataclass(frozen=True)
class PercentagePrice:
    """A share (0-100) of a metered amount of money, and a fee for each event."""

    percentage: Decimal
    event_amount: Decimal | None = None
    free_amount: Decimal | None = None
    free_event_count: int = 0


@dataclass(frozen=True)
class PercentageTier:
    """As Tier, with a share (0-100) in place of the unit amount."""

    up_to: Decimal | None
    percentage: Decimal | None = None
    flat_amount: Decimal | None = None


@dataclass(frozen=True)
class GraduatedPercentagePrice:
    """Each part of a metered amount pays the share of its own tier."""

    tiers: tuple[PercentageTier, ...]


@dataclass(frozen=True)
class DynamicPrice:
    """A metered amount of money, times a multiplier."""

    multiplier: Decimal


@dataclass(frozen=True)
class Cell:
    """A price for each unit with these values, one for each dimension of the matrix."""

    values: tuple[str, ...]
    unit_amount: Decimal


@dataclass(frozen=True)
class MatrixPrice:
    """A price for each unit by one or two dimensions."""

    dimensions: tuple[str, ...]
    cells: tuple[Cell, ...]
    default_unit_amount: Decimal


@dataclass(frozen=True)
class Override:
    """What a unit of a model costs by this rate card, whatever the price list says."""

    model: str
    unit_amount: Decimal


@dataclass(frozen=True)
class LlmPrice:
    """A price for each unit by model, from a price list, at the time of use: see domain/price_list.py."""

    price_list_key: str
    token_type: str
    model_dimension: str = "model"
    margin_percentage: Decimal | None = None
    margin_amount: Decimal | None = None
    overrides: tuple[Override, ...] = ()
    default_unit_amount: Decimal | None = None


Price = (
    FlatPrice
    | UnitPrice
    | GraduatedPrice
    | VolumePrice
    | PackagePrice
    | PercentagePrice
    | GraduatedPercentagePrice
    | DynamicPrice
    | MatrixPrice
    | LlmPrice
)


class Rounding(StrEnum):
    """How converted units are rounded; left out: not at all."""

    CEILING = "ceiling"
    FLOOR = "floor"
    HALF_UP = "half_up"


@dataclass(frozen=True)
class UnitConversion:
    """From metered to priced units: one of the two factors, then rounding to `precision` digits."""

    multiply_by: Decimal | None = None
    divide_by: Decimal | None = None
    rounding: Rounding | None = None
    precision: int = 0


@dataclass(frozen=True)
class Discounts:
    """Free units in each period, and a share (0-100) taken off the price; None: there is none."""

    usage_quantity: Decimal | None = None
    percentage: Decimal | None = None


@dataclass(frozen=True)
class Commitments:
    """Bounds of what a period costs; None: there is none."""

    minimum_amount: Decimal | None = None
    maximum_amount: Decimal | None = None


@dataclass(frozen=True)
class Terms:
    """What is done before and after a price is applied."""

    unit_conversion: UnitConversion | None = None
    discounts: Discounts | None = None
    commitments: Commitments | None = None


NO_TERMS = Terms()
