"""Entitlements, and what checks keep of them in memory."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ammeter.domain.catalog import DimensionFilter
from ammeter.domain.entitlement import AllowanceChange, Entitlement, Kind
from ammeter.domain.grant import LEVELS, Grant, Terms
from ammeter.domain.minute import END, minute_of, time_of
from ammeter.domain.quantity import decimal_text, to_scaled
from ammeter.domain.usage_period import OwnCourse, Reset, Rhythm, Schedule
from ammeter.store import grants as grant_store
from ammeter.store.catalog import filters_of
from ammeter.store.db import Tx
from ammeter.store.tables import (
    customers,
    entitlements,
    features,
    meter_revisions,
    meters,
    plans,
    subscriptions,
)


class Held(NamedTuple):
    """An entitlement with all that its counter follows from.

    `course` is when its usage periods are, None when it is not metered;
    `revision_id` is of the served meter.
    """

    tenant_id: int
    entitlement: Entitlement
    course: OwnCourse | None
    revision_id: int | None
    meter_id: int | None
    filters: tuple[DimensionFilter, ...]
    aggregation: str
    grants: tuple[Grant, ...] = ()
    resets: tuple[Reset, ...] = ()

    @property
    def is_plain(self) -> bool:
        """Whether there is no grant but the allowance: no period has to do with another."""
        mine = self.entitlement
        special = self.grants or self.resets or mine.changes
        return not (special or mine.preserve_overage or mine.allowance is None)

    @property
    def terms(self) -> Terms | None:
        """What its grants are burnt by; None when it is not metered."""
        course, mine = self.course, self.entitlement
        if course is None:
            return None
        end = END if course.end_time is None else minute_of(course.end_time)
        rhythm = Rhythm(course.anchor_time, course.time_zone, course.billing_cadence)
        changes = tuple((minute_of(time), to_scaled(allowance)) for time, allowance in mine.resets)
        by_plan = {minute: Reset(minute, moves_anchor=False) for minute, _ in changes if minute < end}
        resets = {**by_plan, **{reset.minute: reset for reset in self.resets}}
        return Terms(
            Schedule(minute_of(course.start_time), end, rhythm, tuple(resets[one] for one in sorted(resets))),
            None if mine.allowance is None else to_scaled(mine.allowance),
            mine.preserve_overage,
            self.aggregation in LEVELS,
            changes,
        )


class Known(NamedTuple):
    """A customer, by number and key."""

    tenant_id: int
    customer_id: int
    customer_key: str


def insert(tx: Tx, granted: Sequence[Entitlement], feature_ids: dict[str, int]) -> None:
    """Add entitlements; the database numbers their counters."""
    rows = [
        {
            "tenant_id": tx.tenant_id,
            "entitlement_id": entitlement.entitlement_id,
            "customer_id": entitlement.customer_id,
            "feature_id": feature_ids[entitlement.feature_key],
            "subscription_id": entitlement.subscription_id or None,
            "kind": entitlement.kind.value,
            "allowance": entitlement.allowance,
            "soft_limit": entitlement.soft_limit if entitlement.kind is Kind.METERED else None,
            "config": sa.null() if entitlement.config is None else entitlement.config,
            "from_time": entitlement.from_time,
            "to_time": entitlement.to_time,
            "preserve_overage": entitlement.preserve_overage,
            "cadence": entitlement.cadence,
            "anchor_time": entitlement.anchor_time,
            "changes": _changes_json(entitlement.changes),
        }
        for entitlement in granted
    ]
    if rows:
        tx.conn.execute(sa.insert(entitlements), rows)


def set_course(
    tx: Tx, entitlement_id: str, to_time: datetime | None, changes: Sequence[AllowanceChange] = ()
) -> None:
    """Say how an entitlement goes on and when it ends, except that one ended by hand stays so."""
    change = (
        sa.update(entitlements)
        .where(entitlements.c.tenant_id == tx.tenant_id, entitlements.c.entitlement_id == entitlement_id)
        .values(to_time=sa.func.least(to_time, entitlements.c.delete_time), changes=_changes_json(changes))
    )
    tx.conn.execute(change)


def _changes_json(changes: Iterable[AllowanceChange]) -> list[dict[str, Any]]:
    return [
        {
            "from_time": one.from_time.isoformat(),
            "allowance": decimal_text(one.allowance),
            "soft_limit": one.soft_limit,
        }
        for one in changes
    ]


def _changes(stored: list[dict[str, Any]]) -> tuple[AllowanceChange, ...]:
    return tuple(
        AllowanceChange(
            datetime.fromisoformat(one["from_time"]), Decimal(one["allowance"]), one["soft_limit"]
        )
        for one in stored
    )


def end(tx: Tx, entitlement_id: str, delete_time: datetime) -> None:
    """End an entitlement, whatever its subscription says."""
    change = (
        sa.update(entitlements)
        .where(entitlements.c.tenant_id == tx.tenant_id, entitlements.c.entitlement_id == entitlement_id)
        .values(to_time=delete_time, delete_time=delete_time)
    )
    tx.conn.execute(change)


def get(tx: Tx, entitlement_id: str) -> Held | None:
    """Read an entitlement with its grants."""
    query = _held().where(
        entitlements.c.tenant_id == tx.tenant_id, entitlements.c.entitlement_id == entitlement_id
    )
    row = tx.conn.execute(query).one_or_none()
    if row is None:
        return None
    found, resets = grant_store.by_entitlement(tx.conn, (tx.tenant_id, [row.customer_id]))
    return _held_of(row, found, resets)


def overlapping(
    tx: Tx, customer_id: int, feature_key: str, start: datetime, to: datetime | None
) -> list[Held]:
    """Read a customer's entitlements to a feature with an instant in [start, to), without grants."""
    until = sa.func.coalesce(entitlements.c.to_time, sa.literal_column("'infinity'::timestamptz"))
    query = _held().where(
        entitlements.c.tenant_id == tx.tenant_id,
        entitlements.c.customer_id == customer_id,
        features.c.feature_key == feature_key,
        start < until,
        entitlements.c.from_time < until,
    )
    if to is not None:
        query = query.where(entitlements.c.from_time < to)
    return [_held_of(row, {}, {}) for row in tx.conn.execute(query.order_by(entitlements.c.from_time))]


def by_hand(tx: Tx, customer_id: int) -> list[Held]:
    """Read a customer's entitlements that were made by hand, without grants."""
    query = _held().where(
        entitlements.c.tenant_id == tx.tenant_id,
        entitlements.c.customer_id == customer_id,
        entitlements.c.subscription_id.is_(None),
    )
    return [_held_of(row, {}, {}) for row in tx.conn.execute(query.order_by(entitlements.c.entitlement_id))]


def of_subscription(tx: Tx, subscription_id: str) -> list[Entitlement]:
    """Read the entitlements that a subscription gives or gave, oldest first."""
    query = _held().where(
        entitlements.c.tenant_id == tx.tenant_id, entitlements.c.subscription_id == subscription_id
    )
    return [_entitlement(row) for row in tx.conn.execute(query.order_by(entitlements.c.counter))]


def any_by_hand(tx: Tx, customer_id: int) -> bool:
    """Tell whether a customer has, or had, a metered entitlement made by hand."""
    query = sa.select(
        sa.exists().where(
            entitlements.c.tenant_id == tx.tenant_id,
            entitlements.c.customer_id == customer_id,
            entitlements.c.cadence.is_not(None),
        )
    )
    return bool(tx.conn.execute(query).scalar_one())


def naming(tx: Tx, feature_id: int) -> str | None:
    """Find an entitlement, whenever it is, to a feature."""
    query = (
        sa.select(entitlements.c.entitlement_id)
        .where(entitlements.c.tenant_id == tx.tenant_id, entitlements.c.feature_id == feature_id)
        .limit(1)
    )
    return tx.conn.execute(query).scalar_one_or_none()


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


def held(conn: Connection, of: tuple[int, Sequence[int]]) -> Iterator[Held]:
    """Read the entitlements of (tenant_id, customer_ids) (engine role): by customer, by age."""
    mine = entitlements.c
    query = _held().where(mine.tenant_id == of[0], mine.customer_id.in_(of[1]))
    found, resets = grant_store.by_entitlement(conn, of)
    for row in conn.execute(query.order_by(mine.tenant_id, mine.customer_id, mine.counter)):
        yield _held_of(row, found, resets)


def known_customers(conn: Connection, of: tuple[int, Sequence[int]]) -> Iterator[Known]:
    """Read customers by (tenant_id, customer_ids) (engine role), by number."""
    query = (
        sa.select(customers.c.tenant_id, customers.c.customer_id, customers.c.customer_key)
        .where(customers.c.tenant_id == of[0], customers.c.customer_id.in_(of[1]))
        .order_by(customers.c.tenant_id, customers.c.customer_id)
    )
    for row in conn.execute(query):
        yield Known(*row)


def changed_since(conn: Connection, since: datetime) -> dict[tuple[int, int], datetime]:
    """Read when customers or what is theirs last changed, by (tenant_id, customer_id) (engine role)."""
    theirs = (subscriptions.c.tenant_id, subscriptions.c.customer_id)
    changes = sa.union_all(
        sa.select(
            customers.c.tenant_id, customers.c.customer_id, customers.c.update_time.label("time")
        ).where(customers.c.update_time >= since),
        sa.select(*theirs, subscriptions.c.update_time).where(subscriptions.c.update_time >= since),
    ).subquery()
    query = sa.select(changes.c.tenant_id, changes.c.customer_id, sa.func.max(changes.c.time).label("time"))
    rows = conn.execute(query.group_by(changes.c.tenant_id, changes.c.customer_id))
    return {(row.tenant_id, row.customer_id): row.time for row in rows}


def customers_metered_by(conn: Connection, tenant_id: int, meter_id: int) -> list[int]:
    """Read which customers hold, or held, entitlements that a meter backs (engine role)."""
    query = (
        sa.select(entitlements.c.customer_id)
        .distinct()
        .join(features, _same_feature())
        .where(entitlements.c.tenant_id == tenant_id, features.c.meter_id == meter_id)
        .order_by(entitlements.c.customer_id)
    )
    return list(conn.execute(query).scalars())


def metered_since(conn: Connection, tenant_id: int, minute: int) -> list[int]:
    """Read which customers had a metered entitlement at a minute or later (engine role)."""
    mine = entitlements.c
    query = (
        sa.select(mine.customer_id)
        .distinct()
        .where(
            mine.tenant_id == tenant_id,
            mine.kind == Kind.METERED.value,
            sa.or_(mine.to_time.is_(None), mine.to_time > time_of(minute)),
        )
        .order_by(mine.customer_id)
    )
    return list(conn.execute(query).scalars())


def _same_feature() -> sa.ColumnElement[bool]:
    return (features.c.tenant_id == entitlements.c.tenant_id) & (
        features.c.feature_id == entitlements.c.feature_id
    )


def _held() -> sa.Select[Any]:
    source = (
        entitlements.join(
            customers,
            (customers.c.tenant_id == entitlements.c.tenant_id)
            & (customers.c.customer_id == entitlements.c.customer_id),
        )
        .join(features, _same_feature())
        .outerjoin(
            subscriptions,
            (subscriptions.c.tenant_id == entitlements.c.tenant_id)
            & (subscriptions.c.subscription_id == entitlements.c.subscription_id),
        )
        .outerjoin(
            plans,
            (plans.c.tenant_id == subscriptions.c.tenant_id) & (plans.c.plan_id == subscriptions.c.plan_id),
        )
        .outerjoin(
            meters, (meters.c.tenant_id == features.c.tenant_id) & (meters.c.meter_id == features.c.meter_id)
        )
        .outerjoin(
            meter_revisions,
            (meter_revisions.c.tenant_id == features.c.tenant_id)
            & (meter_revisions.c.meter_id == features.c.meter_id)
            & (meter_revisions.c.state == "active"),
        )
    )
    return sa.select(
        entitlements,
        customers.c.customer_key,
        customers.c.time_zone,
        features.c.feature_key,
        features.c.meter_id,
        features.c.filters,
        meters.c.aggregation,
        meter_revisions.c.revision_id,
        sa.func.coalesce(entitlements.c.anchor_time, subscriptions.c.anchor_time).label("course_anchor_time"),
        sa.func.coalesce(entitlements.c.cadence, plans.c.billing_cadence).label("course_cadence"),
    ).select_from(source)


def _held_of(
    row: sa.Row[Any],
    found: dict[grant_store.Key, tuple[Grant, ...]],
    resets: dict[grant_store.Key, tuple[Reset, ...]],
) -> Held:
    key = (row.tenant_id, row.entitlement_id)
    course = None
    if row.kind == Kind.METERED.value:
        course = OwnCourse(
            row.course_anchor_time, row.time_zone, row.course_cadence, row.from_time, row.to_time
        )
    return Held(
        row.tenant_id,
        _entitlement(row),
        course,
        row.revision_id,
        row.meter_id,
        filters_of(row.filters),
        row.aggregation or "",
        found.get(key, ()),
        resets.get(key, ()),
    )


def _entitlement(row: sa.Row[Any]) -> Entitlement:
    return Entitlement(
        row.entitlement_id,
        row.counter,
        row.customer_id,
        row.customer_key,
        row.feature_key,
        row.subscription_id or "",
        Kind(row.kind),
        row.allowance,
        bool(row.soft_limit),
        row.config,
        row.from_time,
        row.to_time,
        row.preserve_overage,
        row.cadence,
        row.anchor_time,
        row.delete_time,
        _changes(row.changes),
    )
