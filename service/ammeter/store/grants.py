"""Grants, and resets by hand."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ammeter.domain.grant import Grant
from ammeter.domain.minute import minute_of
from ammeter.domain.quantity import from_scaled, to_scaled
from ammeter.domain.usage_period import Reset, Rhythm
from ammeter.store.db import Tx
from ammeter.store.tables import customers, entitlements, grants, usage_resets

# Tenant and entitlement.
Key = tuple[int, str]


class StoredGrant(NamedTuple):
    """A grant as it was made; `grant` is what burns."""

    grant: Grant
    entitlement_id: str
    create_time: datetime
    void_time: datetime | None


def insert(tx: Tx, stored: StoredGrant) -> None:
    """Add a grant."""
    grant, recurrence = stored.grant, stored.grant.recurrence
    most = grant.rollover_maximum
    tx.conn.execute(
        sa.insert(grants).values(
            tenant_id=tx.tenant_id,
            grant_id=grant.grant_id,
            entitlement_id=stored.entitlement_id,
            amount=from_scaled(grant.amount),
            priority=grant.priority,
            from_minute=grant.from_minute,
            expire_minute=grant.expire_minute,
            end_minute=grant.end_minute,
            rollover_minimum=from_scaled(grant.rollover_minimum),
            rollover_maximum=None if most is None else from_scaled(most),
            recurrence_cadence=recurrence.billing_cadence if recurrence else None,
            recurrence_anchor_time=recurrence.anchor_time if recurrence else None,
            create_time=stored.create_time,
            void_time=stored.void_time,
        )
    )


def get(tx: Tx, grant_id: str) -> StoredGrant | None:
    """Read a grant."""
    row = tx.conn.execute(_grants(tx).where(grants.c.grant_id == grant_id)).one_or_none()
    return None if row is None else _stored(row)


def page(tx: Tx, entitlement_id: str, after_id: str, limit: int) -> list[StoredGrant]:
    """Read the grants of an entitlement by id, which is by creation; those after `after_id`."""
    query = (
        _grants(tx)
        .where(grants.c.entitlement_id == entitlement_id, grants.c.grant_id > after_id)
        .order_by(grants.c.grant_id)
        .limit(limit)
    )
    return [_stored(row) for row in tx.conn.execute(query)]


def void(tx: Tx, grant_id: str, end_minute: int, now: datetime) -> None:
    """Let a grant end, and remember when that was said."""
    change = (
        sa.update(grants)
        .where(grants.c.tenant_id == tx.tenant_id, grants.c.grant_id == grant_id)
        .values(end_minute=end_minute, void_time=now)
    )
    tx.conn.execute(change)


def insert_reset(tx: Tx, entitlement_id: str, reset: Reset, now: datetime) -> None:
    """Add a reset by hand."""
    tx.conn.execute(
        sa.insert(usage_resets).values(
            tenant_id=tx.tenant_id,
            entitlement_id=entitlement_id,
            reset_minute=reset.minute,
            moves_anchor=reset.moves_anchor,
            preserve_overage=reset.preserve_overage,
            create_time=now,
        )
    )


def by_entitlement(
    conn: Connection, of: tuple[int, Sequence[int]] | None = None
) -> tuple[dict[Key, tuple[Grant, ...]], dict[Key, tuple[Reset, ...]]]:
    """Read all grants and resets (engine role), or those of (tenant_id, customer_ids)."""
    found: dict[Key, tuple[Grant, ...]] = {}
    for row in conn.execute(_of(_joined(), grants, of).order_by(grants.c.grant_id)):
        key = (row.tenant_id, row.entitlement_id)
        found[key] = (*found.get(key, ()), _grant(row))
    resets: dict[Key, tuple[Reset, ...]] = {}
    query = _of(sa.select(usage_resets), usage_resets, of).order_by(usage_resets.c.reset_minute)
    for row in conn.execute(query):
        key = (row.tenant_id, row.entitlement_id)
        reset = Reset(row.reset_minute, row.moves_anchor, row.preserve_overage)
        resets[key] = (*resets.get(key, ()), reset)
    return found, resets


def _of(query: sa.Select[Any], table: sa.Table, of: tuple[int, Sequence[int]] | None) -> sa.Select[Any]:
    if of is None:
        return query
    theirs = sa.select(entitlements.c.entitlement_id).where(
        entitlements.c.tenant_id == of[0], entitlements.c.customer_id.in_(of[1])
    )
    return query.where(table.c.tenant_id == of[0], table.c.entitlement_id.in_(theirs))


def _joined() -> sa.Select[Any]:
    """Grants with the zone that their recurrences follow."""
    return sa.select(grants, customers.c.time_zone).select_from(
        grants.join(
            entitlements,
            (entitlements.c.tenant_id == grants.c.tenant_id)
            & (entitlements.c.entitlement_id == grants.c.entitlement_id),
        ).join(
            customers,
            (customers.c.tenant_id == entitlements.c.tenant_id)
            & (customers.c.customer_id == entitlements.c.customer_id),
        )
    )


def _grants(tx: Tx) -> sa.Select[Any]:
    return _joined().where(grants.c.tenant_id == tx.tenant_id)


def _grant(row: sa.Row[Any]) -> Grant:
    most: Decimal | None = row.rollover_maximum
    recurrence = None
    if row.recurrence_cadence is not None:
        recurrence = Rhythm(row.recurrence_anchor_time, row.time_zone, row.recurrence_cadence)
    return Grant(
        row.grant_id,
        to_scaled(row.amount),
        row.from_minute,
        row.expire_minute,
        row.end_minute,
        row.priority,
        to_scaled(row.rollover_minimum),
        None if most is None else to_scaled(most),
        recurrence,
        minute_of(row.create_time),
    )


def _stored(row: sa.Row[Any]) -> StoredGrant:
    return StoredGrant(_grant(row), row.entitlement_id, row.create_time, row.void_time)
