"""Subscriptions, each with what decides its periods: customer's zone, plan's cadence."""

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import aggregate_order_by

from ammeter.domain.subscription import Subscription
from ammeter.store.db import Tx
from ammeter.store.tables import customers, features, plans, rate_cards, subscriptions

# A subscription with the names of its neighbours; also joined by store/entitlements.py.
JOINED = subscriptions.join(
    customers,
    (customers.c.tenant_id == subscriptions.c.tenant_id)
    & (customers.c.customer_id == subscriptions.c.customer_id),
).join(plans, (plans.c.tenant_id == subscriptions.c.tenant_id) & (plans.c.plan_id == subscriptions.c.plan_id))
COLUMNS = (
    subscriptions.c.tenant_id,
    subscriptions.c.subscription_id,
    subscriptions.c.customer_id,
    customers.c.customer_key,
    subscriptions.c.plan_id,
    plans.c.plan_key,
    subscriptions.c.start_time,
    subscriptions.c.end_time,
    subscriptions.c.anchor_time,
    customers.c.time_zone,
    plans.c.billing_cadence,
    plans.c.currency,
    subscriptions.c.create_time,
    subscriptions.c.cancel_time,
)


def subscription_of(row: sa.Row[Any]) -> Subscription:
    """Make a subscription of a row of COLUMNS."""
    return Subscription(
        row.subscription_id,
        row.customer_id,
        row.customer_key,
        row.plan_id,
        row.plan_key,
        row.start_time,
        row.end_time,
        row.anchor_time,
        row.time_zone,
        row.billing_cadence,
        row.currency,
        row.create_time,
        row.cancel_time,
    )


def insert(tx: Tx, subscription: Subscription) -> None:
    """Add a subscription."""
    names = (
        "subscription_id",
        "customer_id",
        "plan_id",
        "start_time",
        "end_time",
        "anchor_time",
        "create_time",
    )
    values = {name: getattr(subscription, name) for name in names}
    tx.conn.execute(sa.insert(subscriptions).values(tenant_id=tx.tenant_id, **values))


def get(tx: Tx, subscription_id: str) -> Subscription | None:
    """Read a subscription."""
    row = tx.conn.execute(_mine(tx).where(subscriptions.c.subscription_id == subscription_id)).one_or_none()
    return None if row is None else subscription_of(row)


def page(tx: Tx, customer_id: int | None, after_id: str, limit: int) -> list[Subscription]:
    """Read subscriptions by id, which is by creation; those after `after_id`, of one customer if given."""
    query = _mine(tx).where(subscriptions.c.subscription_id > after_id)
    if customer_id is not None:
        query = query.where(subscriptions.c.customer_id == customer_id)
    query = query.order_by(subscriptions.c.subscription_id).limit(limit)
    return [subscription_of(row) for row in tx.conn.execute(query)]


def of_customer(tx: Tx, customer_id: int) -> list[Subscription]:
    """Read all subscriptions of a customer, by creation."""
    query = (
        _mine(tx).where(subscriptions.c.customer_id == customer_id).order_by(subscriptions.c.subscription_id)
    )
    return [subscription_of(row) for row in tx.conn.execute(query)]


def any_of_customer(tx: Tx, customer_id: int) -> bool:
    """Tell whether a customer has, or had, a subscription."""
    query = sa.select(
        sa.exists().where(
            subscriptions.c.tenant_id == tx.tenant_id, subscriptions.c.customer_id == customer_id
        )
    )
    return bool(tx.conn.execute(query).scalar_one())


def set_end(tx: Tx, subscription_id: str, end_time: datetime, now: datetime) -> None:
    """Say when a subscription ends, and that this was said now."""
    change = (
        sa.update(subscriptions)
        .where(subscriptions.c.tenant_id == tx.tenant_id, subscriptions.c.subscription_id == subscription_id)
        .values(end_time=end_time, cancel_time=now)
    )
    tx.conn.execute(change)


def overlaps(tx: Tx, wanted: Subscription) -> list[tuple[str, list[str]]]:
    """Find other subscriptions of the customer that would give the same features at the same time.

    Returns (subscription_id, feature keys). The caller holds the customer's
    row, so that no other subscription comes in between.
    """
    theirs, ours = rate_cards.alias("theirs"), rate_cards.alias("ours")
    end = sa.func.coalesce(subscriptions.c.end_time, sa.literal_column("'infinity'::timestamptz"))
    query = (
        sa.select(
            subscriptions.c.subscription_id,
            sa.func.array_agg(aggregate_order_by(features.c.feature_key, features.c.feature_key)).label(
                "keys"
            ),
        )
        .join(
            theirs,
            (theirs.c.tenant_id == subscriptions.c.tenant_id) & (theirs.c.plan_id == subscriptions.c.plan_id),
        )
        .join(
            ours,
            (ours.c.tenant_id == theirs.c.tenant_id)
            & (ours.c.feature_id == theirs.c.feature_id)
            & (ours.c.plan_id == wanted.plan_id),
        )
        .join(
            features,
            (features.c.tenant_id == ours.c.tenant_id) & (features.c.feature_id == ours.c.feature_id),
        )
        .where(
            subscriptions.c.tenant_id == tx.tenant_id,
            subscriptions.c.customer_id == wanted.customer_id,
            subscriptions.c.subscription_id != wanted.subscription_id,
            # One that ended where it began never gave anything.
            subscriptions.c.start_time < end,
            wanted.start_time < end,
        )
        .group_by(subscriptions.c.subscription_id)
        .order_by(subscriptions.c.subscription_id)
    )
    if wanted.end_time is not None:
        query = query.where(subscriptions.c.start_time < wanted.end_time)
    return [(subscription_id, keys) for subscription_id, keys in tx.conn.execute(query)]


def _mine(tx: Tx) -> sa.Select[Any]:
    return sa.select(*COLUMNS).select_from(JOINED).where(subscriptions.c.tenant_id == tx.tenant_id)
