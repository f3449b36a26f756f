"""Coupons, where they are attached, and what they took off."""

from collections.abc import Collection
from dataclasses import replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert as upsert

from ammeter.domain.coupon import AttachedCoupon, Coupon
from ammeter.store.billing_tables import attached_coupons, coupons
from ammeter.store.db import Tx
from ammeter.store.many import one_of
from ammeter.store.tables import customers

_FIELDS = [coupons.c[name] for name in Coupon.__dataclass_fields__]
_ATTACHED = (
    "attached_coupon_id",
    "customer_id",
    "subscription_id",
    "from_time",
    "to_time",
)


def insert(tx: Tx, coupon: Coupon, now: datetime) -> Coupon | None:
    """Add a coupon; None if its key is taken."""
    names = ("coupon_key", "name", "percentage", "amount", "currency", "period_count")
    values = {name: getattr(coupon, name) for name in names}
    query = upsert(coupons).values(tenant_id=tx.tenant_id, create_time=now, **values)
    added = tx.conn.execute(
        query.on_conflict_do_nothing().returning(coupons.c.coupon_id)
    ).scalar_one_or_none()
    return None if added is None else replace(coupon, coupon_id=added, create_time=now)


def get(tx: Tx, coupon_key: str, *, lock: bool = False) -> Coupon | None:
    """Read a coupon; `lock` keeps it as it is until the transaction ends."""
    query = _mine(tx).where(coupons.c.coupon_key == coupon_key)
    row = tx.conn.execute(query.with_for_update() if lock else query).mappings().one_or_none()
    return None if row is None else Coupon(**row)


def page(tx: Tx, after_key: str, limit: int) -> list[Coupon]:
    """Read coupons by key, those after `after_key`."""
    query = _mine(tx).where(coupons.c.coupon_key > after_key).order_by(coupons.c.coupon_key).limit(limit)
    return [Coupon(**row) for row in tx.conn.execute(query).mappings()]


def archive(tx: Tx, coupon: Coupon, now: datetime) -> Coupon:
    """Close a coupon for new attachments."""
    mine = sa.and_(coupons.c.tenant_id == tx.tenant_id, coupons.c.coupon_id == coupon.coupon_id)
    tx.conn.execute(sa.update(coupons).where(mine).values(archive_time=now))
    return replace(coupon, archive_time=now)


def _mine(tx: Tx) -> sa.Select[Any]:
    return sa.select(*_FIELDS).where(coupons.c.tenant_id == tx.tenant_id)


def attach(tx: Tx, attached: AttachedCoupon) -> None:
    """Add an attachment."""
    values = {name: getattr(attached, name) for name in (*_ATTACHED, "create_time")}
    values |= {
        "coupon_id": attached.coupon.coupon_id,
        "subscription_id": attached.subscription_id or None,
    }
    tx.conn.execute(sa.insert(attached_coupons).values(tenant_id=tx.tenant_id, **values))


def detach(tx: Tx, attached: AttachedCoupon, to_time: datetime) -> AttachedCoupon:
    """End an attachment."""
    mine = sa.and_(
        attached_coupons.c.tenant_id == tx.tenant_id,
        attached_coupons.c.attached_coupon_id == attached.attached_coupon_id,
    )
    tx.conn.execute(sa.update(attached_coupons).where(mine).values(to_time=to_time))
    return replace(attached, to_time=to_time)


def get_attached(tx: Tx, attached_coupon_id: str) -> AttachedCoupon | None:
    """Read an attachment."""
    found = _read(tx, attached_coupons.c.attached_coupon_id == attached_coupon_id)
    return found[0] if found else None


def of_customer(tx: Tx, customer_id: int) -> list[AttachedCoupon]:
    """Read all attachments of a customer and of its subscriptions, in the order in which they apply."""
    return _read(tx, attached_coupons.c.customer_id == customer_id)


def of_customers(tx: Tx, customer_ids: Collection[int]) -> dict[int, list[AttachedCoupon]]:
    """As of_customer, of several."""
    found: dict[int, list[AttachedCoupon]] = {}
    for one in _read(tx, one_of(attached_coupons.c.customer_id, customer_ids)):
        found.setdefault(one.customer_id, []).append(one)
    return found


def any_attached(tx: Tx, customer_id: int) -> bool:
    """Tell whether a customer has, or had, any coupon."""
    query = sa.select(
        sa.exists().where(
            attached_coupons.c.tenant_id == tx.tenant_id, attached_coupons.c.customer_id == customer_id
        )
    )
    return bool(tx.conn.execute(query).scalar_one())


def page_attached(tx: Tx, customer_id: int | None, after_id: str, limit: int) -> list[AttachedCoupon]:
    """Read attachments by id, which is by creation; those after `after_id`, of one customer if given."""
    after = attached_coupons.c.attached_coupon_id > after_id
    mine = sa.true() if customer_id is None else attached_coupons.c.customer_id == customer_id
    return _read(tx, sa.and_(after, mine), limit, by_id=True)


def _read(
    tx: Tx, which: sa.ColumnElement[bool], limit: int | None = None, *, by_id: bool = False
) -> list[AttachedCoupon]:
    own = [attached_coupons.c[name].label(f"attached_{name}") for name in (*_ATTACHED, "create_time")]
    query = (
        sa.select(*_FIELDS, *own, customers.c.customer_key)
        .join_from(
            attached_coupons,
            coupons,
            sa.and_(
                coupons.c.tenant_id == attached_coupons.c.tenant_id,
                coupons.c.coupon_id == attached_coupons.c.coupon_id,
            ),
        )
        .join(
            customers,
            sa.and_(
                customers.c.tenant_id == attached_coupons.c.tenant_id,
                customers.c.customer_id == attached_coupons.c.customer_id,
            ),
        )
        .where(attached_coupons.c.tenant_id == tx.tenant_id, which)
    )
    order = [attached_coupons.c.attached_coupon_id]
    if not by_id:
        order.insert(0, attached_coupons.c.create_time)
    rows = tx.conn.execute(query.order_by(*order).limit(limit)).mappings()
    return [_attached(row) for row in rows]


def _attached(row: sa.RowMapping) -> AttachedCoupon:
    return AttachedCoupon(
        attached_coupon_id=row["attached_attached_coupon_id"],
        coupon=Coupon(**{name: row[name] for name in Coupon.__dataclass_fields__}),
        customer_id=row["attached_customer_id"],
        customer_key=row["customer_key"],
        subscription_id=row["attached_subscription_id"] or "",
        from_time=row["attached_from_time"],
        to_time=row["attached_to_time"],
        create_time=row["attached_create_time"],
    )
