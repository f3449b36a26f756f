"""When the billing worker looks at a subscription next.

Triggers of the database set a clock back when the subscription, its
customer's subjects or one of its invoices change.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import NamedTuple

import sqlalchemy as sa

from ammeter.store.billing_tables import billing_clocks
from ammeter.store.db import Tx
from ammeter.store.tables import subscriptions

_AT_ONCE = datetime(1970, 1, 1, tzinfo=UTC)  # as the triggers do


class Clock(NamedTuple):
    """A subscription that is due; its version counts how often the clock was set back."""

    subscription_id: str
    version: int


def due(tx: Tx, now: datetime, limit: int) -> list[Clock]:
    """Find subscriptions to look at by now, those due for longest first."""
    query = (
        sa.select(billing_clocks.c.subscription_id, billing_clocks.c.version)
        .where(billing_clocks.c.tenant_id == tx.tenant_id, billing_clocks.c.due_time <= now)
        .order_by(billing_clocks.c.due_time, billing_clocks.c.subscription_id)
        .limit(limit)
    )
    return [Clock(*row) for row in tx.conn.execute(query)]


def move(tx: Tx, moves: Iterable[tuple[Clock, datetime | None]]) -> None:
    """Set clocks forward (None: to never), unless they were set back since they were read."""
    rows = [
        {"sub": clock.subscription_id, "read": clock.version, "due": due_time}
        for clock, due_time in sorted(moves, key=lambda move: move[0])
    ]
    change = (
        sa.update(billing_clocks)
        .where(
            billing_clocks.c.tenant_id == tx.tenant_id,
            billing_clocks.c.subscription_id == sa.bindparam("sub"),
            billing_clocks.c.version == sa.bindparam("read"),
        )
        .values(due_time=sa.bindparam("due"))
    )
    if rows:
        tx.conn.execute(change, rows)


def set_back(tx: Tx, customer_id: int | None) -> None:
    """Have a customer's subscriptions, or all, looked at as soon as can be."""
    change = sa.update(billing_clocks).where(billing_clocks.c.tenant_id == tx.tenant_id)
    if customer_id is not None:
        theirs = sa.select(subscriptions.c.subscription_id).where(
            subscriptions.c.tenant_id == tx.tenant_id, subscriptions.c.customer_id == customer_id
        )
        change = change.where(billing_clocks.c.subscription_id.in_(theirs))
    tx.conn.execute(change.values(due_time=_AT_ONCE, version=billing_clocks.c.version + 1))
