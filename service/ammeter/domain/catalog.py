"""What is sold: features, rate cards, plans."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, NamedTuple

from ammeter.domain.price import NO_TERMS, Price, Terms


@dataclass(frozen=True)
class DimensionFilter:
    """Keeps usage whose dimension has one of the values."""

    dimension: str
    values: tuple[str, ...]


class FailMode(StrEnum):
    """What a caller of checks does while it gets no answer; the words of the API without their prefix."""

    CLOSED = "CLOSED"
    OPEN = "OPEN"
    OPEN_WITHIN = "OPEN_WITHIN"


class FailRule(NamedTuple):
    """A feature's fail mode; `allowance` is there for OPEN_WITHIN only."""

    mode: FailMode = FailMode.CLOSED
    allowance: Decimal | None = None


CLOSED = FailRule()


@dataclass(frozen=True)
class Feature:
    """Something a customer may be allowed to use; `meter_key` is empty when it is not metered."""

    feature_key: str
    name: str
    meter_key: str
    filters: tuple[DimensionFilter, ...]
    feature_id: int = 0
    create_time: datetime | None = None
    fail: FailRule = CLOSED
    version: int = 1

    @property
    def etag(self) -> str:
        """A word that changes with every update."""
        return f'"{self.version}"'


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
    """One line of a plan. `feature_key` is empty when it is for no feature; in_advance is of flat prices."""

    rate_card_key: str
    name: str
    feature_key: str
    price: Price | None
    entitlement: Template | None
    rate_card_id: int = 0
    terms: Terms = NO_TERMS
    in_advance: bool = False


@dataclass(frozen=True)
class Plan:
    """What is sold; its rate cards never change. state: active or archived.

    minimum_amount is what each period costs at least; None: nothing.
    """

    plan_key: str
    name: str
    currency: str
    billing_cadence: str
    rate_cards: tuple[RateCard, ...]
    state: str = "active"
    plan_id: int = 0
    create_time: datetime | None = None
    archive_time: datetime | None = None
    minimum_amount: Decimal | None = None
