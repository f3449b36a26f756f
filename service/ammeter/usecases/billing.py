"""What an invoice says: the lines of one subscription's period, and what came late for earlier ones."""

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from typing import NamedTuple

from ammeter.domain.catalog import FlatPrice, RateCard
from ammeter.domain.invoice import (
    Billed,
    InvoiceLine,
    Slot,
    adds_something,
    flat_line,
    usage_line,
)
from ammeter.domain.late import Head, late_periods
from ammeter.domain.minute import minute_of
from ammeter.domain.money import currency_exponent
from ammeter.domain.period import Period
from ammeter.domain.subscription import Subscription
from ammeter.errors import InternalError
from ammeter.store import catalog, invoices, meters
from ammeter.store.db import Database, Tx

# A run holds one connection and measures over another: fewer at a time than the pool has pairs.
_RUNS = 4


class Question(NamedTuple):
    """Which usage to measure: one customer's, of one feature, over windows between minutes."""

    tenant_id: int
    customer_id: int
    revision_id: int
    filters: tuple[tuple[str, tuple[str, ...]], ...]
    minutes: tuple[int, ...]


class Measured(NamedTuple):
    """The quantity in each window, and the position that they reflect."""

    quantities: Sequence[Decimal]
    position: int


@dataclass(frozen=True)
class Billing:
    """What billing needs: the database, a way to measure, and how far back usage may still come."""

    db: Database
    measure: Callable[[Question], Measured]
    horizon: timedelta
    gate: threading.BoundedSemaphore = field(default_factory=lambda: threading.BoundedSemaphore(_RUNS))


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
    others = [head for head in heads if head.invoice_id != redone]
    late = late_periods(
        others,
        slot,
        horizon=run.horizon,
        subjects_time=invoices.subjects_time(tx, sub.customer_id),
        reopened=invoices.taken_back(tx, sub.customer_id, sub.subscription_id, redone),
    )
    own = [slot.period] if slot.ordinal == 0 else []
    billed = invoices.billed(tx, sub.subscription_id, [period.index for period in late + own], redone)
    exponent = currency_exponent(sub.currency)
    own_lines: list[InvoiceLine] = []
    late_lines: list[InvoiceLine] = []
    for card in _priced_cards(tx, sub):
        if isinstance(card.price, FlatPrice):
            own_lines += [flat_line(sub, card, period, exponent) for period in own]
            continue
        for period, total, position in _usage(tx, run, sub, card, late + own):
            so_far = billed.get((card.rate_card_id, period.index), Billed())
            carrier = None if period in own else slot
            line = usage_line(
                sub, card, period, total, position, billed=so_far, exponent=exponent, carrier=carrier
            )
            if carrier is None:
                own_lines.append(line)
            elif adds_something(line):
                late_lines.append(line)
    late_lines.sort(key=lambda line: line.period_index)  # stable: within a period as in the plan
    return own_lines + late_lines


def _priced_cards(tx: Tx, sub: Subscription) -> list[RateCard]:
    plan = catalog.get_plan_by_id(tx, sub.plan_id)
    if plan is None:
        raise InternalError(f"plan {sub.plan_key} of subscription {sub.subscription_id} is gone")
    return [card for card in plan.rate_cards if card.price is not None]


def _usage(
    tx: Tx, run: Billing, sub: Subscription, card: RateCard, periods: Sequence[Period]
) -> Iterator[tuple[Period, Decimal, int]]:
    """Measure a rate card's usage in periods, all at one position.

    Raises PreconditionError (METER_BUILDING) when its meter is not served yet.
    """
    if not periods:
        return
    feature = catalog.get_feature(tx, card.feature_key)
    if feature is None or not feature.meter_key:
        raise InternalError(f"rate card {card.rate_card_key} has a unit price but no meter")
    spans = [(minute_of(period.start), minute_of(period.end)) for period in periods]
    minutes = tuple(sorted({minute for span in spans for minute in span}))
    question = Question(
        tenant_id=tx.tenant_id,
        customer_id=sub.customer_id,
        revision_id=meters.served_revision(meters.get_meter(tx, feature.meter_key)),
        filters=tuple((one.dimension, one.values) for one in feature.filters),
        minutes=minutes,
    )
    measured = run.measure(question)
    for period, (start, _) in zip(periods, spans, strict=True):
        # Periods do not overlap, so each is one window; windows between them are left aside.
        yield period, measured.quantities[minutes.index(start)], measured.position
