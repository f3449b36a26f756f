"""The chain of segments: append, look up, read back; and the writer's epoch."""

from collections.abc import Callable, Generator, Sequence
from typing import Any, NamedTuple, Protocol

import psycopg
import sqlalchemy as sa
from psycopg.rows import namedtuple_row
from sqlalchemy.engine import Connection

from ammeter import faults
from ammeter.errors import InternalError
from ammeter.store.db import Tx
from ammeter.store.tables import checkpoints, heads, segments, server_state, tenants, writer

# One lock for all who want to write: "ammwrite" in ASCII.
_WRITER_LOCK = 0x616D6D7772697465

# The epoch row stays locked until commit, so a new writer, which must update
# it, waits for commits under way and shuts out later ones. The head moves only
# from the position before; the segment goes in only if the head moved.
_APPEND = b"""
WITH allowed AS (SELECT epoch FROM writer WHERE singleton AND epoch = %b FOR SHARE),
moved AS (
  UPDATE heads SET position = %b, digest = %b FROM allowed
  WHERE tenant_id = %b AND position = %b RETURNING tenant_id
)
INSERT INTO segments (tenant_id, position, epoch, event_count, min_time_us, max_time_us,
                      recorded_us, codec, raw_bytes, digest, payload)
SELECT tenant_id, %b, %b, %b, %b, %b, %b, %b, %b, %b, %b FROM moved
"""

# The last row may be a pack that begins within what is asked for, and ends after it.
_READ = b"""
SELECT position, codec, payload, raw_bytes, event_count, recorded_us, digest, parts
FROM segments
WHERE tenant_id = %(tenant)s AND position > %(after)s AND position <= coalesce((
  SELECT CASE WHEN coalesce(first_position, position) <= %(upto)s THEN position ELSE %(upto)s END
  FROM segments WHERE tenant_id = %(tenant)s AND position >= %(upto)s ORDER BY position LIMIT 1
), %(upto)s)
ORDER BY position
"""

_READ_BATCH = 64

# How long a transaction that has locked the epoch may wait for its process.
_IDLE_MS = 2000

# What a pack keeps of a segment: event count, raw bytes, time of recording, digest.
PART_BYTES = 48

RawConnection = psycopg.Connection[Any]


class NewSegment(Protocol):
    """What append needs to know of a segment."""

    @property
    def tenant(self) -> int: ...  # noqa: D102
    @property
    def position(self) -> int: ...  # noqa: D102
    @property
    def event_count(self) -> int: ...  # noqa: D102
    @property
    def min_time_us(self) -> int: ...  # noqa: D102
    @property
    def max_time_us(self) -> int: ...  # noqa: D102
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


class StoredSegment(NamedTuple):
    """A row as read back: a segment or, with `parts`, a pack of those up to `position`."""

    position: int
    codec: int
    payload: bytes
    raw_bytes: int
    event_count: int
    recorded_us: int
    digest: bytes
    parts: bytes | None = None

    @property
    def first(self) -> int:
        """The first of the positions that it holds."""
        return self.position if self.parts is None else self.position + 1 - len(self.parts) // PART_BYTES


class TenantState(NamedTuple):
    """Where a tenant stands: head of the chain, and the last checkpoint (0: none)."""

    tenant_id: int
    head: int
    head_digest: bytes
    checkpoint: int


def acquire_writer(raw: RawConnection, holder: str) -> int | None:
    """Take the writer's lock and a new epoch; None while another process holds the lock.

    The lock belongs to the connection: it is free again when the connection ends.
    """
    row = raw.execute(b"SELECT pg_try_advisory_lock(%s)", [_WRITER_LOCK]).fetchone()
    if not (row and row[0]):
        return None
    _bound_idleness(raw)
    change = b"UPDATE writer SET epoch = epoch + 1, holder = %s, acquire_time = now() RETURNING epoch"
    taken = raw.execute(change, [holder]).fetchone()
    return int(taken[0]) if taken else None


def hold_writer_lock(raw: RawConnection) -> bool:
    """Take the lock again on a new connection, the epoch unchanged; False if another process has it."""
    row = raw.execute(b"SELECT pg_try_advisory_lock(%s)", [_WRITER_LOCK]).fetchone()
    _bound_idleness(raw)
    return bool(row and row[0])


def _bound_idleness(raw: RawConnection) -> None:
    raw.execute(b"SELECT set_config('idle_in_transaction_session_timeout', %s, false)", [str(_IDLE_MS)])


def current_epoch(raw: RawConnection) -> int:
    """Read the writer's epoch as it is now."""
    row = raw.execute(b"SELECT epoch FROM writer").fetchone()
    return int(row[0]) if row else 0


def epoch(conn: Connection) -> int:
    """Read the writer's epoch, without waiting for anybody."""
    found: int = conn.execute(sa.select(writer.c.epoch)).scalar_one()
    return found


def require_epoch(conn: Connection, epoch: int, idle_ms: int = _IDLE_MS) -> bool:
    """Lock the epoch for this transaction; False if it is no longer ours.

    A process that stands still for longer than `idle_ms` loses the transaction:
    whoever comes after it waits for the epoch.
    """
    bound = sa.func.set_config("idle_in_transaction_session_timeout", str(idle_ms), True)  # noqa: FBT003 - SQL's
    query = sa.select(bound).where(writer.c.epoch == epoch).with_for_update(read=True, of=writer)
    return conn.execute(query).one_or_none() is not None


def append(
    raw: RawConnection, epoch: int, group: Sequence[NewSegment], also: Callable[[], bool] | None = None
) -> bool:
    """Append a group's segments in one transaction; False if nothing was appended.

    `also` writes what belongs to the same transaction, and may refuse, too.

    False means that the epoch is not ours any more, or that the head is not
    where the first segment expects it: look the outcome up.
    """
    if len(group) == 1 and also is None:
        faults.reach("append.before")
        appended = _append_one(raw, epoch, group[0])
        faults.reach("append.after")
        return appended
    faults.reach("begin.before")
    with raw.transaction() as transaction:
        faults.reach("begin.after")
        appended = all(_append_one(raw, epoch, segment) for segment in group) and (also is None or also())
        faults.reach("commit.before")
        if not appended:
            raise psycopg.Rollback(transaction)
    faults.reach("commit.after")
    return appended


def _append_one(raw: RawConnection, epoch: int, segment: NewSegment) -> bool:
    values = (
        epoch,
        segment.position,
        segment.digest,
        segment.tenant,
        segment.position - 1,
        segment.position,
        epoch,
        segment.event_count,
        segment.min_time_us,
        segment.max_time_us,
        segment.recorded_us,
        segment.codec,
        segment.raw_bytes,
        segment.digest,
        segment.payload,
    )
    faults.reach("insert.before")
    appended = raw.execute(_APPEND, values, prepare=True, binary=True).rowcount == 1
    faults.reach("insert.after")
    return appended


def is_durable(raw: RawConnection, segment: NewSegment) -> bool:
    """Tell whether exactly this segment is in the chain (outcome of an unknown commit)."""
    query = b"SELECT digest FROM segments WHERE tenant_id = %s AND position = %s"
    faults.reach("lookup.before")
    row = raw.execute(query, [segment.tenant, segment.position]).fetchone()
    faults.reach("lookup.after")
    return row is not None and bytes(row[0]) == segment.digest


def read(
    raw: RawConnection, tenant_id: int, after: int, upto: int
) -> Generator[list[StoredSegment], None, None]:
    """Stream the rows that hold the segments in (after, upto], in order, some at a time.

    The first and the last may be packs that hold others, too.
    """
    with raw.transaction(), raw.cursor(name="segments", row_factory=namedtuple_row) as cursor:
        cursor.execute(_READ, {"tenant": tenant_id, "after": after, "upto": upto}, binary=True)
        while rows := cursor.fetchmany(_READ_BATCH):
            yield [StoredSegment(*row) for row in rows]


def newest_first(tx: Tx, before: int, from_us: int, to_us: int, limit: int) -> list[StoredSegment]:
    """Read rows with segments below `before` that may hold events in [from_us, to_us), newest first."""
    columns = [segments.c[name] for name in StoredSegment._fields]
    own = segments.c.tenant_id == tx.tenant_id
    row = segments.alias("covering")
    # The row at or after `before`, if it is a pack that begins below.
    covering = (
        sa.select(sa.case((row.c.first_position < before, row.c.position), else_=before - 1))
        .where(row.c.tenant_id == tx.tenant_id, row.c.position >= before)
        .order_by(row.c.position)
        .limit(1)
    )
    query = (
        sa.select(*columns)
        .where(own, segments.c.position <= sa.func.coalesce(covering.scalar_subquery(), before - 1))
        .where(segments.c.min_time_us < to_us, segments.c.max_time_us >= from_us)
        .order_by(segments.c.position.desc())
        .limit(limit)
    )
    return [StoredSegment(*row) for row in tx.conn.execute(query)]


def hash_key(conn: Connection) -> bytes:
    """Read the database's secret hash key."""
    return bytes(conn.execute(sa.select(server_state.c.hash_key)).scalar_one())


def last_recorded(conn: Connection) -> dict[int, int]:
    """Read when each tenant's last segment was recorded, in microseconds (engine role)."""
    query = sa.select(segments.c.tenant_id, segments.c.recorded_us).join(
        heads, (heads.c.tenant_id == segments.c.tenant_id) & (heads.c.position == segments.c.position)
    )
    return {row.tenant_id: row.recorded_us for row in conn.execute(query)}


def tenant_states(conn: Connection) -> list[TenantState]:
    """Read where every tenant stands, making heads for new tenants."""
    new_heads = sa.text(
        "INSERT INTO heads (tenant_id, position, digest) "
        "SELECT tenant_id, 0, decode(repeat('00', 32), 'hex') FROM tenants ON CONFLICT DO NOTHING"
    )
    conn.execute(new_heads)
    query = (
        sa.select(
            tenants.c.tenant_id,
            heads.c.position,
            heads.c.digest,
            sa.func.coalesce(checkpoints.c.position, 0).label("checkpoint"),
        )
        .join(heads, heads.c.tenant_id == tenants.c.tenant_id)
        .outerjoin(checkpoints, checkpoints.c.tenant_id == tenants.c.tenant_id)
        .order_by(tenants.c.tenant_id)
    )
    rows = conn.execute(query)
    return [TenantState(row.tenant_id, row.position, bytes(row.digest), row.checkpoint) for row in rows]


def first_recorded_since(conn: Connection, tenant_id: int, since_us: int) -> int | None:
    """Find the first position recorded at or after an instant; None if there is none.

    A pack is taken whole. Positions grow with the time of recording, but a clock may step back: the
    least position is asked for, not the one found by bisection.
    """
    first = sa.func.coalesce(segments.c.first_position, segments.c.position)
    query = sa.select(sa.func.min(first)).where(
        segments.c.tenant_id == tenant_id, segments.c.recorded_us >= since_us
    )
    found: int | None = conn.execute(query).scalar_one()
    return found


def digest_at(conn: Connection, tenant_id: int, position: int) -> bytes:
    """Read a segment's digest; 32 zero bytes before the first."""
    if position == 0:
        return bytes(32)
    query = (
        sa.select(digest_within(segments, position))
        .where(segments.c.tenant_id == tenant_id, segments.c.position >= position)
        .order_by(segments.c.position)
        .limit(1)
    )
    found = conn.execute(query).scalar_one()
    if found is None:
        message = f"tenant {tenant_id}: the segment at position {position} is missing: run `ammeter verify`"
        raise InternalError(message)
    return bytes(found)


def digest_within(row: sa.FromClause, position: int) -> sa.ColumnElement[Any]:
    """Take the digest of the segment at a position out of the row that holds it; NULL of another row.

    A part of a pack is 48 bytes, the last 32 of them the digest: native/src/pack.rs.
    """
    at = sa.cast(position - row.c.first_position, sa.Integer)
    return sa.case(
        (row.c.position == position, row.c.digest),
        (row.c.first_position <= position, sa.func.substr(row.c.parts, at * PART_BYTES + 17, 32)),
        else_=None,
    )
