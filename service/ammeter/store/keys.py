"""API keys and tenants."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from ammeter.domain.key import Key
from ammeter.store.db import Tx
from ammeter.store.tables import api_keys, tenants


class StoredKey(NamedTuple):
    """A key with what is needed to verify it."""

    tenant_id: int
    tenant_key: str
    secret_hmac: bytes
    key: Key


def _key(row: Row[tuple[object, ...]]) -> Key:
    return Key(row.key_id, row.name, frozenset(row.scopes), row.create_time, row.expire_time, row.revoke_time)


def find(conn: Connection, key_id: str) -> StoredKey | None:
    """Find a key of any tenant (engine role)."""
    query = (
        sa.select(api_keys, tenants.c.tenant_key)
        .join(tenants, tenants.c.tenant_id == api_keys.c.tenant_id)
        .where(api_keys.c.key_id == key_id)
    )
    row = conn.execute(query).one_or_none()
    return (
        None if row is None else StoredKey(row.tenant_id, row.tenant_key, bytes(row.secret_hmac), _key(row))
    )


def insert(conn: Connection, tenant_id: int, key: Key, secret_hmac: bytes) -> None:
    """Add a key."""
    values = {
        "tenant_id": tenant_id,
        "key_id": key.key_id,
        "name": key.name,
        "secret_hmac": secret_hmac,
        "scopes": sorted(key.scopes),
        "create_time": key.create_time,
        "expire_time": key.expire_time,
    }
    conn.execute(sa.insert(api_keys).values(values))


def page(tx: Tx, before: tuple[datetime, str] | None, limit: int) -> Sequence[Key]:
    """Read keys newest first, those before (create_time, key_id)."""
    query = sa.select(api_keys).where(api_keys.c.tenant_id == tx.tenant_id)
    if before is not None:
        query = query.where(sa.tuple_(api_keys.c.create_time, api_keys.c.key_id) < sa.tuple_(*before))
    query = query.order_by(api_keys.c.create_time.desc(), api_keys.c.key_id.desc()).limit(limit)
    return [_key(row) for row in tx.conn.execute(query)]


def revoke(tx: Tx, key_id: str, now: datetime) -> Key | None:
    """Revoke a key, keeping the first revocation's time; None if there is none such."""
    change = (
        sa.update(api_keys)
        .where(api_keys.c.tenant_id == tx.tenant_id, api_keys.c.key_id == key_id)
        .values(revoke_time=sa.func.coalesce(api_keys.c.revoke_time, now))
        .returning(api_keys)
    )
    row = tx.conn.execute(change).one_or_none()
    return None if row is None else _key(row)


def insert_tenant(conn: Connection, tenant_key: str) -> int | None:
    """Add a tenant (engine role); None if the name is taken."""
    change = sa.text(
        "INSERT INTO tenants (tenant_key) VALUES (:key) ON CONFLICT DO NOTHING RETURNING tenant_id"
    )
    return conn.execute(change, {"key": tenant_key}).scalar_one_or_none()


def tenant_ids(conn: Connection) -> dict[str, int]:
    """Read all tenants by key (engine role)."""
    rows = conn.execute(sa.select(tenants.c.tenant_key, tenants.c.tenant_id).order_by(tenants.c.tenant_id))
    return {row.tenant_key: row.tenant_id for row in rows}
