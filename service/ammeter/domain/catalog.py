"""What is sold: features, rate cards, plans."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from functools import cached_property
from typing import Any, NamedTuple

from ammeter.domain.price import NO_TERMS, FlatPrice, Price, Terms


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

    @cached_property
    def criteria(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """Its filters as values: dimension and allowed values."""
        return tuple((one.dimension, one.values) for one in self.filters)

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
    """One line of a plan. `feature_key` is empty when it is for no feature; in_advance is of flat prices.

    `phase` numbers the plan's phase that it belongs to. Without one_time and
    billing_cadence it is charged as often as the plan. price_override_id: what
    it charges was agreed on with one customer. Plan and version are those it
    is published in, and empty in a draft.
    """

    rate_card_key: str
    name: str
    feature_key: str
    price: Price | None
    entitlement: Template | None
    rate_card_id: int = 0
    terms: Terms = NO_TERMS
    in_advance: bool = False
    phase: int = 0
    billing_cadence: str = ""
    one_time: bool = False
    price_override_id: str = ""
    plan_key: str = ""
    plan_version: int = 0


@dataclass(frozen=True)
class Phase:
    """A stage of a plan. `duration` is an ISO 8601 duration of one unit; empty in the last, open one."""

    phase_key: str
    name: str = ""
    duration: str = ""


# What a plan without phases has.
WHOLE = Phase("")


@dataclass(frozen=True)
class Plan:
    """A version of what is sold. state: draft, active or archived; from active on it never changes.

    `rate_cards` are those of all phases. minimum_amount is what each period
    costs at least; None: nothing. Of a draft, which may have faults, only
    `form` counts: see plan_form. `revision` counts its edits.
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
    phases: tuple[Phase, ...] = (WHOLE,)
    version: int = 1
    publish_time: datetime | None = None
    update_time: datetime | None = None
    revision: int = 1
    form: Mapping[str, Any] | None = None

    @property
    def etag(self) -> str:
        """Changes whenever the version does."""
        return f'"{self.version}.{self.revision}"'

    @cached_property
    def has_flat_price(self) -> bool:
        """Whether any of its rate cards has one."""
        return any(isinstance(card.price, FlatPrice) for card in self.rate_cards)

    @cached_property
    def recurs_in_advance(self) -> bool:
        """Whether any of its rate cards is charged in advance in a rhythm of its own."""
        return any(card.in_advance and card.billing_cadence for card in self.rate_cards)

    def cards_of(self, phase: int) -> tuple[RateCard, ...]:
        """Give the rate cards of a phase."""
        return self._cards_by_phase.get(phase, ())

    @cached_property
    def _cards_by_phase(self) -> dict[int, tuple[RateCard, ...]]:
        phases = {card.phase for card in self.rate_cards}
        return {one: tuple(card for card in self.rate_cards if card.phase == one) for one in phases}
