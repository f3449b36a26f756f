"""A line's usage by group, as it is printed in the annex of an invoice."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

MAX_ROWS = 200
MAX_NAMES = 3


@dataclass(frozen=True)
class UsageGroups:
    """The greatest groups by values of `names`, with what each used; how many more there are."""

    names: tuple[str, ...]
    rows: tuple[tuple[tuple[str, ...], Decimal], ...]
    left_out_count: int = 0


def greatest(names: tuple[str, ...], groups: Mapping[tuple[str, ...], Decimal]) -> UsageGroups:
    """Order groups by quantity, the greatest first, then by values; keep as many as are printed."""
    ordered = sorted(groups.items(), key=lambda group: (-group[1], group[0]))
    return UsageGroups(names, tuple(ordered[:MAX_ROWS]), max(0, len(ordered) - MAX_ROWS))
