"""What an invoice says: the lines of one subscription's period, and what came late for earlier ones."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import NamedTuple

from ammeter.domain.add_on import plans_of_course
from ammeter.domain.advance import advance_periods
from ammeter.domain.billing_parts import flat_parts, usage_parts
from ammeter.domain.card_cadence import begun_before
from ammeter.domain.catalog import Feature, Plan, RateCard
from ammeter.domain.coupon_line import costs_by_period
from ammeter.domain.invoice import (
    NOT_BILLED,
    PLAN,
    BilledByPart,
    InvoiceLine,
    Kind,
    Slot,
    adds_something,
    cost_of,
    flat_line,
    minimum_line,
    usage_line,
)
from ammeter.domain.late import Head, late_periods
from ammeter.domain.minute import minute_of
from ammeter.domain.money import currency_exponent
from ammeter.domain.period import Period
from ammeter.domain.price import LlmPrice, MatrixPrice, Price
from ammeter.domain.price_list import cuts, parts_of
from ammeter.domain.pricing import Usage
from ammeter.domain.subscription import Subscription, span_before
from ammeter.errors import InternalError
from ammeter.store import catalog, coupons, invoices, meters, rate_cards
from ammeter.store.db import Database, Tx
from ammeter.usecases.coupons import backdated, take_off
from ammeter.usecases.price_lists import Shelf, repricings
from ammeter.usecases.price_overrides import with_overrides
from ammeter.usecases.provide import courses_of, plans_of

# What comes after all other lines of a period.
_AFTER = {Kind.MINIMUM: 1, Kind.COUPON: 2}
# A run holds one connection and measures over another: fewer at a time than the pool has pairs.
_RUNS = 4


class Question(NamedTuple):
    """Which usage to measure: one customer's, of one feature, over windows between minutes.

    With dimensions, each combination of their values by itself.
    """

    tenant_id: int
    customer_id: int
    revision_id: int
    filters: tuple[tuple[str, tuple[str, ...]], ...]
    minutes: tuple[int, ...]
    dimensions: tuple[str, ...] = ()


class Measured(NamedTuple):
    """The usage in each window, and the position that it reflects."""

    usages: Sequence[Usage]
    position: int


@dataclass
class Known:
    """What was read for one invoice: features, and the served revisions of meters, by key."""

    features: dict[str, Feature] = field(default_factory=dict)
    revisions: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Billing:
    """What billing needs: the database, a way to measure, and how far back usage may still come.

    `begin` gives a way to measure that may remember what it read of the
    database; it is for lines that are computed together.
    """

    db: Database
    measure: Callable[[Question], Measured]
    horizon: timedelta
    gate: threading.BoundedSemaphore = field(default_factory=lambda: threading.BoundedSemaphore(_RUNS))
    shelf: Shelf = field(default_factory=Shelf)
    begin: Callable[[], Callable[[Question], Measured]] | None = None
    known: Known = field(default_factory=Known)

    def for_one(self) -> "Billing":
        """Begin an invoice: what was read for one of its lines need not be read for the next."""
        return replace(self, measure=self.begin() if self.begin else self.measure, known=Known())


def compute_lines(
    tx: Tx,
    run: Billing,
    sub: Subscription,
    slot: Slot,
    heads: Sequence[Head],
    redone: str = "",
) -> list[InvoiceLine]:
    """Compute an invoice's lines from usage as it is now and from what other standing invoices billed.

    heads: the subscription's standing invoices. `redone` is the invoice whose
    lines these will replace: it counts as not billed. The caller holds the
    subscription, or writes nothing.
    """
    run = run.for_one()
    others = [head for head in heads if head.invoice_id != redone]
    sub = with_overrides(tx, sub)
    courses = courses_of(tx, sub)
    plans = plans_of(tx, courses)
    prices = [*(one.price for one in _cards(plans)), *(one.price for one in sub.price_overrides)]
    run.known.features.update(catalog.get_features(tx, {card.feature_key for card in _cards(plans)}))
    attached = coupons.of_customer(tx, sub.customer_id)
    late = late_periods(
        others,
        slot,
        horizon=run.horizon,
        subjects_time=invoices.subjects_time(tx, sub.customer_id),
        reopened=invoices.taken_back(tx, sub.customer_id, sub.subscription_id, redone),
        repricings=[*repricings(tx, prices, others), *backdated(attached)],
    )
    own = [slot.period] if slot.ordinal == 0 else []
    advance = [*_begun_before(courses, slot.period, plans), *advance_periods(sub, slot)]
    indices = {period.index for period in (*late, *own, *advance)}
    billed = invoices.billed(tx, sub.subscription_id, indices, redone)
    exponent = currency_exponent(sub.currency)
    plans |= _superseded(tx, plans, billed)
    lines: list[InvoiceLine] = []
    flats = [
        each
        for number, one in enumerate(courses)
        for each in flat_parts(one, slot, own, advance, plans_of_course(number, courses, plans), billed)
    ]
    for card, part, seats in flats:
        paid = billed.get((card.rate_card_id, part.index, part.start), NOT_BILLED)
        lines.append(flat_line(sub, card, part, exponent, billed=paid, carrier=slot, seats=seats))
    for card, parts in (each for one in courses for each in usage_parts(one, late + own, plans)):
        for part, usage, position in usage_of(tx, run, sub, card, parts):
            so_far = billed.get((card.rate_card_id, part.index, part.start), NOT_BILLED)
            carrier = slot if not own or part.index != own[0].index else None
            lines.append(
                usage_line(
                    sub, card, part, usage, position, billed=so_far, exponent=exponent, carrier=carrier
                )
            )
    lines += [
        minimum_line(
            sub,
            least,
            period,
            cost_of(period, lines, billed),
            billed=billed.get((PLAN, period.index, period.start), NOT_BILLED),
            exponent=exponent,
            carrier=None if period in own else slot,
        )
        for period in late + own
        if (least := plans[span_before(sub, period.end).plan_id].minimum_amount) is not None
    ]
    if attached:
        costs = costs_by_period((*late, *own, *advance), lines, billed, _cards(plans))
        lines += take_off(tx, sub, slot, (late, advance, own), costs, attached, redone, exponent)
    return _in_order(lines, own, plans)


def _cards(plans: Mapping[int, Plan]) -> list[RateCard]:
    return [card for plan in plans.values() for card in plan.rate_cards]


def _begun_before(courses: Sequence[Subscription], period: Period, plans: Mapping[int, Plan]) -> list[Period]:
    found = (each for one in courses for each in begun_before(one, period, plans))
    by_index = {each.index: each for each in found}
    return [by_index[index] for index in sorted(by_index)]


def _superseded(tx: Tx, plans: Mapping[int, Plan], billed: BilledByPart) -> dict[int, Plan]:
    """Read the plans that something was billed by and that the subscription is on no more."""
    known = {card.rate_card_id for card in _cards(plans)}
    others = rate_cards.plans_of_cards(tx, {card for card, *_ in billed} - known - {PLAN})
    return catalog.get_plans_by_id(tx, others) if others else {}


def _in_order(
    lines: Sequence[InvoiceLine], own: Sequence[Period], plans: Mapping[int, Plan]
) -> list[InvoiceLine]:
    """Put the own period first, then others, by part and as in the plan; leave out what adds nothing.

    The usage of the own period is shown in any case.
    """
    places = {card.rate_card_id: place for place, card in enumerate(_cards(plans))}
    indices = {period.index for period in own}

    def place(line: InvoiceLine) -> tuple[bool, int, int, datetime, int]:
        number = places.get(line.rate_card_id or PLAN, 0)
        after = _AFTER.get(line.kind, 0)
        return line.period_index not in indices, line.period_index, after, line.period_start_time, number

    kept = [line for line in lines if line.kind is Kind.USAGE or adds_something(line)]
    return sorted(kept, key=place)


def usage_of(
    tx: Tx, run: Billing, sub: Subscription, card: RateCard, periods: Sequence[Period]
) -> Iterator[tuple[Period, Usage, int]]:
    """Measure a rate card's usage in periods, all at one position.

    Raises PreconditionError (METER_BUILDING) when its meter is not served yet.
    """
    if not periods or card.price is None:
        return
    feature, revision_id = _metered(tx, run.known, card)
    spans = [(minute_of(period.start), minute_of(period.end)) for period in periods]
    price = card.price
    book = run.shelf.book(tx, price) if isinstance(price, LlmPrice) else {}
    edges = {minute for span in spans for minute in span}
    if isinstance(price, LlmPrice):
        edges.update(*(cuts(price, book, *span) for span in spans))
    minutes = tuple(sorted(edges))
    question = Question(
        tenant_id=tx.tenant_id,
        customer_id=sub.customer_id,
        revision_id=revision_id,
        filters=tuple((one.dimension, one.values) for one in feature.filters),
        minutes=minutes,
        dimensions=_dimensions(price),
    )
    measured = run.measure(question)
    for period, (start, end) in zip(periods, spans, strict=True):
        # Periods do not overlap, so each is one window, or several where a price changes within;
        # windows between them are left aside.
        first, last = minutes.index(start), minutes.index(end)
        usage = measured.usages[first]
        if isinstance(price, LlmPrice):
            windows = zip(minutes[first:last], measured.usages[first:last], strict=True)
            usage = parts_of(price, book, list(windows))
        yield period, usage, measured.position


def _metered(tx: Tx, known: Known, card: RateCard) -> tuple[Feature, int]:
    """Find a rate card's feature and what its meter is served by; raises PreconditionError."""
    feature = known.features.get(card.feature_key) or catalog.get_feature(tx, card.feature_key)
    if feature is None or not feature.meter_key:
        raise InternalError(f"rate card {card.rate_card_key} is priced by usage but has no meter")
    revision_id = known.revisions.get(feature.meter_key)
    if revision_id is None:
        revision_id = meters.served_revision(meters.get_meter(tx, feature.meter_key))
        known.revisions[feature.meter_key] = revision_id
    return feature, revision_id


def _dimensions(price: Price) -> tuple[str, ...]:
    """Say by what a price wants its usage grouped."""
    if isinstance(price, LlmPrice):
        return (price.model_dimension,)
    return price.dimensions if isinstance(price, MatrixPrice) else ()
