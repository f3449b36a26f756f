"""What a tenant wants to be told about use and balances, and when it holds. Quantities are scaled ints."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

_HUNDRED = 100 * 10**12


class ThresholdKind(StrEnum):
    """What is told; the words of the API without their prefix."""

    USAGE = "USAGE"
    BALANCE = "BALANCE"
    LOW_BALANCE = "LOW_BALANCE"
    EXHAUSTED = "EXHAUSTED"
    RESET = "RESET"


LEVELLED = frozenset({ThresholdKind.USAGE, ThresholdKind.BALANCE, ThresholdKind.LOW_BALANCE})


@dataclass(frozen=True)
class Threshold:
    """A rule; keys are empty where it is about any. Kinds with a level have an amount or a percent."""

    threshold_id: str
    customer_key: str
    feature_key: str
    kind: ThresholdKind
    amount: int | None
    percent: int | None
    create_time: datetime


class Standing(NamedTuple):
    """A metered entitlement in one of its usage periods: `left` is below zero in overage."""

    left: int
    usage: int
    start_minute: int
    end_minute: int
    # Whether the entitlement had a period before this one.
    is_further: bool


def holds(rule: Threshold, standing: Standing, made_minute: int) -> bool:
    """Tell whether what a rule is about is so; `made_minute` is when the rule was made."""
    left, usage = standing.left, standing.usage
    if rule.kind is ThresholdKind.RESET:
        return standing.is_further and standing.start_minute > made_minute
    if rule.kind is ThresholdKind.EXHAUSTED:
        return left <= 0
    value = usage if rule.kind is ThresholdKind.USAGE else left
    if rule.percent is not None:
        # value / total against percent / 100, with whole numbers only.
        total = max(left + usage, 0)
        value, level = value * _HUNDRED, rule.percent * total
    else:
        level = rule.amount or 0
    if rule.kind is ThresholdKind.LOW_BALANCE:
        return value <= level
    if rule.kind is ThresholdKind.USAGE:
        return usage > 0 and value >= level
    return value >= level
