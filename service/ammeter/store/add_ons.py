"""Add-ons of subscriptions."""

from collections.abc import Collection
from typing import Any

import sqlalchemy as sa

from ammeter.domain.add_on import AddOn
from ammeter.store.billing_tables import add_ons
from ammeter.store.db import Tx
from ammeter.store.many import one_of
from ammeter.store.tables import plans

_OWN = ("add_on_id", "subscription_id", "plan_id", "quantity", "from_time", "to_time", "create_time")


def insert(tx: Tx, one: AddOn) -> None:
    """Attach an add-on."""
    values = {name: getattr(one, name) for name in _OWN}
    tx.conn.execute(sa.insert(add_ons).values(tenant_id=tx.tenant_id, **values))


def set_end(tx: Tx, one: AddOn) -> None:
    """Write an add-on's end."""
    mine = sa.and_(add_ons.c.tenant_id == tx.tenant_id, add_ons.c.add_on_id == one.add_on_id)
    tx.conn.execute(sa.update(add_ons).where(mine).values(to_time=one.to_time))


def get(tx: Tx, add_on_id: str) -> AddOn | None:
    """Read an add-on."""
    found = _read(tx, add_ons.c.add_on_id == add_on_id)
    return found[0] if found else None


def of_subscription(
    tx: Tx, subscription_id: str, after_id: str = "", limit: int | None = None
) -> list[AddOn]:
    """Read a subscription's add-ons by id, which is by creation; those after `after_id`."""
    mine = sa.and_(add_ons.c.subscription_id == subscription_id, add_ons.c.add_on_id > after_id)
    return _read(tx, mine, limit)


def of_subscriptions(tx: Tx, subscription_ids: Collection[str]) -> dict[str, list[AddOn]]:
    """Read the add-ons of subscriptions, each by id."""
    found: dict[str, list[AddOn]] = {}
    for one in _read(tx, one_of(add_ons.c.subscription_id, subscription_ids)):
        found.setdefault(one.subscription_id, []).append(one)
    return found


def _read(tx: Tx, which: sa.ColumnElement[bool], limit: int | None = None) -> list[AddOn]:
    query = (
        sa.select(
            *(add_ons.c[name] for name in _OWN), plans.c.plan_key, plans.c.version.label("plan_version")
        )
        .join_from(
            add_ons,
            plans,
            sa.and_(plans.c.tenant_id == add_ons.c.tenant_id, plans.c.plan_id == add_ons.c.plan_id),
        )
        .where(add_ons.c.tenant_id == tx.tenant_id, which)
        .order_by(add_ons.c.add_on_id)
        .limit(limit)
    )
    rows: list[Any] = list(tx.conn.execute(query).mappings())
    return [AddOn(**row) for row in rows]
