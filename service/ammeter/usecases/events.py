"""Find stored events, newest first."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import sqlalchemy as sa

from ammeter.store import segments
from ammeter.store.db import Database, Tx
from ammeter.store.tables import customer_subjects, customers, meter_revisions, meters
from ammeter.usecases.engine import Engine

# What one call looks at before it answers, found or not.
_SEGMENTS_PER_CALL = 256
_BYTES_PER_CALL = 64 * 1024 * 1024
_SEGMENTS_PER_READ = 16
# More than any position or index.
NEWEST = (2**62, 2**31 - 1)
_MICROSECONDS_PER_MINUTE = 60_000_000


@dataclass(frozen=True)
class EventFilter:
    """Texts equal where not empty; times in [from_us, to_us)."""

    from_us: int
    to_us: int
    event_type: str
    subject: str
    event_id: str
    source: str


class FoundEvent(NamedTuple):
    """A stored event, at `place` in its segment; `event` is a serialized UsageEvent."""

    event: bytes
    position: int
    place: int
    recorded_us: int
    time_us: int
    digest: str
    revision_ids: Sequence[int]


def find_events(
    db: Database,
    engine: Engine,
    tenant_id: int,
    wanted: EventFilter,
    before: tuple[int, int],
    limit: int,
) -> tuple[list[FoundEvent], tuple[int, int] | None]:
    """Find events before (position, index), newest first; and where to go on, None at the beginning.

    Looks at a bounded number of segments, so that an id that does not exist
    cannot hold a thread for long.
    """
    found: list[FoundEvent] = []
    position, index = before
    read_bytes = read_segments = 0
    while read_segments < _SEGMENTS_PER_CALL and read_bytes < _BYTES_PER_CALL:
        with db.tenant(tenant_id) as tx:
            upto = position + 1 if index else position
            some = segments.newest_first(tx, upto, wanted.from_us, wanted.to_us, _SEGMENTS_PER_READ)
        for segment in some:
            below = index if segment.position == position else NEWEST[1]
            found += _scan(engine, tenant_id, segment, wanted, below, limit - len(found))
            if len(found) == limit:
                return found, (found[-1].position, found[-1].place)
            position, index = segment.position, 0
            read_segments += 1
            read_bytes += segment.raw_bytes
        if len(some) < _SEGMENTS_PER_READ:
            return found, None
    return found, (position, 0)


def _scan(
    engine: Engine,
    tenant_id: int,
    segment: segments.StoredSegment,
    wanted: EventFilter,
    below: int,
    limit: int,
) -> list[FoundEvent]:
    hits = engine.scan(
        tenant_id,
        segment.codec,
        segment.payload,
        segment.raw_bytes,
        wanted.from_us,
        wanted.to_us,
        wanted.event_type,
        wanted.subject,
        wanted.event_id,
        wanted.source,
        below,
        limit,
    )
    columns = zip(hits.events, hits.indexes, hits.times_us, hits.digests, hits.meters, strict=True)
    return [
        FoundEvent(event, segment.position, place, segment.recorded_us, time_us, digest, revisions)
        for event, place, time_us, digest, revisions in columns
    ]


def revision_keys(tx: Tx, revision_ids: set[int]) -> dict[int, str]:
    """Name the meters of served revisions."""
    query = (
        sa.select(meter_revisions.c.revision_id, meters.c.meter_key)
        .join(
            meters,
            sa.and_(
                meters.c.tenant_id == meter_revisions.c.tenant_id,
                meters.c.meter_id == meter_revisions.c.meter_id,
            ),
        )
        .where(
            meter_revisions.c.tenant_id == tx.tenant_id,
            meter_revisions.c.revision_id.in_(revision_ids),
            meter_revisions.c.state == "active",
        )
    )
    return {row.revision_id: row.meter_key for row in tx.conn.execute(query)}


def subject_owners(tx: Tx, subjects: set[str]) -> dict[str, list[tuple[int, int, str]]]:
    """Read who owns the subjects: spans of (from_minute, to_minute, customer_key)."""
    # Events may hold NUL, Postgres' texts cannot: nobody owns such a subject.
    ownable = [subject for subject in subjects if "\0" not in subject]
    query = (
        sa.select(customer_subjects, customers.c.customer_key)
        .join(
            customers,
            sa.and_(
                customers.c.tenant_id == customer_subjects.c.tenant_id,
                customers.c.customer_id == customer_subjects.c.customer_id,
            ),
        )
        .where(customer_subjects.c.tenant_id == tx.tenant_id, customer_subjects.c.subject.in_(ownable))
    )
    owners: dict[str, list[tuple[int, int, str]]] = {}
    for row in tx.conn.execute(query):
        owners.setdefault(row.subject, []).append((row.from_minute, row.to_minute, row.customer_key))
    return owners


def owner_at(spans: Sequence[tuple[int, int, str]], time_us: int) -> str:
    """Tell which customer owns a subject at an instant; "" if none."""
    minute = time_us // _MICROSECONDS_PER_MINUTE
    return next((key for first, end, key in spans if first <= minute < end), "")
