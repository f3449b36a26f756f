"""Blocks of partials, and the checkpoints that say how far they reach."""

from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from typing import NamedTuple, Protocol

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.engine import Connection

from ammeter.store.tables import blocks, checkpoints, customer_subjects, meter_revisions

_UPSERT_ROWS = 500


class NewBlock(Protocol):
    """What a block row is made of."""

    @property
    def tenant(self) -> int: ...  # noqa: D102
    @property
    def meter(self) -> int: ...  # noqa: D102
    @property
    def day(self) -> int: ...  # noqa: D102
    @property
    def subject_min(self) -> bytes: ...  # noqa: D102
    @property
    def subject_max(self) -> bytes: ...  # noqa: D102
    @property
    def row_count(self) -> int: ...  # noqa: D102
    @property
    def payload(self) -> bytes: ...  # noqa: D102


class Course(NamedTuple):
    """In which order blocks are read for a page, and which it does not need.

    `first_days` begin spans of days, ascending; within a span blocks come by
    their least subject. Of days before `passed_day` only subjects from
    `passed_subject` on are needed.
    """

    first_days: Sequence[int]
    passed_day: int
    passed_subject: bytes


class Crowd(NamedTuple):
    """Runs of one level that wait to be merged into one of the next."""

    tenant_id: int
    revision_id: int
    day: int
    level: int


def read(
    conn: Connection,
    tenant_id: int,
    revision_id: int,
    from_day: int,
    to_day: int,
    subjects: Sequence[str] = (),
    customers: Sequence[int] = (),
) -> tuple[list[bytes], int]:
    """Read the blocks of days [from_day, to_day), and the checkpoint that they are complete up to.

    With subjects or customers, only blocks whose range holds one of those
    subjects, or one that any of those customers ever owned. Both come from one
    statement, so they belong together.
    """
    rows = conn.execute(reading(tenant_id, revision_id, from_day, to_day, subjects, customers)).all()
    return [bytes(row.payload) for row in rows if row.payload is not None], int(rows[0].checkpoint)


def read_in_order(
    conn: Connection, statement: sa.Select[tuple[int, bytes]], many: int
) -> Generator[tuple[list[bytes], int]]:
    """Read what `reading` says so many blocks at a time, as long as somebody asks; with the checkpoint.

    In a transaction of one snapshot: they belong together.
    """
    rows = conn.execute(statement.limit(many)).all()
    yield [bytes(row.payload) for row in rows if row.payload is not None], int(rows[0].checkpoint)
    if len(rows) < many:
        return
    # The first are most of the time all, and cost one round trip.
    streaming = {"stream_results": True, "max_row_buffer": many}
    with closing(conn.execute(statement.offset(many), execution_options=streaming)) as rest:
        for part in rest.partitions(many):
            yield [bytes(row.payload) for row in part], int(part[0].checkpoint)


def reading(
    tenant_id: int,
    revision_id: int,
    from_day: int,
    to_day: int,
    subjects: Sequence[str] = (),
    customers: Sequence[int] = (),
    course: Course | None = None,
) -> sa.Select[tuple[int, bytes]]:
    """Write the statement of `read`: a row without payload stands for no blocks."""
    condition = sa.and_(
        blocks.c.tenant_id == tenant_id,
        blocks.c.revision_id == revision_id,
        blocks.c.day >= from_day,
        blocks.c.day < to_day,
    )
    wanted = []
    if subjects:
        encoded = sa.cast([subject.encode() for subject in subjects], sa.ARRAY(sa.LargeBinary))
        wanted.append(sa.select(sa.func.unnest(encoded).label("subject")))
    if customers:
        owned = sa.func.convert_to(customer_subjects.c.subject, "UTF8").label("subject")
        ours = sa.and_(
            customer_subjects.c.tenant_id == tenant_id, customer_subjects.c.customer_id.in_(customers)
        )
        wanted.append(sa.select(owned).where(ours))
    for chosen in (query.subquery() for query in wanted):
        inside = sa.and_(blocks.c.subject_min <= chosen.c.subject, chosen.c.subject <= blocks.c.subject_max)
        condition = sa.and_(condition, sa.exists().where(inside))
    checkpoint = (
        sa.select(sa.func.coalesce(sa.func.max(checkpoints.c.position), 0))
        .where(checkpoints.c.tenant_id == tenant_id)
        .scalar_subquery()
    )
    base = sa.select(checkpoint.label("checkpoint")).subquery()
    if course is None:
        return sa.select(base.c.checkpoint, blocks.c.payload).select_from(base.outerjoin(blocks, condition))
    needed = sa.or_(blocks.c.day >= course.passed_day, blocks.c.subject_max >= course.passed_subject)
    joined = base.outerjoin(blocks, sa.and_(condition, needed))
    span = sa.func.width_bucket(blocks.c.day, sa.cast(course.first_days, sa.ARRAY(sa.Integer)))
    statement = sa.select(base.c.checkpoint, blocks.c.payload).select_from(joined)
    # To the last, as it is read by two statements.
    return statement.order_by(span, blocks.c.subject_min, blocks.c.block_id)


def insert(conn: Connection, new: Iterable[NewBlock], level: int, run: int) -> None:
    """Add blocks of one run."""
    rows = [
        {
            "tenant_id": block.tenant,
            "revision_id": block.meter,
            "day": block.day,
            "level": level,
            "run": run,
            "subject_min": block.subject_min,
            "subject_max": block.subject_max,
            "row_count": block.row_count,
            "payload": block.payload,
        }
        for block in new
    ]
    for start in range(0, len(rows), _UPSERT_ROWS):
        conn.execute(sa.insert(blocks), rows[start : start + _UPSERT_ROWS])


def move_checkpoints(conn: Connection, positions: Iterable[tuple[int, int]]) -> set[int]:
    """Record that blocks are complete up to these (tenant, position); returns the tenants that moved.

    One that stands there already does not move: nothing is new, or it was
    written by a transaction of whose end nobody heard.
    """
    rows = [{"tenant_id": tenant_id, "position": position} for tenant_id, position in positions]
    if not rows:
        return set()
    change = upsert(checkpoints).values(rows)
    moved = change.on_conflict_do_update(
        index_elements=["tenant_id"],
        set_={"position": change.excluded.position, "update_time": sa.func.now()},
        where=checkpoints.c.position < change.excluded.position,
    ).returning(checkpoints.c.tenant_id)
    return set(conn.execute(moved).scalars())


def crowded(conn: Connection, runs: int, max_rows: int, limit: int) -> list[Crowd]:
    """Find where `runs` or more runs of a level stand side by side, of at most max_rows in all.

    Not of revisions being built: what their builds wrote must stay apart.
    """
    active = sa.and_(
        meter_revisions.c.tenant_id == blocks.c.tenant_id,
        meter_revisions.c.revision_id == blocks.c.revision_id,
        meter_revisions.c.state == "active",
    )
    query = (
        sa.select(blocks.c.tenant_id, blocks.c.revision_id, blocks.c.day, blocks.c.level)
        .where(sa.exists().where(active))
        .group_by(blocks.c.tenant_id, blocks.c.revision_id, blocks.c.day, blocks.c.level)
        .having(sa.func.count(blocks.c.run.distinct()) >= runs, sa.func.sum(blocks.c.row_count) <= max_rows)
        .limit(limit)
    )
    return [Crowd(*row) for row in conn.execute(query)]


def take(conn: Connection, crowd: Crowd) -> list[bytes]:
    """Delete the blocks of a crowd and return their payloads, to be merged in the same transaction."""
    change = (
        sa.delete(blocks)
        .where(
            blocks.c.tenant_id == crowd.tenant_id,
            blocks.c.revision_id == crowd.revision_id,
            blocks.c.day == crowd.day,
            blocks.c.level == crowd.level,
        )
        .returning(blocks.c.payload)
    )
    return [bytes(row.payload) for row in conn.execute(change)]
