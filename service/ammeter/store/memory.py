"""What memory reads of all tenants at once, which may be a million rows: as plain tuples, from COPY."""

from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ammeter.domain.catalog import DimensionFilter, FailMode, FailRule
from ammeter.domain.minute import END
from ammeter.errors import InternalError
from ammeter.store.catalog import filters_of
from ammeter.store.tables import features, meter_revisions


class StoredRight(NamedTuple):
    """An entitlement, times in minutes; a metered one that is `special` has more than an allowance.

    `anchor_us` (microseconds since the epoch) and `cadence` are None where it
    is not metered; `config` is JSON.
    """

    tenant_id: int
    customer_id: int
    counter: int
    feature_id: int
    kind: str
    allowance: Decimal | None
    soft_limit: bool
    config: str | None
    from_minute: int
    to_minute: int
    special: bool
    anchor_us: int | None
    cadence: str | None


class StoredFeature(NamedTuple):
    """What entitlements have of their feature; no revision while there is no served meter."""

    feature_key: str
    revision_id: int | None
    filters: tuple[DimensionFilter, ...]


_CUSTOMERS = """
SELECT tenant_id, customer_id, customer_key, time_zone FROM customers ORDER BY tenant_id, customer_id
"""
_SUBJECTS = """
SELECT tenant_id, subject, from_minute, to_minute, customer_id FROM customer_subjects
ORDER BY tenant_id, subject, from_minute
"""
_RIGHTS = f"""
SELECT e.tenant_id, e.customer_id, e.counter, e.feature_id, e.kind, e.allowance,
  coalesce(e.soft_limit, false), e.config::text,
  floor(date_part('epoch', e.from_time) / 60)::int4,
  coalesce(floor(date_part('epoch', e.to_time) / 60)::int4, {END}),
  e.changes <> '[]' OR (e.kind = 'metered' AND
    (e.preserve_overage OR e.allowance IS NULL OR more.entitlement_id IS NOT NULL)),
  round(date_part('epoch', coalesce(e.anchor_time, s.anchor_time)) * 1000000)::int8,
  coalesce(e.cadence, p.billing_cadence)
FROM entitlements e
LEFT JOIN subscriptions s ON s.tenant_id = e.tenant_id AND s.subscription_id = e.subscription_id
LEFT JOIN plans p ON p.tenant_id = s.tenant_id AND p.plan_id = s.plan_id
LEFT JOIN (
  SELECT tenant_id, entitlement_id FROM grants UNION SELECT tenant_id, entitlement_id FROM usage_resets
) more ON more.tenant_id = e.tenant_id AND more.entitlement_id = e.entitlement_id
ORDER BY e.tenant_id, e.customer_id, e.counter
"""  # noqa: S608 - nothing in it comes from outside


def all_customers(conn: Connection) -> Iterator[tuple[int, int, str, str]]:
    """Read (tenant_id, customer_id, customer_key, time_zone) of everyone (engine role), by number."""
    yield from _copied(conn, _CUSTOMERS, ("int4", "int8", "text", "text"))


def all_subjects(conn: Connection) -> Iterator[tuple[int, str, int, int, int]]:
    """Read (tenant_id, subject, from_minute, to_minute, customer_id) (engine role), by subject and time."""
    yield from _copied(conn, _SUBJECTS, ("int4", "text", "int4", "int4", "int8"))


def all_rights(conn: Connection) -> Iterator[StoredRight]:
    """Read every entitlement (engine role): by customer, by age."""
    types = (
        "int4",
        "int8",
        "int8",
        "int8",
        "text",
        "numeric",
        "bool",
        "text",
        "int4",
        "int4",
        "bool",
        "int8",
    )
    return map(StoredRight._make, _copied(conn, _RIGHTS, (*types, "text")))


def all_features(conn: Connection) -> dict[tuple[int, int], StoredFeature]:
    """Read every feature by (tenant_id, feature_id) (engine role)."""
    served = (
        (meter_revisions.c.tenant_id == features.c.tenant_id)
        & (meter_revisions.c.meter_id == features.c.meter_id)
        & (meter_revisions.c.state == "active")
    )
    query = sa.select(
        features.c.tenant_id,
        features.c.feature_id,
        features.c.feature_key,
        meter_revisions.c.revision_id,
        features.c.filters,
    ).select_from(features.outerjoin(meter_revisions, served))
    return {
        (row.tenant_id, row.feature_id): StoredFeature(
            row.feature_key, row.revision_id, filters_of(row.filters)
        )
        for row in conn.execute(query)
    }


def _copied(conn: Connection, query: str, types: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    """Stream a query's rows; the connection is busy until the last one."""
    raw = conn.connection.driver_connection
    if raw is None:
        message = "the connection is closed"
        raise InternalError(message)
    with raw.cursor() as cursor, cursor.copy(f"COPY ({query}) TO STDOUT (FORMAT BINARY)") as copy:
        copy.set_types(types)
        yield from copy.rows()


def fail_rules(conn: Connection, of: tuple[int, str] | None = None) -> dict[tuple[int, str], FailRule]:
    """Read the fail mode of every feature by (tenant_id, feature_key) (engine role), or of that one."""
    query = sa.select(
        features.c.tenant_id, features.c.feature_key, features.c.fail_mode, features.c.fail_allowance
    )
    if of is not None:
        query = query.where(features.c.tenant_id == of[0], features.c.feature_key == of[1])
    return {
        (row.tenant_id, row.feature_key): FailRule(FailMode(row.fail_mode), row.fail_allowance)
        for row in conn.execute(query)
    }
