"""Reservations: written by the commit worker many at a time, read back one by one."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from operator import attrgetter
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ammeter import faults
from ammeter.domain.quantity import from_scaled, to_scaled
from ammeter.domain.reservation import Key, Reservation, State
from ammeter.store.db import Tx
from ammeter.store.requests import Answered
from ammeter.store.segments import RawConnection
from ammeter.store.tables import customers, requests, reservations

# One round trip for all. The epoch row stays locked until commit, as in
# segments. A row moves forward only, so that it does not matter how often the
# same change arrives, and in which order: what is lost is simply sent again.
_WRITE = b"""
WITH allowed AS (SELECT epoch FROM writer WHERE singleton AND epoch = %b FOR SHARE),
answered AS (
  INSERT INTO requests (tenant_id, request_id, method, content_digest, response, create_time)
  SELECT one.* FROM allowed, unnest(%b::int[], %b::text[], %b::text[], %b::bytea[], %b::bytea[],
                                    %b::timestamptz[]) AS one
  ON CONFLICT DO NOTHING
),
written AS (
  INSERT INTO reservations AS before
    (tenant_id, reservation_id, customer_id, feature_key, subject, lease, generation, version, wanted,
     granted, held, settled, state, late, create_time, expire_time, hold_time, end_time)
  SELECT one.* FROM allowed, unnest(%b::int[], %b::text[], %b::bigint[], %b::text[], %b::text[],
    %b::boolean[], %b::int[], %b::int[], %b::numeric[], %b::numeric[], %b::numeric[], %b::numeric[],
    %b::text[], %b::boolean[], %b::timestamptz[], %b::timestamptz[], %b::timestamptz[],
    %b::timestamptz[]) AS one
  ON CONFLICT (tenant_id, reservation_id) DO UPDATE SET
    generation = excluded.generation, version = excluded.version, wanted = excluded.wanted,
    granted = excluded.granted, held = excluded.held, settled = excluded.settled, state = excluded.state,
    late = excluded.late, expire_time = excluded.expire_time, hold_time = excluded.hold_time,
    end_time = excluded.end_time
  WHERE before.version < excluded.version
)
SELECT count(*) FROM allowed
"""

_PLAIN = attrgetter(
    "key.tenant_id",
    "reservation_id",
    "key.customer_id",
    "key.feature_key",
    "subject",
    "lease",
    "generation",
    "version",
)
_TIMES = attrgetter("late", "create_time", "expire_time", "hold_time", "end_time")
_REQUEST_COLUMNS = 6
_COLUMNS = 18


class Answer(NamedTuple):
    """The first answer to a request_id, to be kept with what it caused."""

    tenant_id: int
    request_id: str
    answered: Answered
    create_time: datetime


def write(raw: RawConnection, epoch: int, made: Sequence[Reservation], answers: Sequence[Answer]) -> bool:
    """Write reservations as they are now, and answers, in one statement; False if the epoch is not ours.

    May be repeated, whatever became of it before.
    """
    faults.reach("decide.before")
    kept = (
        (one.tenant_id, one.request_id, one.answered.method, *one.answered[1:], one.create_time)
        for one in answers
    )
    values = [epoch, *_columns(kept, _REQUEST_COLUMNS), *_columns(map(_row, made), _COLUMNS)]
    row = raw.execute(_WRITE, values, prepare=True, binary=True).fetchone()
    faults.reach("decide.after")
    return bool(row and row[0])


def _columns(rows: Iterable[tuple[object, ...]], count: int) -> list[list[object]]:
    turned = [list(column) for column in zip(*rows, strict=True)]
    return turned or [[] for _ in range(count)]


def _row(one: Reservation) -> tuple[object, ...]:
    amounts = map(from_scaled, (one.wanted, one.granted, one.held, one.settled))
    return (*_PLAIN(one), *amounts, one.state.value, *_TIMES(one))


def answers_to(conn: Connection, asked: Sequence[tuple[int, str]]) -> dict[tuple[int, str], Answered]:
    """Read the first answers to (tenant_id, request_id), where there are any (engine role)."""
    query = sa.select(requests).where(
        sa.tuple_(requests.c.tenant_id, requests.c.request_id).in_(asked),
    )
    return {
        (row.tenant_id, row.request_id): Answered(row.method, bytes(row.content_digest), bytes(row.response))
        for row in conn.execute(query)
    }


def named(conn: Connection, names: Sequence[tuple[int, str]]) -> dict[tuple[int, str], Reservation]:
    """Read reservations by (tenant_id, reservation_id) (engine role)."""
    query = _reservations().where(
        sa.tuple_(reservations.c.tenant_id, reservations.c.reservation_id).in_(names)
    )
    return {(row.tenant_id, row.reservation_id): _reservation(row) for row in conn.execute(query)}


def holding(conn: Connection, now: datetime) -> Iterator[Reservation]:
    """Read all that count against a balance (engine role)."""
    query = _reservations().where(
        reservations.c.state == State.HELD.value,
        reservations.c.hold_time > now,
    )
    for row in conn.execute(query, execution_options={"yield_per": 2000}):
        yield _reservation(row)


def expire(conn: Connection, before: datetime) -> int:
    """Forget those that ended, or ran out, before a time (engine role); returns how many."""
    ended = sa.func.coalesce(reservations.c.end_time, reservations.c.hold_time)
    return conn.execute(sa.delete(reservations).where(ended < before)).rowcount


def get(tx: Tx, reservation_id: str) -> Reservation | None:
    """Read one."""
    query = _reservations().where(
        reservations.c.tenant_id == tx.tenant_id, reservations.c.reservation_id == reservation_id
    )
    row = tx.conn.execute(query).one_or_none()
    return None if row is None else _reservation(row)


def page(
    tx: Tx, customer_id: int | None, state: State | None, now: datetime, after_id: str, limit: int
) -> list[Reservation]:
    """Read those after `after_id` by id, which is by creation; of one customer and in one state if given."""
    query = _reservations().where(
        reservations.c.tenant_id == tx.tenant_id, reservations.c.reservation_id > after_id
    )
    if customer_id is not None:
        query = query.where(reservations.c.customer_id == customer_id)
    if state is not None:
        stored = State.HELD if state is State.EXPIRED else state
        query = query.where(reservations.c.state == stored.value)
    if state is State.HELD:
        query = query.where(reservations.c.expire_time > now)
    if state is State.EXPIRED:
        query = query.where(reservations.c.expire_time <= now)
    rows = tx.conn.execute(query.order_by(reservations.c.reservation_id).limit(limit))
    return [_reservation(row) for row in rows]


def _reservations() -> sa.Select[Any]:
    return sa.select(reservations, customers.c.customer_key).join(
        customers,
        (customers.c.tenant_id == reservations.c.tenant_id)
        & (customers.c.customer_id == reservations.c.customer_id),
    )


def _reservation(row: sa.Row[Any]) -> Reservation:
    return Reservation(
        row.reservation_id,
        Key(row.tenant_id, row.customer_id, row.feature_key),
        row.customer_key,
        row.subject,
        row.lease,
        to_scaled(row.wanted),
        to_scaled(row.granted),
        to_scaled(row.held),
        to_scaled(row.settled),
        State(row.state),
        row.create_time,
        row.expire_time,
        row.hold_time,
        row.end_time,
        row.generation,
        row.version,
        row.late,
    )
