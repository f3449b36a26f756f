"""Which neighbouring rows of a chain become one; README.md has the rule."""

from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise
from typing import NamedTuple

# A pack is full with so many segments, or so many bytes before compression.
MAX_SEGMENTS = 4096
MAX_BYTES = 1 << 20
# So many neighbours of about one size, or smaller, become one.
LEAST_ROWS = 16
# Bytes of the rows of the lowest level; each next one has 16 times as many.
_SMALL_BYTES = 1 << 12
_LEVELS = 3


class Row(NamedTuple):
    """A row of segments, as far as it matters here: one segment, or a pack of [first, last]."""

    first: int
    last: int
    epoch: int
    raw_bytes: int

    @property
    def segments(self) -> int:
        """How many segments it holds."""
        return self.last - self.first + 1

    @property
    def is_full(self) -> bool:
        """Whether it stays as it is."""
        return self.raw_bytes >= MAX_BYTES // 2 or self.segments >= MAX_SEGMENTS // 2

    @property
    def level(self) -> int:
        """How large it is, in powers of 16."""
        return sum(self.raw_bytes >= _SMALL_BYTES * 16**level for level in range(_LEVELS - 1))


def plan_packs(rows: Sequence[Row]) -> list[list[Row]]:
    """Choose groups of neighbours, each to be one pack; none if there is nothing worth it."""
    for limit in range(_LEVELS):
        found = []
        for stretch in _stretches(rows, limit):
            if len(stretch) >= LEAST_ROWS:
                found += [group for group in _cut(stretch) if len(group) > 1]
        if found:
            return found
    return []


def settled_before(rows: Sequence[Row]) -> int:
    """Tell up to which position no row will ever be packed with a later one; 0 for none."""
    settled = [row.last for row in rows if row.is_full]
    settled += [before.last for before, after in pairwise(rows) if before.epoch != after.epoch]
    return max(settled, default=0)


def _stretches(rows: Sequence[Row], limit: int) -> Iterator[list[Row]]:
    """Neighbours of one writer that are small enough."""

    def kind(row: Row) -> tuple[bool, int]:
        return not row.is_full and row.level <= limit, row.epoch

    for (is_small, _), stretch in groupby(rows, kind):
        if is_small:
            yield list(stretch)


def _cut(stretch: Sequence[Row]) -> Iterator[list[Row]]:
    """Cut where a pack would become too large."""
    group: list[Row] = []
    raw_bytes = 0
    for row in stretch:
        if group and (row.last - group[0].first >= MAX_SEGMENTS or raw_bytes + row.raw_bytes > MAX_BYTES):
            yield group
            group, raw_bytes = [], 0
        group.append(row)
        raw_bytes += row.raw_bytes
    yield group
