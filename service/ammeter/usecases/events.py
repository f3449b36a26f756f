"""Find stored events, newest first."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ammeter.store import segments
from ammeter.store.db import Database
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

    Looks at a bounded number of rows, so that an id that does not exist
    cannot hold a thread for long.
    """
    found: list[FoundEvent] = []
    position, index = before
    read_bytes = read_segments = 0
    while read_segments < _SEGMENTS_PER_CALL and read_bytes < _BYTES_PER_CALL:
        with db.tenant(tenant_id) as tx:
            upto = position + 1 if index else position
            some = segments.newest_first(tx, upto, wanted.from_us, wanted.to_us, _SEGMENTS_PER_READ)
        for row in some:
            found += _scan(engine, tenant_id, row, wanted, (position, index), limit - len(found))
            if len(found) == limit:
                return found, (found[-1].position, found[-1].place)
            position, index = row.first, 0
            read_segments += 1
            read_bytes += row.raw_bytes
        if len(some) < _SEGMENTS_PER_READ:
            return found, None
    return found, (position, 0)


def _scan(
    engine: Engine,
    tenant_id: int,
    row: segments.StoredSegment,
    wanted: EventFilter,
    before: tuple[int, int],
    limit: int,
) -> list[FoundEvent]:
    hits = engine.scan(
        tenant_id,
        row.position,
        row.codec,
        row.payload,
        row.raw_bytes,
        row.parts,
        wanted.from_us,
        wanted.to_us,
        wanted.event_type,
        wanted.subject,
        wanted.event_id,
        wanted.source,
        before,
        limit,
    )
    recorded = hits.recorded_us if row.parts else [row.recorded_us] * len(hits.events)
    columns = (
        hits.events,
        hits.positions,
        hits.indexes,
        recorded,
        hits.times_us,
        hits.digests,
        hits.meters,
    )
    return [FoundEvent(*event) for event in zip(*columns, strict=True)]


def owner_at(spans: Sequence[tuple[int, int, str]], time_us: int) -> str:
    """Tell which customer owns a subject at an instant; "" if none."""
    minute = time_us // _MICROSECONDS_PER_MINUTE
    return next((key for first, end, key in spans if first <= minute < end), "")
