"""Which rows become packs: neighbours of one writer, bounded, and few are left in the end."""

from hypothesis import given
from hypothesis import strategies as st

from ammeter.domain.pack import LEAST_ROWS, MAX_BYTES, MAX_SEGMENTS, Row, plan_packs, settled_before

SIZES = st.one_of(st.integers(1, 400), st.integers(1, 100_000), st.just(MAX_BYTES), st.just(MAX_BYTES // 2))


@st.composite
def chains(draw: st.DrawFn) -> list[Row]:
    """Single segments of some writers, one after the other."""
    sizes = draw(st.lists(SIZES, max_size=120))
    epochs = sorted(draw(st.lists(st.integers(1, 3), min_size=len(sizes), max_size=len(sizes))))
    return [Row(at, at, epoch, size) for at, (epoch, size) in enumerate(zip(epochs, sizes, strict=True), 1)]


def _pack(rows: list[Row], groups: list[list[Row]]) -> list[Row]:
    made = {
        group[0].first: Row(
            group[0].first, group[-1].last, group[0].epoch, sum(row.raw_bytes for row in group)
        )
        for group in groups
    }
    gone = {row.first for group in groups for row in group}
    return sorted([*(row for row in rows if row.first not in gone), *made.values()])


def _settle(rows: list[Row]) -> list[Row]:
    while groups := plan_packs(rows):
        for group in groups:
            start = rows.index(group[0])
            assert rows[start : start + len(group)] == group, "neighbours"
            assert len(group) > 1
            assert len({row.epoch for row in group}) == 1
            assert sum(row.raw_bytes for row in group) <= MAX_BYTES
            assert sum(row.segments for row in group) <= MAX_SEGMENTS
        rows = _pack(rows, groups)
    return rows


@given(chains())
def test_packing_ends_and_keeps_every_position_once(rows: list[Row]) -> None:
    settled = _settle(rows)
    held = [position for row in settled for position in range(row.first, row.last + 1)]
    assert held == [row.first for row in rows]


@given(chains(), chains())
def test_what_is_settled_is_not_packed_with_what_comes_later(rows: list[Row], more: list[Row]) -> None:
    settled = _settle(rows)
    upto = settled_before(settled)
    last = settled[-1] if settled else Row(0, 0, 0, 0)
    later = [
        Row(last.last + row.first, last.last + row.last, last.epoch + row.epoch - 1, row.raw_bytes)
        for row in more
    ]
    for group in plan_packs([*settled, *later]):
        assert group[0].first > upto


def test_a_year_of_one_event_requests_is_few_rows() -> None:
    """Two hundred a look, as they come."""
    rows: list[Row] = []
    for position in range(1, 50_001):
        rows.append(Row(position, position, 1, 175))
        if position % 200 == 0:
            rows = _settle(rows)
    assert len(rows) <= 50_000 // (MAX_SEGMENTS // 2) + 3 * LEAST_ROWS, len(rows)


def test_rows_as_large_as_they_should_be_are_left_alone() -> None:
    assert plan_packs([Row(at, at, 1, MAX_BYTES) for at in range(1, 100)]) == []
    assert plan_packs([Row(at, at, 1, 100) for at in range(1, LEAST_ROWS)]) == []
