"""Puts entitlements' counters into the engine, from blocks and what is in memory."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy.engine import Connection

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


class NewCounter(NamedTuple):
    """A counter as the engine takes many."""

    counter: int
    customer_id: int
    filters: tuple[tuple[str, tuple[str, ...]], ...]
    edges: tuple[int, ...]


def new_counter(count: Count) -> NewCounter:
    """Keep of a counter to put what is needed for putting it."""
    mine = count.held.entitlement
    filters = tuple((one.dimension, one.values) for one in count.held.filters)
    return NewCounter(mine.counter, mine.customer_id, filters, count.edges)


def put_for_revision(
    conn: Connection, engine: Engine, tenant_id: int, revision_id: int, counters: Sequence[NewCounter]
) -> None:
    """Put many customers' counters of one revision in one pass over its blocks; raises EngineError.

    `conn` sees one snapshot.
    """
    spans = [days_of(one.edges) for one in counters]
    days = (min(first for first, _ in spans), max(last for _, last in spans))
    found, checkpoint = blocks.read(conn, tenant_id, revision_id, *days)
    engine.put_counters(tenant_id, revision_id, counters, found, checkpoint)


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
