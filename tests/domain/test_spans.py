"""Spans of a subscription: phases on the calendar, parts of periods, what they entitle to."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise

import pytest

from ammeter.domain.catalog import BooleanTemplate, MeteredTemplate, Phase, Plan, RateCard
from ammeter.domain.period import Period
from ammeter.domain.price import FlatPrice
from ammeter.domain.spans import (
    Span,
    Use,
    anchor_of,
    cut,
    entitled,
    parts_of,
    plan_spans,
    shared,
    span_at,
    spliced,
)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def plan(*durations: str, cards: tuple[RateCard, ...] = ()) -> Plan:
    phases = tuple(Phase(f"phase{number}", "", length) for number, length in enumerate(durations))
    return Plan("basic", "", "USD", "P1M", cards, plan_id=7, phases=phases, version=3)


def starts(made: list[Span]) -> list[str]:
    return [span.start_time.isoformat()[:16] for span in made]


def fee(phase: int) -> RateCard:
    return RateCard("fee", "", "", FlatPrice(Decimal(1)), None, phase=phase)


def test_phases_follow_each_other_and_the_last_one_is_open() -> None:
    made = plan_spans(plan("P14D", "P3M", ""), at("2026-01-05T10:30"), "UTC")
    assert starts(made) == ["2026-01-05T10:30", "2026-01-19T10:30", "2026-04-19T10:30"]
    assert [span.end_time for span in made] == [made[1].start_time, made[2].start_time, None]
    assert {(span.plan_id, span.plan_version, span.quantity) for span in made} == {(7, 3, 1)}
    assert [(span.phase, span.phase_key) for span in made] == [(0, "phase0"), (1, "phase1"), (2, "phase2")]


def test_months_after_months_are_counted_from_the_first_so_they_meet_billing_boundaries() -> None:
    made = plan_spans(plan("P1M", "P1M", "P1Y", ""), at("2026-01-31T00:00"), "UTC")
    assert starts(made)[1:] == ["2026-02-28T00:00", "2026-03-31T00:00", "2027-03-31T00:00"]
    mixed = plan_spans(plan("P1M", "P1D", "P1M", ""), at("2026-01-31T00:00"), "UTC")
    assert starts(mixed)[1:] == ["2026-02-28T00:00", "2026-03-01T00:00", "2026-04-01T00:00"]


def test_days_of_a_phase_are_days_of_the_customers_clock() -> None:
    # Auckland put its clock back on 5 April 2026: that fortnight has an hour more.
    made = plan_spans(plan("P14D", ""), at("2026-03-29T11:00"), "Pacific/Auckland")
    assert made[1].start_time - made[0].start_time == timedelta(days=14, hours=1)


def test_a_phase_may_be_entered_in_the_midst_of_a_plan() -> None:
    made = plan_spans(plan("P14D", "P1M", ""), at("2026-01-05T00:00"), "UTC", phase=1, quantity=4)
    assert [(span.phase, span.quantity) for span in made] == [(1, 4), (2, 4)]
    assert starts(made)[1:] == ["2026-02-05T00:00"]


def test_phases_at_the_end_of_time_are_left_out() -> None:
    made = plan_spans(plan("P1000Y", "P1000Y", *["P1000Y"] * 10, ""), at("2026-01-01T00:00"), "UTC")
    assert len(made) <= 10
    assert made[-1].end_time is None
    assert all(one.end_time == two.start_time for one, two in pairwise(made))


def test_periods_begin_where_something_is_first_charged() -> None:
    start = at("2026-01-05T00:00")
    trial = plan("P14D", "", cards=(fee(1),))
    assert anchor_of(trial, plan_spans(trial, start, "UTC")) == at("2026-01-19T00:00")
    intro = plan("P14D", "", cards=(fee(0), fee(1)))
    assert anchor_of(intro, plan_spans(intro, start, "UTC")) == start
    nothing = replace(fee(0), price=FlatPrice(Decimal("0.00")))
    at_no_cost = plan("P14D", "", cards=(nothing, fee(1)))
    assert anchor_of(at_no_cost, plan_spans(at_no_cost, start, "UTC")) == at("2026-01-19T00:00")
    free = plan("P14D", "")
    assert anchor_of(free, plan_spans(free, start, "UTC")) == start


def test_an_end_cuts_spans_and_may_be_taken_back() -> None:
    made = plan_spans(plan("P14D", ""), at("2026-01-01T00:00"), "UTC")
    assert cut(made, None) == made
    ended = cut(made, at("2026-01-20T00:00"))
    assert [span.end_time for span in ended] == [at("2026-01-15T00:00"), at("2026-01-20T00:00")]
    assert cut(made, at("2026-01-15T00:00")) == made[:1]
    assert cut(made, at("2026-01-01T00:00")) == []
    new = Span(at("2026-01-10T00:00"), None, 8)
    assert [(span.plan_id, span.end_time) for span in spliced(made, new.start_time, [new])] == [
        (7, new.start_time),
        (8, None),
    ]


def test_the_span_around_an_instant_includes_its_first_minute_and_not_its_last() -> None:
    made = plan_spans(plan("P14D", ""), at("2026-01-01T00:00"), "UTC")
    assert span_at(made, at("2025-01-01T00:00")) == made[0]
    assert span_at(made, at("2026-01-14T23:59")) == made[0]
    assert span_at(made, at("2026-01-15T00:00")) == made[1]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_parts_of_a_period_touch_and_cover_it(count: int) -> None:
    whole = Period(4, at("2026-01-01T00:00"), at("2026-02-01T00:00"), 31 * 86_400)
    days = [1, 10, 20][:count]
    bounds: list[datetime | None] = [at(f"2026-01-{day:02}T00:00") for day in days]
    spans = [
        Span(begin, end, number)
        for number, (begin, end) in enumerate(zip(bounds, [*bounds[1:], None], strict=True))
        if begin is not None
    ]
    parts = [part for _, part in parts_of(spans, whole)]
    assert len(parts) == count
    assert (parts[0].start, parts[-1].end) == (whole.start, whole.end)
    assert [part.end for part in parts[:-1]] == [part.start for part in parts[1:]]
    assert [part.inside for part in parts] == [False, True, True][:count]
    assert sum(part.covered_seconds for part in parts) == whole.full_seconds
    assert {(part.index, part.full_seconds) for part in parts} == {(4, whole.full_seconds)}


def test_a_change_that_does_not_matter_to_a_price_does_not_cut_its_period() -> None:
    whole = Period(0, at("2026-01-01T00:00"), at("2026-02-01T00:00"), 31 * 86_400)
    middle = at("2026-01-10T00:00")
    spans = [Span(whole.start, middle, 7, quantity=2), Span(middle, None, 7, quantity=3)]
    assert len(list(parts_of(spans, whole))) == 1
    assert len(list(parts_of(spans, whole, lambda span: span.quantity))) == 2


def test_a_period_of_no_length_is_one_part() -> None:
    none = Period(0, at("2026-01-10T00:00"), at("2026-01-10T00:00"), 31 * 86_400)
    (part,) = parts_of([Span(at("2026-01-01T00:00"), None, 7)], none)
    assert part.period == none


def entitling(feature: str, template: object, phase: int) -> RateCard:
    return RateCard(feature, "", feature, None, template, phase=phase)  # type: ignore[arg-type]


def test_phases_that_give_the_same_give_it_without_a_seam() -> None:
    cards = (
        entitling("sso", BooleanTemplate(), 0),
        entitling("sso", BooleanTemplate(), 1),
        entitling("tokens", MeteredTemplate(Decimal(5), soft_limit=False), 0),
        entitling("tokens", MeteredTemplate(Decimal(9), soft_limit=False), 1),
        entitling("audit", BooleanTemplate(), 1),
    )
    sold = plan("P14D", "", cards=cards)
    made = plan_spans(sold, at("2026-01-01T00:00"), "UTC")
    change = at("2026-01-15T00:00")
    found = [(one.feature_key, one.start_time, one.end_time) for one in entitled(made, {7: sold})]
    assert sorted(found, key=repr) == sorted(
        [
            ("sso", made[0].start_time, None),
            ("tokens", made[0].start_time, None),
            ("audit", change, None),
        ],
        key=repr,
    )
    (tokens,) = (one for one in entitled(made, {7: sold}) if one.feature_key == "tokens")
    assert tokens.changes == ((change, MeteredTemplate(Decimal(9), soft_limit=False)),)


def test_features_overlap_only_at_the_same_instant() -> None:
    first = Use("sso", at("2026-01-01T00:00"), at("2026-02-01T00:00"))
    assert shared([first], [Use("sso", at("2026-02-01T00:00"), None)]) == []
    assert shared([first], [Use("sso", at("2026-01-31T23:59"), None)]) == ["sso"]
    assert shared([first], [Use("audit", at("2026-01-01T00:00"), None)]) == []
