"""Puts entitlements' counters into the engine, from blocks and what is in memory."""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy.engine import Connection

from ammeter.domain.counter import counter_edges, counter_timeline, days_of
from ammeter.domain.grant import Timeline
from ammeter.store import blocks
from ammeter.store.blocks import RangedBlock, ranged_blocks
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


def put_for_revision(conn: Connection, engine: Engine, counts: Sequence[Count]) -> None:
    """Put many customers' counters of one revision, reading its blocks once; raises EngineError.

    `conn` sees one snapshot.
    """
    spans = [days_of(count.edges) for count in counts]
    days = (min(first for first, _ in spans), max(last for _, last in spans))
    found, checkpoint = ranged_blocks(conn, counts[0].held.tenant_id, counts[0].revision_id, *days)
    for count in counts:
        subjects = sorted(subject.encode() for subject in count.subjects)
        _put(engine, count, [block.payload for block in found if _holds_any(block, subjects)], checkpoint)


def _holds_any(block: RangedBlock, subjects: Sequence[bytes]) -> bool:
    place = bisect_left(subjects, block.subject_min)
    return place < len(subjects) and subjects[place] <= block.subject_max


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
