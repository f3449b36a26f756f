"""Subscriptions, each with what decides its periods: customer's zone, plan's cadence."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from ammeter.domain.catalog import Plan
from ammeter.domain.spans import Span
from ammeter.domain.subscription import Subscription
from ammeter.store.db import Tx
from ammeter.store.many import one_of
from ammeter.store.tables import customers, plans, subscription_spans, subscriptions

# A subscription with the names of its neighbours.
_JOINED = subscriptions.join(
    customers,
    (customers.c.tenant_id == subscriptions.c.tenant_id)
    & (customers.c.customer_id == subscriptions.c.customer_id),
).join(plans, (plans.c.tenant_id == subscriptions.c.tenant_id) & (plans.c.plan_id == subscriptions.c.plan_id))
_COLUMNS = (
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
    subscriptions.c.update_time,
)


def _subscription(row: sa.Row[Any], spans: Mapping[str, tuple[Span, ...]]) -> Subscription:
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
        spans.get(row.subscription_id, ()),
        row.update_time,
    )


def _read(tx: Tx, query: sa.Select[Any]) -> list[Subscription]:
    rows = tx.conn.execute(query).all()
    spans = _spans(tx, [row.subscription_id for row in rows])
    return [_subscription(row, spans) for row in rows]


def _spans(tx: Tx, subscription_ids: Sequence[str]) -> dict[str, tuple[Span, ...]]:
    """Read the spans of subscriptions, by start."""
    if not subscription_ids:
        return {}
    names = ("subscription_id", "plan_id", "start_time", "end_time", "phase", "quantity")
    query = (
        sa.select(*(subscription_spans.c[name] for name in names))
        .where(
            subscription_spans.c.tenant_id == tx.tenant_id,
            one_of(subscription_spans.c.subscription_id, subscription_ids),
        )
        .order_by(subscription_spans.c.subscription_id, subscription_spans.c.start_time)
    )
    rows = tx.conn.execute(query).all()
    # Few plans have many spans: each plan is read once.
    on = _plans(tx, {row.plan_id for row in rows})
    found: dict[str, tuple[Span, ...]] = {}
    for name, plan_id, start, end, phase, quantity in rows:
        plan = on[plan_id]
        phase_key = plan.phases[phase]["phase_key"] if plan.phases else ""
        span = Span(start, end, plan_id, phase, quantity, plan.plan_key, plan.version, phase_key)
        found[name] = (*found[name], span) if name in found else (span,)
    return found


def _plans(tx: Tx, plan_ids: Collection[int]) -> dict[int, Any]:
    query = sa.select(plans.c.plan_id, plans.c.plan_key, plans.c.version, plans.c.phases).where(
        plans.c.tenant_id == tx.tenant_id, one_of(plans.c.plan_id, plan_ids)
    )
    return {row.plan_id: row for row in tx.conn.execute(query)}


def insert(tx: Tx, subscription: Subscription) -> None:
    """Add a subscription with its spans."""
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
    values["update_time"] = subscription.create_time
    tx.conn.execute(sa.insert(subscriptions).values(tenant_id=tx.tenant_id, **values))
    _insert_spans(tx, subscription.subscription_id, subscription.course)


def _insert_spans(tx: Tx, subscription_id: str, spans: Iterable[Span]) -> None:
    rows = [
        {
            "tenant_id": tx.tenant_id,
            "subscription_id": subscription_id,
            "start_time": span.start_time,
            "end_time": span.end_time,
            "plan_id": span.plan_id,
            "phase": span.phase,
            "quantity": span.quantity,
        }
        for span in spans
    ]
    tx.conn.execute(sa.insert(subscription_spans), rows)


def get(tx: Tx, subscription_id: str) -> Subscription | None:
    """Read a subscription."""
    found = _read(tx, _mine(tx).where(subscriptions.c.subscription_id == subscription_id))
    return found[0] if found else None


def get_all(tx: Tx, subscription_ids: Collection[str]) -> dict[str, Subscription]:
    """Read those of the subscriptions that there are, by id."""
    found = _read(tx, _mine(tx).where(one_of(subscriptions.c.subscription_id, subscription_ids)))
    return {sub.subscription_id: sub for sub in found}


def page_ids(tx: Tx, customer_id: int | None, after_id: str, limit: int) -> list[str]:
    """Read ids as `page` reads subscriptions."""
    query = sa.select(subscriptions.c.subscription_id).where(subscriptions.c.tenant_id == tx.tenant_id)
    query = query.where(subscriptions.c.subscription_id > after_id)
    if customer_id is not None:
        query = query.where(subscriptions.c.customer_id == customer_id)
    return list(tx.conn.execute(query.order_by(subscriptions.c.subscription_id).limit(limit)).scalars())


def page(tx: Tx, customer_id: int | None, after_id: str, limit: int) -> list[Subscription]:
    """Read subscriptions by id, which is by creation; those after `after_id`, of one customer if given."""
    query = _mine(tx).where(subscriptions.c.subscription_id > after_id)
    if customer_id is not None:
        query = query.where(subscriptions.c.customer_id == customer_id)
    return _read(tx, query.order_by(subscriptions.c.subscription_id).limit(limit))


def of_customer(tx: Tx, customer_id: int) -> list[Subscription]:
    """Read all subscriptions of a customer, by creation."""
    query = (
        _mine(tx).where(subscriptions.c.customer_id == customer_id).order_by(subscriptions.c.subscription_id)
    )
    return _read(tx, query)


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
        .values(end_time=end_time, cancel_time=now, update_time=now)
    )
    tx.conn.execute(change)


def take_back_end(tx: Tx, subscription_id: str, now: datetime) -> None:
    """Let a subscription go on without an end."""
    tx.conn.execute(_one(tx, subscription_id).values(end_time=None, cancel_time=None, update_time=now))


def set_spans(tx: Tx, subscription: Subscription, now: datetime) -> None:
    """Put other spans in the place of a subscription's."""
    mine = (
        subscription_spans.c.tenant_id == tx.tenant_id,
        subscription_spans.c.subscription_id == subscription.subscription_id,
    )
    tx.conn.execute(sa.delete(subscription_spans).where(*mine))
    _insert_spans(tx, subscription.subscription_id, subscription.course)
    tx.conn.execute(_one(tx, subscription.subscription_id).values(update_time=now))


def _one(tx: Tx, subscription_id: str) -> sa.Update:
    return sa.update(subscriptions).where(
        subscriptions.c.tenant_id == tx.tenant_id, subscriptions.c.subscription_id == subscription_id
    )


def count_on_plan(tx: Tx, target: Plan, from_version: int, now: datetime) -> int:
    """Count what page_on_plan reads."""
    query = sa.select(sa.func.count()).select_from(_on_plan(tx, target, from_version, now).subquery())
    return tx.conn.execute(query).scalar_one()


def page_on_plan(
    tx: Tx, target: Plan, from_version: int, now: datetime, after_id: str, limit: int
) -> list[str]:
    """Read ids of subscriptions that are, or will be, on another version of a plan, those after `after_id`.

    from_version 0: on any other.
    """
    query = _on_plan(tx, target, from_version, now).where(subscriptions.c.subscription_id > after_id)
    query = query.order_by(subscriptions.c.subscription_id).limit(limit)
    return list(tx.conn.execute(query).scalars())


def _on_plan(tx: Tx, target: Plan, from_version: int, now: datetime) -> sa.Select[Any]:
    version = plans.c.version == from_version if from_version else plans.c.version != target.version
    lasts = sa.or_(subscription_spans.c.end_time.is_(None), subscription_spans.c.end_time > now)
    spans = (
        sa.select(subscription_spans.c.subscription_id)
        .join(
            plans,
            (plans.c.tenant_id == subscription_spans.c.tenant_id)
            & (plans.c.plan_id == subscription_spans.c.plan_id),
        )
        .where(subscription_spans.c.tenant_id == tx.tenant_id, plans.c.plan_key == target.plan_key)
        .where(version, lasts)
    )
    return sa.select(subscriptions.c.subscription_id).where(
        subscriptions.c.tenant_id == tx.tenant_id,
        subscriptions.c.subscription_id.in_(spans),
        sa.or_(subscriptions.c.end_time.is_(None), subscriptions.c.end_time > now),
    )


def _mine(tx: Tx) -> sa.Select[Any]:
    return sa.select(*_COLUMNS).select_from(_JOINED).where(subscriptions.c.tenant_id == tx.tenant_id)
