"""What a subscription is on, and when: dated spans, from which everything else follows.

A span is a stretch in which plan version, phase and quantity stay the same.
Spans follow each other without gaps from the subscription's start, and run on
as if it had no end; its end cuts them, so that it can be taken back.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import groupby
from typing import NamedTuple

from ammeter.domain.catalog import MeteredTemplate, Plan, RateCard, Template
from ammeter.domain.period import Period, after, parse_cadence, part_of
from ammeter.domain.price import FlatPrice
from ammeter.domain.price_form import may_charge


@dataclass(frozen=True)
class Span:
    """[start_time, end_time) on a phase of a plan's version, by number; the last one is open."""

    start_time: datetime
    end_time: datetime | None
    plan_id: int
    phase: int = 0
    quantity: int = 1
    plan_key: str = ""
    plan_version: int = 1
    phase_key: str = ""

    @property
    def stage(self) -> tuple[int, int]:
        """What decides the rate cards."""
        return self.plan_id, self.phase


class Part(NamedTuple):
    """A part of a billing period in which some of what a span says stays the same."""

    span: Span
    period: Period


def plan_spans(plan: Plan, start: datetime, zone: str, *, phase: int = 0, quantity: int = 1) -> list[Span]:
    """Lay the phases of a plan, from one on, one after the other.

    Months that follow months, and days that follow days, are counted from
    where the first of them began: 31 January, 28 February, 31 March.
    """
    spans: list[Span] = []
    base, days, months = start, 0, 0
    for number, each in enumerate(plan.phases[phase:], start=phase):
        end = None
        if each.duration:
            length = parse_cadence(each.duration)
            if (days and length.months) or (months and length.days):
                base, days, months = start, 0, 0
            days, months = days + length.days, months + length.months
            end = after(base, zone, days=days, months=months)
        spans.append(
            Span(start, end, plan.plan_id, number, quantity, plan.plan_key, plan.version, each.phase_key)
        )
        if end is None:
            break
        start = end
    return [span for span in spans if span.end_time is None or span.start_time < span.end_time]


def anchor_of(plan: Plan, spans: Sequence[Span]) -> datetime:
    """Say where billing periods begin unless somebody says otherwise: where something is first charged."""
    for span in spans:
        if plan.minimum_amount is not None or any(map(may_charge, plan.cards_of(span.phase))):
            return span.start_time
    return spans[0].start_time


def span_at(spans: Sequence[Span], instant: datetime) -> Span:
    """Give the span around an instant; before the first the first, after the last the last."""
    begun = [span for span in spans if span.start_time <= instant]
    return begun[-1] if begun else spans[0]


def cut(spans: Iterable[Span], end: datetime | None) -> list[Span]:
    """Leave what lies before an end."""
    if end is None:
        return list(spans)
    return [
        span if span.end_time is not None and span.end_time <= end else replace(span, end_time=end)
        for span in spans
        if span.start_time < end
    ]


def spliced(spans: Sequence[Span], time: datetime, following: Iterable[Span]) -> tuple[Span, ...]:
    """Put other spans in the place of all that is from a time on."""
    return (*cut(spans, time), *following)


def _stage(span: Span) -> object:
    return span.stage


def sameness(card: RateCard) -> Callable[[Span], object]:
    """Say what of a span a rate card depends on: for a price per seat the quantity, too."""
    if isinstance(card.price, FlatPrice) and card.price.per_seat:
        return lambda span: (span.stage, span.quantity)
    return _stage


def parts_of(
    spans: Iterable[Span], period: Period, same: Callable[[Span], object] = _stage
) -> Iterator[Part]:
    """Cut a period where `same` changes, by default plan version or phase.

    A part that begins inside of the period is marked so. A period of no
    length is one part.
    """
    there = [span for span in spans if span.end_time is None or span.end_time > period.start]
    runs = [there] if len(there) == 1 else [list(group) for _, group in groupby(there, same)]
    for run in runs:
        start = max(run[0].start_time, period.start)
        end = period.end if run[-1].end_time is None else min(run[-1].end_time, period.end)
        if start < end or (start == period.start and not period.covered_seconds):
            yield Part(run[0], part_of(period, start, end))
        if end >= period.end:
            return


class Wanted(NamedTuple):
    """An entitlement that spans give over [start_time, end_time).

    A metered one may have another allowance from some time on: `changes`.
    """

    feature_key: str
    template: Template
    start_time: datetime
    end_time: datetime | None
    changes: tuple[tuple[datetime, MeteredTemplate], ...] = ()

    @property
    def latest(self) -> Template:
        """What it is like at its end."""
        return self.changes[-1][1] if self.changes else self.template


def entitled(spans: Iterable[Span], plans: Mapping[int, Plan]) -> list[Wanted]:
    """List what spans entitle to.

    Spans that give the same, one after the other, give it once; so do those
    that meter the same feature, with an allowance that changes.
    """
    found: list[Wanted] = []
    open_ones: dict[str, int] = {}
    for span in spans:
        for card in plans[span.plan_id].cards_of(span.phase):
            if card.entitlement is None:
                continue
            wanted = Wanted(card.feature_key, card.entitlement, span.start_time, span.end_time)
            before = open_ones.get(card.feature_key)
            if before is not None and found[before].end_time == wanted.start_time:
                longer = _continued(found[before], wanted)
                if longer is not None:
                    found[before] = longer
                    continue
            open_ones[card.feature_key] = len(found)
            found.append(wanted)
    return found


def _continued(before: Wanted, wanted: Wanted) -> Wanted | None:
    """Make one of two, if they are alike."""
    longer = before._replace(end_time=wanted.end_time)
    if before.latest == wanted.template:
        return longer
    if isinstance(before.latest, MeteredTemplate) and isinstance(wanted.template, MeteredTemplate):
        return longer._replace(changes=(*before.changes, (wanted.start_time, wanted.template)))
    return None


class Use(NamedTuple):
    """A feature that is priced or given over [start_time, end_time)."""

    feature_key: str
    start_time: datetime
    end_time: datetime | None


def uses(spans: Iterable[Span], features: Mapping[tuple[int, int], Iterable[str]]) -> Iterator[Use]:
    """Say which features spans are about, from the features of each plan's phase."""
    for span in spans:
        for key in sorted(features.get(span.stage, ())):
            yield Use(key, span.start_time, span.end_time)


def shared(mine: Iterable[Use], theirs: Iterable[Use]) -> list[str]:
    """List the features that two have at the same instant."""
    other = list(theirs)
    return sorted({one.feature_key for one in mine for two in other if _meet(one, two)})


def _meet(one: Use, two: Use) -> bool:
    return (
        one.feature_key == two.feature_key
        and (two.end_time is None or one.start_time < two.end_time)
        and (one.end_time is None or two.start_time < one.end_time)
    )


def phase_named(plan: Plan, phase_key: str) -> int | None:
    """Find the number of a plan's phase by its key."""
    return next((number for number, one in enumerate(plan.phases) if one.phase_key == phase_key), None)
