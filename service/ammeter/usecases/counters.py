"""Puts entitlements' counters into the engine, from blocks and what is in memory."""

from array import array
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy.engine import Connection

from ammeter.domain.catalog import DimensionFilter
from ammeter.domain.counter import counter_edges, counter_timeline, days_of
from ammeter.domain.grant import Timeline
from ammeter.store import blocks
from ammeter.store.entitlements import Held
from ammeter.usecases.engine import Engine


class Count(NamedTuple):
    """A counter to put: usage of `subjects`' owner between `edges` (minutes), by a meter's revision.

    `renewal` are the edges that say when further ones are needed; `timeline`
    is there where more than an allowance is burnt.
    """

    held: Held
    revision_id: int
    edges: tuple[int, ...]
    subjects: frozenset[str]
    renewal: tuple[int, ...]
    timeline: Timeline | None


def counts_of(held: Iterable[Held], subjects: frozenset[str], now: datetime) -> list[Count]:
    """Say which counters a customer's entitlements need now."""
    counts = (_count(one, subjects, now) for one in held)
    return [count for count in counts if count is not None]


def _count(held: Held, subjects: frozenset[str], now: datetime) -> Count | None:
    if held.course is None or held.revision_id is None:
        return None
    if held.is_plain:
        edges = counter_edges(held.course, now)
        return Count(held, held.revision_id, edges, subjects, edges, None) if edges else None
    found = counter_timeline(held.terms, held.grants, now) if held.terms else None
    if found is None:
        return None
    timeline, renewal = found
    return Count(held, held.revision_id, timeline.edges, subjects, renewal, timeline)


def put_for_customer(conn: Connection, engine: Engine, counts: Iterable[Count]) -> None:
    """Put the counters of one customer, reading only blocks that hold its subjects; raises EngineError."""
    for count in counts:
        customers = [count.held.entitlement.customer_id]
        days = days_of(count.edges)
        payloads, checkpoint = blocks.read(
            conn, count.held.tenant_id, count.revision_id, *days, customers=customers
        )
        _put(engine, count, payloads, checkpoint)


class CounterColumns:
    """Many counters of one revision, as the engine takes them: what several share is there once."""

    def __init__(self) -> None:
        """Start with none."""
        self._counters = array("Q")
        self._customers = array("Q")
        self._filter = array("I")
        self._course = array("I")
        self._filters: dict[tuple[DimensionFilter, ...], int] = {}
        self._courses: dict[tuple[int, ...], int] = {}

    def add(
        self, counter: int, customer_id: int, filters: tuple[DimensionFilter, ...], edges: tuple[int, ...]
    ) -> None:
        """Take a counter of a customer's usage between edges (minutes)."""
        self._counters.append(counter)
        self._customers.append(customer_id)
        self._filter.append(self._filters.setdefault(filters, len(self._filters)))
        self._course.append(self._courses.setdefault(edges, len(self._courses)))

    def put(self, conn: Connection, engine: Engine, tenant_id: int, revision_id: int) -> None:
        """Put all in one pass over the revision's blocks; raises EngineError. `conn` sees one snapshot."""
        spans = [days_of(edges) for edges in self._courses]
        days = (min(first for first, _ in spans), max(last for _, last in spans))
        found, checkpoint = blocks.read(conn, tenant_id, revision_id, *days)
        engine.put_counters(
            tenant_id,
            revision_id,
            self._counters,
            self._customers,
            self._filter,
            self._course,
            [[(one.dimension, one.values) for one in filters] for filters in self._filters],
            list(self._courses),
            found,
            checkpoint,
        )


def _put(engine: Engine, count: Count, payloads: Sequence[bytes], checkpoint: int) -> None:
    engine.put_counter(
        count.held.tenant_id,
        count.held.entitlement.counter,
        count.revision_id,
        count.held.entitlement.customer_id,
        [(one.dimension, one.values) for one in count.held.filters],
        count.edges,
        payloads,
        checkpoint,
    )
