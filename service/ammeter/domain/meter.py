"""How events become a quantity: the definition of a meter and its rules."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from ammeter.errors import InvalidInputError, Violation, invalid

AGGREGATIONS = ("COUNT", "SUM", "MIN", "MAX", "AVG", "UNIQUE_COUNT", "LATEST")
# Those for which an empty window has a value.
# Quantities of parts of a time add up to that of all of it.
ADDITIVE = frozenset({"COUNT", "SUM"})
ZERO_AGGREGATIONS = frozenset({"COUNT", "SUM", "UNIQUE_COUNT"})
# group_by uses these names for itself.
RESERVED_DIMENSIONS = frozenset({"subject", "customer"})

MAX_DIMENSIONS = 16
MAX_FILTERS = 16
MAX_FILTER_VALUES = 100
MAX_NAME = 256
MAX_DESCRIPTION = 2000
MAX_TEXT_BYTES = 256

_KEY_FORM = re.compile(r"[a-z][a-z0-9_-]{0,63}")
_FILTER_VALUES = {
    "EQUALS": (1, 1),
    "NOT_EQUALS": (1, 1),
    "IN": (1, MAX_FILTER_VALUES),
    "EXISTS": (0, 0),
}


@dataclass(frozen=True)
class PropertyFilter:
    """A condition on a property; operator: EQUALS, NOT_EQUALS, IN or EXISTS."""

    property: str
    operator: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Build:
    """A revision being built from history: segments read so far and in all."""

    revision_id: int
    dimensions: tuple[str, ...]
    done: int
    total: int


@dataclass(frozen=True)
class Meter:
    """A meter as it is served.

    `revision_id` is that of the served revision, None until the first build
    is done; `build` is the one under way, if any.
    """

    meter_key: str
    name: str
    description: str
    event_type: str
    aggregation: str
    value_property: str
    dimensions: tuple[str, ...]
    filters: tuple[PropertyFilter, ...]
    meter_id: int = 0
    revision_id: int | None = None
    build: Build | None = None
    skipped_count: int = 0
    skipped_events: tuple[str, ...] = ()
    version: int = 1
    create_time: datetime | None = None
    update_time: datetime | None = None

    @property
    def active(self) -> bool:
        """Whether it is served."""
        return self.revision_id is not None

    @property
    def etag(self) -> str:
        """Names this version of the definition."""
        return f'"{self.version}"'


def _text_bytes(field: str, text: str) -> Iterator[Violation]:
    if not text or len(text.encode()) > MAX_TEXT_BYTES or "\0" in text:
        yield Violation(field, f"must be 1 to {MAX_TEXT_BYTES} bytes, without NUL")


def _check_words(meter: Meter) -> Iterator[Violation]:
    if not _KEY_FORM.fullmatch(meter.meter_key):
        yield Violation("meter.meter_key", "must be 1-64 of a-z, 0-9, '_', '-', starting with a letter")
    for field, text, limit in (
        ("meter.name", meter.name, MAX_NAME),
        ("meter.description", meter.description, MAX_DESCRIPTION),
    ):
        if len(text) > limit or "\0" in text:
            yield Violation(field, f"must be at most {limit} characters, without NUL")


def _check_value(meter: Meter) -> Iterator[Violation]:
    if meter.aggregation not in AGGREGATIONS:
        yield Violation("meter.aggregation", f"must be one of {', '.join(AGGREGATIONS)}")
    elif meter.aggregation == "COUNT":
        if meter.value_property:
            yield Violation("meter.value_property", "must be empty for COUNT, which has no value")
    else:
        yield from _text_bytes("meter.value_property", meter.value_property)


def _check_dimensions(dimensions: Sequence[str]) -> Iterator[Violation]:
    if len(dimensions) > MAX_DIMENSIONS:
        yield Violation("meter.dimensions", f"must be at most {MAX_DIMENSIONS}")
    for index, dimension in enumerate(dimensions):
        field = f"meter.dimensions[{index}]"
        yield from _text_bytes(field, dimension)
        if dimension in RESERVED_DIMENSIONS:
            yield Violation(field, f"{dimension!r} is always there to group by: leave it out")
        if dimension in dimensions[:index]:
            yield Violation(field, f"{dimension!r} is there twice")


def _check_filters(filters: Sequence[PropertyFilter]) -> Iterator[Violation]:
    if len(filters) > MAX_FILTERS:
        yield Violation("meter.filters", f"must be at most {MAX_FILTERS}")
    for index, condition in enumerate(filters):
        field = f"meter.filters[{index}]"
        yield from _text_bytes(f"{field}.property", condition.property)
        if condition.operator not in _FILTER_VALUES:
            yield Violation(f"{field}.operator", f"must be one of {', '.join(_FILTER_VALUES)}")
            continue
        least, most = _FILTER_VALUES[condition.operator]
        if not least <= len(condition.values) <= most:
            count = str(least) if least == most else f"{least} to {most}"
            yield Violation(f"{field}.values", f"{condition.operator} takes {count} values")
        if any("\0" in value for value in condition.values):
            yield Violation(f"{field}.values", "must not hold NUL")


def check_meter(meter: Meter) -> None:
    """Refuse a definition that breaks a rule; raises InvalidInputError with all that is wrong."""
    violations = [
        *_check_words(meter),
        *_text_bytes("meter.event_type", meter.event_type),
        *_check_value(meter),
        *_check_dimensions(meter.dimensions),
        *_check_filters(meter.filters),
    ]
    if violations:
        raise InvalidInputError(violations)


def check_added_dimensions(before: Sequence[str], after: Sequence[str]) -> None:
    """Refuse new dimensions that are not the old ones with others appended."""
    if tuple(after[: len(before)]) != tuple(before):
        present = ", ".join(before) or "none"
        why = f"must begin with the present ones ({present}): dimensions can only be appended"
        raise invalid("meter.dimensions", why)
