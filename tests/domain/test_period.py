from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ammeter.domain.period import (
    Cadence,
    Period,
    boundaries,
    parse_cadence,
    period_at,
    period_number,
    periods_from,
)
from ammeter.domain.subscription import Subscription
from tests.model import period_boundaries

ZONES = ["UTC", "America/New_York", "Europe/Berlin", "Australia/Lord_Howe", "Pacific/Apia", "Asia/Kathmandu"]


def utc(year: int, month: int, day: int, hour: int = 0, minute: int = 0) -> datetime:
    return datetime(year, month, day, hour, minute, tzinfo=UTC)


def sub(
    start: datetime,
    anchor: datetime | None = None,
    *,
    end: datetime | None = None,
    zone: str = "UTC",
    cadence: str = "P1M",
) -> Subscription:
    return Subscription(
        "sub_1", 1, "acme", 1, "pro", start, end, anchor or start, zone, cadence, "USD", create_time=start
    )


minutes = st.datetimes(datetime(2005, 1, 1), datetime(2035, 1, 1)).map(  # noqa: DTZ001 - made aware here
    lambda time: time.replace(second=0, microsecond=0, tzinfo=UTC)
)


@st.composite
def subscriptions(draw: st.DrawFn) -> Subscription:
    start = draw(minutes)
    anchor = draw(st.one_of(st.just(start), minutes))
    length = draw(st.one_of(st.none(), st.integers(1, 60 * 24 * 800)))
    return sub(
        start,
        anchor,
        end=None if length is None else start + timedelta(minutes=length),
        zone=draw(st.sampled_from(ZONES)),
        cadence=draw(st.sampled_from(["P1D", "P3D", "P1W", "P2W", "P1M", "P2M", "P6M", "P1Y"])),
    )


def naive_periods(one: Subscription, days: int) -> list[Period]:
    """All periods that begin within so many days of the start, empty ones left out."""
    zone = ZoneInfo(one.time_zone)
    reach = timedelta(days=days + (30 if one.billing_cadence[-1] in "DW" else 800))
    edges = period_boundaries(
        one.anchor_time, zone, one.billing_cadence, one.start_time - reach, one.start_time + reach
    )
    first = max(k for k, edge in enumerate(edges) if edge <= one.start_time)
    found = []
    for k in range(first, len(edges) - 1):
        start = max(edges[k], one.start_time)
        end = min(edges[k + 1], one.end_time or edges[k + 1])
        if start < end and start < one.start_time + timedelta(days=days):
            found.append(Period(k - first, start, end, int((edges[k + 1] - edges[k]).total_seconds())))
    return found


@given(subscriptions(), st.integers(0, 60 * 24 * 20 - 1))
@example(sub(utc(2011, 12, 20, 22), zone="Pacific/Apia", cadence="P1D"), 5)
@example(sub(utc(2024, 1, 31, 5), zone="America/New_York"), 0)
@example(sub(utc(2024, 2, 29), utc(2004, 2, 29), cadence="P1Y"), 0)
def test_periods_are_those_found_by_looking_at_every_day(one: Subscription, offset: int) -> None:
    days = 20 if one.billing_cadence[-1] in "DW" else 100
    wanted = naive_periods(one, days)
    until = wanted[-1].end
    assert list(periods_from(one, 0, until)) == wanted
    for period in wanted:
        assert period_number(one, period.index) == period
        assert period_at(one, period.start) == period
        assert period_at(one, period.end - timedelta(minutes=1)) == period
    instant = one.start_time + timedelta(minutes=offset)
    around = [period for period in wanted if period.start <= instant < period.end]
    assert period_at(one, instant) == (around[0] if around else None)


@given(subscriptions())
def test_periods_cover_the_subscription_without_gap_or_overlap(one: Subscription) -> None:
    horizon = one.start_time + timedelta(days=400)
    found = list(periods_from(one, 0, horizon))
    assert [a.end for a in found[:-1]] == [b.start for b in found[1:]]
    assert not found or found[0].start == one.start_time
    assert all(0 < period.covered_seconds <= period.full_seconds for period in found)
    if one.end_time is not None and one.end_time <= horizon:
        assert found[-1].end == one.end_time


@given(subscriptions(), st.integers(0, 500), st.integers(1, 12))
def test_boundaries_are_the_edges_of_consecutive_periods(one: Subscription, days: int, count: int) -> None:
    instant = one.start_time + timedelta(days=days)
    around = period_at(one, instant)
    edges = boundaries(one, instant, count)
    if around is None:
        assert edges == []
        return
    assert edges[0] == around.start
    assert len(edges) == count or edges[-1] == one.end_time
    for start, end in pairwise(edges):
        period = period_at(one, start)
        assert period is not None
        assert (period.start, period.end) == (start, end)


def test_the_31st_clamps_to_the_month_and_comes_back() -> None:
    one = sub(utc(2024, 1, 31))
    days = [(edge.month, edge.day) for edge in boundaries(one, one.start_time, 6)]
    assert days == [(1, 31), (2, 29), (3, 31), (4, 30), (5, 31), (6, 30)]


def test_a_boundary_keeps_its_local_clock_through_daylight_saving() -> None:
    one = sub(utc(2026, 3, 1, 5), zone="America/New_York")  # midnight there
    march = period_number(one, 0)
    assert march == Period(0, utc(2026, 3, 1, 5), utc(2026, 4, 1, 4), 31 * 86_400 - 3_600)


def test_a_boundary_in_the_hour_that_is_skipped_moves_forward_by_the_gap() -> None:
    one = sub(utc(2026, 3, 7, 7, 30), zone="America/New_York", cadence="P1D")  # 02:30 there
    assert boundaries(one, one.start_time, 3) == [
        utc(2026, 3, 7, 7, 30),
        utc(2026, 3, 8, 7, 30),
        utc(2026, 3, 9, 6, 30),
    ]


def test_a_boundary_in_the_hour_that_comes_twice_is_the_first() -> None:
    one = sub(utc(2026, 10, 31, 5, 30), zone="America/New_York", cadence="P1D")  # 01:30 there
    assert boundaries(one, one.start_time, 3)[1:] == [utc(2026, 11, 1, 5, 30), utc(2026, 11, 2, 6, 30)]


def test_an_anchor_in_the_second_of_two_hours_is_a_boundary_itself() -> None:
    one = sub(utc(2026, 11, 1, 6, 30), zone="America/New_York", cadence="P1D")  # 01:30 there, the second one
    first = period_number(one, 0)
    assert first is not None
    assert first.covered_seconds == first.full_seconds == 86_400


def test_a_day_that_the_zone_skips_has_no_period() -> None:
    one = sub(utc(2011, 12, 28, 10), zone="Pacific/Apia", cadence="P1D")  # midnight; there was no 30 December
    assert [period.index for period in periods_from(one, 0, utc(2012, 1, 2, 10))] == [0, 1, 3, 4, 5]
    assert period_number(one, 2) is None


def test_the_first_period_is_short_when_the_anchor_is_elsewhere_and_the_last_is_cut_at_the_end() -> None:
    one = sub(utc(2026, 1, 20), utc(2026, 1, 1), end=utc(2026, 2, 11))
    assert list(periods_from(one, 0, utc(2030, 1, 1))) == [
        Period(0, utc(2026, 1, 20), utc(2026, 2, 1), 31 * 86_400),
        Period(1, utc(2026, 2, 1), utc(2026, 2, 11), 28 * 86_400),
    ]
    assert period_number(one, 2) is None
    assert period_at(one, utc(2026, 2, 11)) is None
    assert period_at(one, utc(2026, 1, 19)) is None


def test_a_subscription_that_ends_where_it_starts_has_no_period() -> None:
    one = sub(utc(2026, 1, 1), end=utc(2026, 1, 1))
    assert list(periods_from(one, 0, utc(2030, 1, 1))) == []
    assert boundaries(one, utc(2026, 1, 1), 5) == []


@pytest.mark.parametrize("cadence", ["P1000D", "P1000W", "P1000M", "P1000Y"])
def test_the_longest_cadences_reach_beyond_the_calendar_without_failing(cadence: str) -> None:
    one = sub(utc(2026, 1, 31), utc(9999, 12, 31), cadence=cadence)
    around = period_at(one, utc(2026, 6, 1))
    assert around is not None
    assert len(boundaries(sub(utc(2026, 1, 31), cadence=cadence), utc(2026, 1, 31), 50)) >= 2


@pytest.mark.parametrize(
    ("text", "cadence"),
    [
        ("P1M", Cadence(0, 1)),
        ("P1Y", Cadence(0, 12)),
        ("P2W", Cadence(14, 0)),
        ("P30D", Cadence(30, 0)),
        ("P1000D", Cadence(1000, 0)),
    ],
)
def test_a_cadence_is_one_count_of_one_unit(text: str, cadence: Cadence) -> None:
    assert parse_cadence(text) == cadence


@pytest.mark.parametrize(
    "text",
    [
        "",
        "P",
        "M",
        "1M",
        "P0M",
        "P1001D",
        "P01M",
        "P1.5M",
        "P1M1D",
        "P1MT1H",
        "PT1H",
        "P-1M",
        "p1m",
        "P\u0661M",
        "P1M\n",
    ],
)
def test_any_other_cadence_is_refused_with_what_to_write_instead(text: str) -> None:
    with pytest.raises(ValueError, match="such as P1M"):
        parse_cadence(text)
