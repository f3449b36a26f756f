"""When credits should be topped up, and the event that says so."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import NamedTuple

from ammeter.domain.money import round_money
from ammeter.errors import InvalidInputError, Violation


class CreditEventKind(StrEnum):
    """What somebody should act on."""

    TOP_UP_NEEDED = "top_up_needed"


@dataclass(frozen=True)
class TopUpRule:
    """Below `threshold` so much is needed; `armed` while the next fall is still to be told."""

    threshold: Decimal
    amount: Decimal
    armed: bool = True
    version: int = 0
    update_time: datetime | None = None


@dataclass(frozen=True)
class CreditEvent:
    """A row for whoever acts; available, threshold and amount as they were then."""

    credit_event_id: str
    kind: CreditEventKind
    customer_id: int
    customer_key: str
    currency: str
    available: Decimal
    threshold: Decimal
    amount: Decimal
    create_time: datetime


class Verdict(NamedTuple):
    """What a look at a balance says."""

    tell: bool
    armed: bool


def judge(rule: TopUpRule, available: Decimal) -> Verdict:
    """Tell a fall below the threshold once: armed again when the balance is back at it."""
    low = available < rule.threshold
    return Verdict(tell=low and rule.armed, armed=not low)


def check_rule(rule: TopUpRule, exponent: int) -> None:
    """Refuse a rule that cannot be, telling all faults; raises InvalidInputError."""
    violations = []
    for field in ("threshold", "amount"):
        value: Decimal = getattr(rule, field)
        if value <= 0 or round_money(value, exponent) != value:
            why = f"must be more than 0 with at most {exponent} digits after the point"
            violations.append(Violation(f"rule.{field}", why))
    if violations:
        raise InvalidInputError(violations)
