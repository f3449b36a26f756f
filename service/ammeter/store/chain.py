"""Everything that is derived from or says something about the chain, row by row, for verifying it."""

from collections.abc import Iterator
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ammeter.store.tables import blocks, checkpoints, heads, segments, tenants, writer

_PAGE_ROWS = 64


class SegmentRow(NamedTuple):
    """A row of segments, whole: a segment or, with `parts`, a pack."""

    tenant_id: int
    position: int
    epoch: int
    event_count: int
    min_time_us: int
    max_time_us: int
    recorded_us: int
    codec: int
    raw_bytes: int
    digest: bytes
    payload: bytes
    first_position: int | None = None
    parts: bytes | None = None

    @property
    def first(self) -> int:
        """The first of the positions that it holds."""
        return self.position if self.first_position is None else self.first_position


class HeadRow(NamedTuple):
    """Where a tenant's chain ends."""

    tenant_id: int
    position: int
    digest: bytes


class BlockRow(NamedTuple):
    """A row of blocks, but for what only says where it is kept: block_id, level, run."""

    tenant_id: int
    revision_id: int
    day: int
    subject_min: bytes
    subject_max: bytes
    row_count: int
    payload: bytes


def tenant_ids(conn: Connection) -> list[int]:
    """Find all tenants that have any row here, known or not."""
    parts = [sa.select(table.c.tenant_id) for table in (tenants, heads, checkpoints, segments, blocks)]
    return sorted(conn.execute(sa.union(*parts)).scalars())


def epoch(conn: Connection) -> int:
    """Read the writer's epoch: no segment can have a later one."""
    return int(conn.execute(sa.select(writer.c.epoch)).scalar_one())


def head(conn: Connection, tenant_id: int) -> HeadRow | None:
    """Read a tenant's head; None if it has none."""
    columns = [heads.c[name] for name in HeadRow._fields]
    row = conn.execute(sa.select(*columns).where(heads.c.tenant_id == tenant_id)).one_or_none()
    return None if row is None else HeadRow(*row)


def checkpoint(conn: Connection, tenant_id: int) -> int:
    """Read up to where a tenant's blocks are complete; 0 for nowhere."""
    query = sa.select(checkpoints.c.position).where(checkpoints.c.tenant_id == tenant_id)
    found: int | None = conn.execute(query).scalar_one_or_none()
    return found or 0


def segment_rows(conn: Connection, tenant_id: int) -> Iterator[SegmentRow]:
    """Read all segments of a tenant in order; the transaction must be a snapshot."""
    columns = [segments.c[name] for name in SegmentRow._fields]
    query = sa.select(*columns).where(segments.c.tenant_id == tenant_id).order_by(segments.c.position)
    after: int | None = None
    while True:
        page = query if after is None else query.where(segments.c.position > after)
        rows = conn.execute(page.limit(_PAGE_ROWS)).all()
        yield from (SegmentRow(*row) for row in rows)
        if len(rows) < _PAGE_ROWS:
            return
        after = rows[-1].position


def block_days(conn: Connection, tenant_id: int) -> list[tuple[int, int]]:
    """Find the (revision_id, day) that have blocks."""
    query = sa.select(blocks.c.revision_id, blocks.c.day).where(blocks.c.tenant_id == tenant_id).distinct()
    return sorted((row.revision_id, row.day) for row in conn.execute(query))


def block_rows(conn: Connection, tenant_id: int, revision_id: int, day: int) -> list[BlockRow]:
    """Read the blocks of a revision and day."""
    columns = [blocks.c[name] for name in BlockRow._fields]
    query = sa.select(*columns).where(
        blocks.c.tenant_id == tenant_id, blocks.c.revision_id == revision_id, blocks.c.day == day
    )
    return [BlockRow(*row) for row in conn.execute(query)]
