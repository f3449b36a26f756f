"""What is sold: features, prices, rate cards, plans."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any


@dataclass(frozen=True)
class DimensionFilter:
    """Keeps usage whose dimension has one of the values."""

    dimension: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Feature:
    """Something a customer may be allowed to use; `meter_key` is empty when it is not metered."""

    feature_key: str
    name: str
    meter_key: str
    filters: tuple[DimensionFilter, ...]
    feature_id: int = 0
    create_time: datetime | None = None


@dataclass(frozen=True)
class FlatPrice:
    """A fixed amount for each period, prorated by elapsed time when a period is cut short."""

    amount: Decimal


@dataclass(frozen=True)
class UnitPrice:
    """An amount for each unit used in the period; never prorated."""

    unit_amount: Decimal


Price = FlatPrice | UnitPrice


@dataclass(frozen=True)
class BooleanTemplate:
    """Yes, for as long as the subscription runs."""


@dataclass(frozen=True)
class StaticTemplate:
    """A value handed out as it is: a JSON object."""

    config: dict[str, Any]


@dataclass(frozen=True)
class MeteredTemplate:
    """An allowance for each billing period."""

    allowance: Decimal
    soft_limit: bool


Template = BooleanTemplate | StaticTemplate | MeteredTemplate


@dataclass(frozen=True)
class RateCard:
    """One line of a plan. `feature_key` is empty when it is for no feature."""

    rate_card_key: str
    name: str
    feature_key: str
    price: Price | None
    entitlement: Template | None
    rate_card_id: int = 0


@dataclass(frozen=True)
class Plan:
    """What is sold; its rate cards never change. state: active or archived."""

    plan_key: str
    name: str
    currency: str
    billing_cadence: str
    rate_cards: tuple[RateCard, ...]
    state: str = "active"
    plan_id: int = 0
    create_time: datetime | None = None
    archive_time: datetime | None = None
