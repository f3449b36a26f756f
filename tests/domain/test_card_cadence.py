"""A rate card's own periods fall on the model's boundaries, cover all of it, and are billed once each."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ammeter.domain.card_cadence import begun_before, own_parts
from ammeter.domain.catalog import Plan, RateCard
from ammeter.domain.catalog_rules import PlanDraft, RateCardDraft, make_plan
from ammeter.domain.period import Period, period_number
from ammeter.domain.price import FlatPrice
from ammeter.domain.spans import Span
from ammeter.domain.subscription import Subscription
from ammeter.errors import InvalidInputError
from tests.domain.test_period import sub
from tests.model import period_boundaries

START = datetime(2026, 1, 31, 10, 30, tzinfo=UTC)
NESTED = [
    ("P1M", "P1Y"),
    ("P1M", "P3M"),
    ("P2M", "P6M"),
    ("P1D", "P1W"),
    ("P3D", "P6D"),
    ("P1Y", "P1M"),
    ("P1Y", "P6M"),
    ("P2W", "P1D"),
    ("P1M", "P1M"),
]


def plan_with(cadence: str = "", *, one_time: bool = False, plan_id: int = 1, advance: bool = False) -> Plan:
    card = RateCard(
        "fee",
        "",
        "",
        FlatPrice(Decimal(1)),
        None,
        rate_card_id=plan_id * 10,
        in_advance=advance,
        billing_cadence=cadence,
        one_time=one_time,
    )
    return Plan("p", "", "USD", "P1M", (card,), plan_id=plan_id)


def all_parts(one: Subscription, plans: dict[int, Plan], *, by_start: bool, count: int = 40) -> list[Period]:
    found = []
    for index in range(count):
        period = period_number(one, index)
        if period is not None:
            found += [part.period for part in own_parts(one, period, plans, by_start=by_start)]
    return found


@given(
    st.sampled_from(NESTED),
    st.sampled_from(["UTC", "Europe/Berlin", "Australia/Lord_Howe"]),
    st.integers(0, 700),
    st.integers(0, 400),
    st.sampled_from(["start", "end"]),
)
def test_own_periods_are_the_models_each_belongs_to_one_billing_period(
    cadences: tuple[str, str], zone: str, anchor_days: int, length_days: int, belongs: str
) -> None:
    plans_cadence, own = cadences
    end = START + timedelta(days=1 + length_days)
    one = sub(START, START - timedelta(days=anchor_days), end=end, zone=zone, cadence=plans_cadence)
    parts = all_parts(one, {1: plan_with(own)}, by_start=belongs == "start", count=420)
    assert parts[0].start == START
    assert parts[-1].end == end
    assert all(first.end == second.start for first, second in pairwise(parts))
    edges = set(
        period_boundaries(
            one.anchor_time, ZoneInfo(zone), own, START - timedelta(days=1), end + timedelta(days=1)
        )
    )
    assert {part.start for part in parts[1:]} == {edge for edge in edges if START < edge < end}
    names = {(part.index, part.start if part.inside else None) for part in parts}
    assert len(names) == len(parts), "or two lines would have one name"


def test_a_part_belongs_where_it_ends_or_where_it_begins() -> None:
    one = sub(START, cadence="P1M")
    plans = {1: plan_with("P1Y")}
    assert [part.index for part in all_parts(one, plans, by_start=False)] == [11, 23, 35]
    assert [part.index for part in all_parts(one, plans, by_start=True)] == [0, 12, 24, 36]
    whole = all_parts(one, plans, by_start=True)[0]
    assert whole.covered_seconds == whole.full_seconds == 365 * 86_400


def test_a_change_of_plan_cuts_an_own_period_and_both_parts_are_of_its_length() -> None:
    change = START + timedelta(days=100)
    spans = (Span(START, change, 1), Span(change, None, 2))
    one = replace(sub(START, cadence="P1M"), spans=spans)
    plans = {1: plan_with("P1Y"), 2: plan_with("P1Y", plan_id=2)}
    first, second, *_ = all_parts(one, plans, by_start=False)
    assert (first.start, first.end, second.start) == (START, change, change)
    assert first.full_seconds == second.full_seconds == 365 * 86_400
    assert first.covered_seconds + second.covered_seconds == 365 * 86_400
    assert (first.index, second.index) == (3, 11)


def test_what_was_charged_in_advance_is_reckoned_anew_with_each_period_of_it() -> None:
    one = sub(START, cadence="P1M")
    for index, earlier in ((0, []), (5, [0]), (11, [0]), (12, []), (13, [12])):
        period = period_number(one, index)
        assert period is not None
        assert [
            each.index for each in begun_before(one, period, {1: plan_with("P1Y", advance=True)})
        ] == earlier
        assert begun_before(one, period, {1: plan_with("P1Y")}) == []


def test_one_time_is_once_whatever_plan_follows() -> None:
    change = START + timedelta(days=45)
    spans = (Span(START, change, 1), Span(change, None, 2))
    one = replace(sub(START, cadence="P1M"), spans=spans)
    both = {1: plan_with(one_time=True), 2: plan_with(one_time=True, plan_id=2)}
    assert [(part.index, part.start) for part in all_parts(one, both, by_start=True)] == [(0, START)]
    later = {1: plan_with("P1M"), 2: plan_with(one_time=True, plan_id=2)}
    found = [part for part in all_parts(one, later, by_start=True) if part.start == change]
    assert [(part.index, part.inside, part.full_seconds == part.covered_seconds) for part in found] == [
        (1, True, True)
    ]


@pytest.mark.parametrize(
    ("plan_cadence", "changes", "fields"),
    [
        ("P1M", {"billing_cadence": "P30D"}, ["billing_cadence"]),
        ("P1M", {"billing_cadence": "P1W"}, ["billing_cadence"]),
        ("P2M", {"billing_cadence": "P3M"}, ["billing_cadence"]),
        ("P1M", {"billing_cadence": "PT1H"}, ["billing_cadence"]),
        ("P1000D", {"billing_cadence": "P1D"}, ["billing_cadence"]),
        ("P1M", {"billing_cadence": "P1Y", "one_time": True}, ["billing_cadence"]),
        ("P1M", {"one_time": True, "price_kind": "unit", "price": {"unit_amount": "1"}}, ["one_time"]),
        ("P1M", {"billing_cadence": "P1Y", "price_kind": ""}, ["billing_cadence"]),
    ],
)
def test_what_does_not_nest_is_refused(plan_cadence: str, changes: dict[str, Any], fields: list[str]) -> None:
    card = {"price_kind": "flat", "price": {"amount": "1"}} | changes
    feature = "feature" if card["price_kind"] == "unit" else ""
    draft = RateCardDraft("fee", feature_key=feature, **card)
    plan = PlanDraft("p", billing_cadence=plan_cadence, rate_cards=(draft,))
    with pytest.raises(InvalidInputError) as refused:
        make_plan(plan, {"feature": ()})
    assert [one.field for one in refused.value.violations] == [
        f"plan.rate_cards[0].{field}" for field in fields
    ]


@pytest.mark.parametrize("cadences", NESTED)
def test_what_nests_is_taken(cadences: tuple[str, str]) -> None:
    card = RateCardDraft("fee", price_kind="flat", price={"amount": "1"}, billing_cadence=cadences[1])
    make_plan(PlanDraft("p", billing_cadence=cadences[0], rate_cards=(card,)), {})
