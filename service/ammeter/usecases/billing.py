"""What billing is done with: the database, usage that can be measured, prices of lists."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import NamedTuple, Protocol

from ammeter import metrics
from ammeter.domain.catalog import RateCard
from ammeter.domain.period import Period
from ammeter.domain.price import LlmPrice, MatrixPrice, Price
from ammeter.domain.price_list import cuts, parts_of
from ammeter.domain.pricing import Usage
from ammeter.domain.subscription import Subscription
from ammeter.store.db import Database, Tx
from ammeter.usecases.known import Known
from ammeter.usecases.orders import Hands
from ammeter.usecases.price_lists import Shelf

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


class Tally(Protocol):
    """Hears what billing does, for metrics."""

    def count(self, counts: Mapping[str, int]) -> None:
        """Hear of invoices made, issued, and failed to be either."""

    def time(self, seconds: float) -> None:
        """Hear how long a transaction took."""


class _Metrics:
    """Tells this process' metrics."""

    def count(self, counts: Mapping[str, int]) -> None:
        for what, number in counts.items():
            metrics.INVOICES.labels(what).inc(number)

    def time(self, seconds: float) -> None:
        metrics.BILLING_SECONDS.observe(seconds)


@dataclass(frozen=True)
class Billing:
    """What billing needs: the database, a way to measure, and how far back usage may still come.

    `measure` answers many questions at once, in their order. `hands`: who
    carries out orders; without, whoever gives them.
    """

    db: Database
    measure: Callable[[Sequence[Question]], list[Measured]]
    horizon: timedelta
    gate: threading.BoundedSemaphore = field(default_factory=lambda: threading.BoundedSemaphore(_RUNS))
    shelf: Shelf = field(default_factory=Shelf)
    tally: Tally = field(default_factory=_Metrics)
    hands: Hands | None = None

    @contextmanager
    def transaction(self, tenant_id: int) -> Iterator[Tx]:
        """Begin a transaction that makes or issues invoices, when there is room for it."""
        with self.gate:
            started = time.perf_counter()
            try:
                with self.db.tenant(tenant_id) as tx:
                    yield tx
            finally:
                self.tally.time(time.perf_counter() - started)


class Asked(NamedTuple):
    """Parts of periods in which a rate card is in force, and what to ask of its usage in them."""

    card: RateCard
    parts: Sequence[Period]
    question: Question


def asked_of(
    known: Known, tenant_id: int, sub: Subscription, card: RateCard, parts: Sequence[Period]
) -> Asked | None:
    """Say what to ask of a rate card's usage; nothing for no parts.

    Raises PreconditionError (METER_BUILDING) when its meter is not served yet.
    """
    price = card.price
    if not parts or price is None:
        return None
    feature, revision_id = known.metered(card)
    question = Question(
        tenant_id=tenant_id,
        customer_id=sub.customer_id,
        revision_id=revision_id,
        filters=feature.criteria,
        minutes=_edges(known, price, parts),
        dimensions=_dimensions(price),
    )
    return Asked(card, parts, question)


def _edges(known: Known, price: Price, parts: Sequence[Period]) -> tuple[int, ...]:
    """List where parts begin and end, and where a price of a list changes within."""
    edges = {minute for part in parts for minute in part.minutes}
    if isinstance(price, LlmPrice):
        edges.update(*(cuts(price, known.book(price), *part.minutes) for part in parts))
    return tuple(sorted(edges))


def usage_of(known: Known, asked: Asked, measured: Measured) -> Iterator[tuple[Period, Usage]]:
    """Read the usage of each part out of the answer."""
    price, minutes = asked.card.price, asked.question.minutes
    for part in asked.parts:
        # Parts do not overlap, so each is one window, or several where a price changes within;
        # windows between them are left aside.
        first = minutes.index(part.minutes[0])
        usage = measured.usages[first]
        if isinstance(price, LlmPrice):
            last = minutes.index(part.minutes[1])
            windows = zip(minutes[first:last], measured.usages[first:last], strict=True)
            usage = parts_of(price, known.book(price), list(windows))
        yield part, usage


def _dimensions(price: Price) -> tuple[str, ...]:
    """Say by what a price wants its usage grouped."""
    if isinstance(price, LlmPrice):
        return (price.model_dimension,)
    return price.dimensions if isinstance(price, MatrixPrice) else ()
