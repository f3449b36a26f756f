"""First answers to mutating calls, by request_id."""

from datetime import datetime
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ammeter.store.db import Tx
from ammeter.store.tables import requests


class Answered(NamedTuple):
    """What a request_id was used for, and the answer it got."""

    method: str
    content_digest: bytes
    response: bytes


def lock_and_find(tx: Tx, request_id: str) -> Answered | None:
    """Look a request up, holding off others with the same id until commit."""
    lock = sa.text("SELECT pg_advisory_xact_lock(hashtextextended(:id, :tenant))")
    tx.conn.execute(lock, {"id": request_id, "tenant": tx.tenant_id})
    query = sa.select(requests).where(
        requests.c.tenant_id == tx.tenant_id, requests.c.request_id == request_id
    )
    row = tx.conn.execute(query).one_or_none()
    return None if row is None else Answered(row.method, bytes(row.content_digest), bytes(row.response))


def remember(tx: Tx, request_id: str, answered: Answered, now: datetime) -> None:
    """Keep the answer in the transaction that caused it."""
    values = {"tenant_id": tx.tenant_id, "request_id": request_id, "create_time": now}
    tx.conn.execute(sa.insert(requests).values(values | answered._asdict()))


def expire(conn: Connection, before: datetime) -> int:
    """Forget answers older than `before` (engine role); returns how many."""
    return conn.execute(sa.delete(requests).where(requests.c.create_time < before)).rowcount
