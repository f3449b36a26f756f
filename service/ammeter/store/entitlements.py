"""Entitlements, and what checks keep of them in memory."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ammeter.domain.catalog import DimensionFilter
from ammeter.domain.customer import Span
from ammeter.domain.entitlement import Entitlement, Kind
from ammeter.domain.subscription import Subscription
from ammeter.store.catalog import filters_of
from ammeter.store.db import Tx
from ammeter.store.subscriptions import COLUMNS, JOINED, subscription_of
from ammeter.store.tables import (
    blocks,
    checkpoints,
    customer_subjects,
    customers,
    entitlements,
    features,
    meter_revisions,
    subscriptions,
)

# Reading everything takes a server-side cursor, which is not worth its round trips for a few rows.
_STREAMED = {"yield_per": 2000}


class Held(NamedTuple):
    """An entitlement with all that its counter follows from; `revision_id` is of the served meter."""

    tenant_id: int
    entitlement: Entitlement
    subscription: Subscription
    revision_id: int | None
    meter_id: int | None
    filters: tuple[DimensionFilter, ...]


class Known(NamedTuple):
    """A customer, by number and key."""

    tenant_id: int
    customer_id: int
    customer_key: str


class RangedBlock(NamedTuple):
    """A block with the range of subjects that it holds, as UTF-8."""

    subject_min: bytes
    subject_max: bytes
    payload: bytes


def insert(tx: Tx, granted: Sequence[Entitlement], feature_ids: dict[str, int]) -> None:
    """Add entitlements; the database numbers their counters."""
    rows = [
        {
            "tenant_id": tx.tenant_id,
            "entitlement_id": entitlement.entitlement_id,
            "customer_id": entitlement.customer_id,
            "feature_id": feature_ids[entitlement.feature_key],
            "subscription_id": entitlement.subscription_id,
            "kind": entitlement.kind.value,
            "allowance": entitlement.allowance,
            "soft_limit": entitlement.soft_limit if entitlement.kind is Kind.METERED else None,
            "config": sa.null() if entitlement.config is None else entitlement.config,
            "from_time": entitlement.from_time,
            "to_time": entitlement.to_time,
        }
        for entitlement in granted
    ]
    if rows:
        tx.conn.execute(sa.insert(entitlements), rows)


def set_end(tx: Tx, subscription_id: str, to_time: datetime) -> None:
    """End the entitlements of a subscription with it."""
    change = (
        sa.update(entitlements)
        .where(entitlements.c.tenant_id == tx.tenant_id, entitlements.c.subscription_id == subscription_id)
        .values(to_time=to_time)
    )
    tx.conn.execute(change)


def page(tx: Tx, customer_id: int, after_id: str, limit: int) -> list[Entitlement]:
    """Read the entitlements of a customer by id, which is by creation; those after `after_id`."""
    query = (
        _held()
        .where(
            entitlements.c.tenant_id == tx.tenant_id,
            entitlements.c.customer_id == customer_id,
            entitlements.c.entitlement_id > after_id,
        )
        .order_by(entitlements.c.entitlement_id)
        .limit(limit)
    )
    return [_entitlement(row) for row in tx.conn.execute(query)]


def held(conn: Connection, of: tuple[int, Sequence[int]] | None = None) -> Iterator[Held]:
    """Read every entitlement (engine role), or those of (tenant_id, customer_ids), oldest first."""
    query = _held().order_by(entitlements.c.counter)
    if of is not None:
        query = query.where(entitlements.c.tenant_id == of[0], entitlements.c.customer_id.in_(of[1]))
    for row in conn.execute(query, execution_options=_STREAMED if of is None else {}):
        yield Held(
            row.tenant_id,
            _entitlement(row),
            subscription_of(row),
            row.revision_id,
            row.meter_id,
            filters_of(row.filters),
        )


def known_customers(conn: Connection, of: tuple[int, Sequence[int]] | None = None) -> Iterator[Known]:
    """Read every customer (engine role), or those of (tenant_id, customer_ids)."""
    query = sa.select(customers.c.tenant_id, customers.c.customer_id, customers.c.customer_key)
    if of is not None:
        query = query.where(customers.c.tenant_id == of[0], customers.c.customer_id.in_(of[1]))
    for row in conn.execute(query, execution_options=_STREAMED if of is None else {}):
        yield Known(*row)


def changed_since(conn: Connection, since: datetime) -> dict[tuple[int, int], datetime]:
    """Read when customers or what is theirs last changed, by (tenant_id, customer_id) (engine role)."""
    theirs = (subscriptions.c.tenant_id, subscriptions.c.customer_id)
    changes = sa.union_all(
        sa.select(
            customers.c.tenant_id, customers.c.customer_id, customers.c.update_time.label("time")
        ).where(customers.c.update_time >= since),
        sa.select(*theirs, subscriptions.c.create_time).where(subscriptions.c.create_time >= since),
        sa.select(*theirs, subscriptions.c.cancel_time).where(subscriptions.c.cancel_time >= since),
    ).subquery()
    query = sa.select(changes.c.tenant_id, changes.c.customer_id, sa.func.max(changes.c.time).label("time"))
    rows = conn.execute(query.group_by(changes.c.tenant_id, changes.c.customer_id))
    return {(row.tenant_id, row.customer_id): row.time for row in rows}


def all_spans(conn: Connection) -> Iterator[tuple[int, Span]]:
    """Read (tenant_id, span) of every subject (engine role), by tenant, subject and time."""
    table = customer_subjects
    query = sa.select(table).order_by(table.c.tenant_id, table.c.subject, table.c.from_minute)
    for row in conn.execute(query, execution_options=_STREAMED):
        yield row.tenant_id, Span(row.subject, row.from_minute, row.to_minute, row.customer_id)


def feature_keys(conn: Connection, of: tuple[int, str] | None = None) -> list[tuple[int, str]]:
    """Read (tenant_id, feature_key) of every feature (engine role), or of that one if it exists."""
    query = sa.select(features.c.tenant_id, features.c.feature_key)
    if of is not None:
        query = query.where(features.c.tenant_id == of[0], features.c.feature_key == of[1])
    return [(row.tenant_id, row.feature_key) for row in conn.execute(query)]


def customers_metered_by(conn: Connection, tenant_id: int, meter_id: int) -> list[int]:
    """Read which customers hold, or held, entitlements that a meter backs (engine role)."""
    query = (
        sa.select(entitlements.c.customer_id)
        .distinct()
        .join(
            features,
            (features.c.tenant_id == entitlements.c.tenant_id)
            & (features.c.feature_id == entitlements.c.feature_id),
        )
        .where(entitlements.c.tenant_id == tenant_id, features.c.meter_id == meter_id)
        .order_by(entitlements.c.customer_id)
    )
    return list(conn.execute(query).scalars())


def ranged_blocks(
    conn: Connection, tenant_id: int, revision_id: int, from_day: int, to_day: int
) -> tuple[list[RangedBlock], int]:
    """Read a revision's blocks of days [from_day, to_day) for many customers at once, and their checkpoint.

    The caller's transaction sees one snapshot, so that both belong together.
    """
    query = sa.select(blocks.c.subject_min, blocks.c.subject_max, blocks.c.payload).where(
        blocks.c.tenant_id == tenant_id,
        blocks.c.revision_id == revision_id,
        blocks.c.day >= from_day,
        blocks.c.day < to_day,
    )
    found = [RangedBlock(*map(bytes, row)) for row in conn.execute(query)]
    checkpoint = sa.select(checkpoints.c.position).where(checkpoints.c.tenant_id == tenant_id)
    return found, conn.execute(checkpoint).scalar_one_or_none() or 0


def _held() -> sa.Select[Any]:
    source = (
        JOINED.join(
            entitlements,
            (entitlements.c.tenant_id == subscriptions.c.tenant_id)
            & (entitlements.c.subscription_id == subscriptions.c.subscription_id),
        )
        .join(
            features,
            (features.c.tenant_id == entitlements.c.tenant_id)
            & (features.c.feature_id == entitlements.c.feature_id),
        )
        .outerjoin(
            meter_revisions,
            (meter_revisions.c.tenant_id == features.c.tenant_id)
            & (meter_revisions.c.meter_id == features.c.meter_id)
            & (meter_revisions.c.state == "active"),
        )
    )
    own: Iterable[sa.ColumnElement[Any]] = (
        entitlements.c[name]
        for name in (
            "entitlement_id",
            "counter",
            "kind",
            "allowance",
            "soft_limit",
            "config",
            "from_time",
            "to_time",
        )
    )
    feature = (features.c.feature_key, features.c.meter_id, features.c.filters)
    return sa.select(*COLUMNS, *own, *feature, meter_revisions.c.revision_id).select_from(source)


def _entitlement(row: sa.Row[Any]) -> Entitlement:
    return Entitlement(
        row.entitlement_id,
        row.counter,
        row.customer_id,
        row.customer_key,
        row.feature_key,
        row.subscription_id,
        Kind(row.kind),
        row.allowance,
        bool(row.soft_limit),
        row.config,
        row.from_time,
        row.to_time,
    )
