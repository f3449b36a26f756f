"""Which spans counters keep."""

import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import assume, given
from hypothesis import strategies as st

from ammeter.domain.counter import counter_edges, days_of, renewal_minute
from ammeter.domain.minute import END, minute_of
from ammeter.domain.period import period_at
from ammeter.domain.subscription import Subscription

START = datetime(2025, 1, 1, tzinfo=UTC)
SUBSCRIPTIONS = st.builds(
    lambda anchor, zone, cadence: Subscription(
        "sub_x",
        7,
        "acme",
        1,
        "basic",
        START,
        None,
        START + timedelta(minutes=anchor),
        zone,
        cadence,
        "USD",
        START,
    ),
    st.integers(-100_000, 100_000),
    st.sampled_from(["UTC", "Europe/Berlin", "Australia/Lord_Howe", "America/New_York"]),
    st.sampled_from(["P1D", "P1W", "P1M", "P3M", "P1Y"]),
)
NOWS = st.integers(0, 3 * 366 * 1440).map(lambda minutes: START + timedelta(minutes=minutes))


@given(SUBSCRIPTIONS, NOWS)
def test_spans_are_the_billing_periods_with_two_ahead(subscription: Subscription, now: datetime) -> None:
    edges = counter_edges(subscription, now)
    for start, end in itertools.pairwise(edges):
        period = period_at(subscription, START + timedelta(minutes=start - minute_of(START)))
        assert period is not None
        assert (minute_of(period.start), minute_of(period.end)) == (start, end)
    current = [index for index, edge in enumerate(edges) if edge <= minute_of(now)][-1]
    assert len(edges) - 2 - current >= 2


@given(SUBSCRIPTIONS, NOWS, st.integers(0, 1000))
def test_renewal_comes_before_the_last_period_begins_and_not_at_once(
    subscription: Subscription, now: datetime, customer_id: int
) -> None:
    edges = counter_edges(subscription, now)
    due = renewal_minute(edges, END, customer_id)
    assert minute_of(now) < due < edges[-2]


@given(SUBSCRIPTIONS, NOWS, st.integers(1, 1000 * 1440))
def test_an_end_cuts_the_last_span_and_is_kept_for_an_hour(
    subscription: Subscription, now: datetime, minutes: int
) -> None:
    end = START + timedelta(minutes=minutes)
    edges = counter_edges(replace(subscription, end_time=end), now)
    if now - timedelta(hours=1) >= end:
        assert edges == ()
        return
    assert edges[-1] <= minute_of(end)
    if edges[-1] == minute_of(end):
        due = renewal_minute(edges, minute_of(end), 1)
        assert not counter_edges(
            replace(subscription, end_time=end), START + timedelta(minutes=due - minute_of(START))
        )


@given(SUBSCRIPTIONS, NOWS)
def test_days_cover_the_spans(subscription: Subscription, now: datetime) -> None:
    edges = counter_edges(subscription, now)
    assume(edges)
    first, last = days_of(edges)
    assert first * 1440 <= edges[0] < (first + 1) * 1440
    assert (last - 1) * 1440 < edges[-1] <= last * 1440
