"""Rows of segments that become packs: found, taken, replaced."""

from typing import NamedTuple, Protocol

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ammeter.domain.pack import Row
from ammeter.store import schema
from ammeter.store.segments import StoredSegment
from ammeter.store.tables import checkpoints, segments, tenants

# The revision that brought packs: who does not know it cannot read them.
SINCE = 19


class NewPack(Protocol):
    """What put needs to know of a pack."""

    @property
    def position(self) -> int: ...  # noqa: D102
    @property
    def event_count(self) -> int: ...  # noqa: D102
    @property
    def recorded_us(self) -> int: ...  # noqa: D102
    @property
    def codec(self) -> int: ...  # noqa: D102
    @property
    def raw_bytes(self) -> int: ...  # noqa: D102
    @property
    def digest(self) -> bytes: ...  # noqa: D102
    @property
    def payload(self) -> bytes: ...  # noqa: D102
    @property
    def parts(self) -> bytes: ...  # noqa: D102


class Taken(NamedTuple):
    """Rows that were taken away, to be put back as a pack, and the times of their events."""

    rows: list[StoredSegment]
    epochs: set[int]
    min_time_us: int
    max_time_us: int


class Count(NamedTuple):
    """Of all tenants: positions that were given out, rows that hold them, how many of those are packs."""

    segments: int
    rows: int
    packs: int


def serve_who_knows(conn: Connection) -> bool:
    """Say that versions that know no packs are served no more; False while one runs.

    In the transaction that makes a pack: then none can start before it ends.
    """
    if schema.oldest_revision(conn) >= SINCE:
        return True
    attempt = sa.text("SELECT pg_try_advisory_xact_lock(:lock, :known)")
    for known in range(schema.SINCE, SINCE):
        if not conn.execute(attempt, {"lock": schema.KNOWN_LOCK, "known": known}).scalar_one():
            return False
    schema.set_oldest_revision(conn, SINCE)
    return True


def bounds(conn: Connection) -> dict[int, int]:
    """Find by tenant up to where rows may be packed: to the checkpoint."""
    query = sa.select(tenants.c.tenant_id, checkpoints.c.position).join(
        checkpoints, checkpoints.c.tenant_id == tenants.c.tenant_id
    )
    return {row.tenant_id: row.position for row in conn.execute(query)}


def rows_between(conn: Connection, tenant_id: int, after: int, upto: int, limit: int) -> list[Row]:
    """Read what is in (after, upto], oldest first, without payloads."""
    columns = (segments.c.first_position, segments.c.position, segments.c.epoch, segments.c.raw_bytes)
    query = (
        sa.select(*columns)
        .where(segments.c.tenant_id == tenant_id, segments.c.position > after, segments.c.position <= upto)
        .order_by(segments.c.position)
        .limit(limit)
    )
    return [
        Row(last if first is None else first, last, epoch, raw_bytes)
        for first, last, epoch, raw_bytes in conn.execute(query)
    ]


def take(conn: Connection, tenant_id: int, first: int, last: int) -> Taken:
    """Delete the rows of [first, last] and return them, oldest first."""
    columns = [segments.c[name] for name in StoredSegment._fields]
    more = (segments.c.epoch, segments.c.min_time_us, segments.c.max_time_us)
    change = (
        sa.delete(segments)
        .where(segments.c.tenant_id == tenant_id, segments.c.position >= first, segments.c.position <= last)
        .returning(*columns, *more)
    )
    rows = sorted(conn.execute(change), key=lambda row: row.position)
    return Taken(
        [StoredSegment(*row[: len(columns)]) for row in rows],
        {row.epoch for row in rows},
        min((row.min_time_us for row in rows), default=0),
        max((row.max_time_us for row in rows), default=0),
    )


def put(conn: Connection, tenant_id: int, first: int, taken: Taken, pack: NewPack) -> None:
    """Insert a pack where the rows of its segments were."""
    (epoch,) = taken.epochs
    # For the trigger that looks whether the pack holds what was taken.
    conn.execute(sa.select(sa.func.set_config("ammeter.pack", str(pack.position), True)))  # noqa: FBT003 - SQL's
    values = {name: getattr(pack, name) for name in StoredSegment._fields}
    values |= {"tenant_id": tenant_id, "first_position": first, "epoch": epoch}
    values |= {"min_time_us": taken.min_time_us, "max_time_us": taken.max_time_us}
    conn.execute(sa.insert(segments).values(values))


def count(conn: Connection) -> Count:
    """Count rows and packs, and the segments that they hold."""
    first = sa.func.coalesce(segments.c.first_position, segments.c.position)
    held = sa.func.coalesce(sa.func.sum(segments.c.position - first + 1), 0)
    query = sa.select(held, sa.func.count(), sa.func.count(segments.c.first_position)).select_from(segments)
    row = conn.execute(query).one()
    return Count(int(row[0]), row[1], row[2])
