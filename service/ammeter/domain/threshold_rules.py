"""What a threshold must be like; every fault is listed with its field path."""

from collections.abc import Iterator

from ammeter.domain.quantity import parse_decimal, to_scaled
from ammeter.domain.threshold import LEVELLED, ThresholdKind
from ammeter.errors import InvalidInputError, Violation

MAX_THRESHOLDS = 1000


def read_level(kind: ThresholdKind | None, amount: str, percent: str) -> tuple[int | None, int | None]:
    """Read the level of a kind (None: unknown) as scaled ints; raises InvalidInputError with every fault."""
    faults = list(_check(kind, amount, percent))
    levels: list[int | None] = []
    for name, text in (("amount", amount), ("percent", percent)):
        level = None
        if text:
            try:
                level = to_scaled(parse_decimal(text, f"threshold.{name}"))
            except InvalidInputError as error:
                faults += error.violations
            else:
                faults += _check_level(f"threshold.{name}", kind, level)
        levels.append(level)
    if faults:
        raise InvalidInputError(faults)
    return levels[0], levels[1]


def _check(kind: ThresholdKind | None, amount: str, percent: str) -> Iterator[Violation]:
    if kind is None:
        yield Violation("threshold.kind", f"must be one of {', '.join(ThresholdKind)}")
    elif kind not in LEVELLED:
        for name, text in (("amount", amount), ("percent", percent)):
            if text:
                yield Violation(f"threshold.{name}", f"is not for {kind}: leave it out")
    elif bool(amount) == bool(percent):
        yield Violation("threshold.amount", "give either an amount or a percent")


def _check_level(field: str, kind: ThresholdKind | None, level: int) -> Iterator[Violation]:
    if level < 0:
        yield Violation(field, "must not be negative")
    elif level == 0 and kind is ThresholdKind.USAGE:
        yield Violation(field, "must be above zero: use of nothing is nothing to tell")
