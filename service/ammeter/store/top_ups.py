"""Rules of when to top credits up, and the events that say so."""

from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.engine import Connection

from ammeter.domain.top_up import CreditEvent, CreditEventKind, TopUpRule
from ammeter.store.credit_tables import credit_events, top_up_rules
from ammeter.store.db import Tx
from ammeter.store.many import one_of
from ammeter.store.tables import customers

_AT_ONCE = datetime(1970, 1, 1, tzinfo=UTC)
_RULE = ("threshold", "amount", "armed", "version", "update_time")
_EVENT = (
    "credit_event_id",
    "kind",
    "customer_id",
    "currency",
    "available",
    "threshold",
    "amount",
    "create_time",
)


class DueRule(NamedTuple):
    """A rule to look at."""

    tenant_id: int
    customer_id: int


def put(tx: Tx, customer_id: int, rule: TopUpRule) -> None:
    """Put a rule in the place of the one there is, looked at as soon as can be."""
    values = {name: getattr(rule, name) for name in _RULE if name != "version"} | {"check_time": _AT_ONCE}
    query = upsert(top_up_rules).values(tenant_id=tx.tenant_id, customer_id=customer_id, version=1, **values)
    tx.conn.execute(
        query.on_conflict_do_update(
            index_elements=["tenant_id", "customer_id"],
            set_=values | {"version": top_up_rules.c.version + 1},
        )
    )


def get(tx: Tx, customer_id: int, *, lock: bool = False) -> TopUpRule | None:
    """Read a customer's rule."""
    query = sa.select(*(top_up_rules.c[name] for name in _RULE)).where(_mine(tx, customer_id))
    row = tx.conn.execute(query.with_for_update() if lock else query).mappings().one_or_none()
    return None if row is None else TopUpRule(**row)


def delete(tx: Tx, customer_id: int) -> bool:
    """Delete a customer's rule; whether there was one."""
    gone = sa.delete(top_up_rules).where(_mine(tx, customer_id)).returning(top_up_rules.c.customer_id)
    return tx.conn.execute(gone).one_or_none() is not None


def set_due(tx: Tx, customer_ids: Collection[int]) -> None:
    """Have the rules of customers, if there are any, looked at as soon as can be."""
    mine = sa.and_(top_up_rules.c.tenant_id == tx.tenant_id, one_of(top_up_rules.c.customer_id, customer_ids))
    tx.conn.execute(sa.update(top_up_rules).where(mine).values(check_time=_AT_ONCE))


def set_checked(tx: Tx, customer_id: int, *, armed: bool, check_time: datetime) -> None:
    """Say whether the next fall is to be told, and when to look again."""
    _update(tx, customer_id, {"armed": armed, "check_time": check_time})


def _update(tx: Tx, customer_id: int, values: Mapping[str, Any]) -> None:
    tx.conn.execute(sa.update(top_up_rules).where(_mine(tx, customer_id)).values(**values))


def _mine(tx: Tx, customer_id: int) -> sa.ColumnElement[bool]:
    return sa.and_(top_up_rules.c.tenant_id == tx.tenant_id, top_up_rules.c.customer_id == customer_id)


def due(conn: Connection, now: datetime, limit: int) -> list[DueRule]:
    """Find rules of any tenant to look at by now, those due for longest first."""
    query = (
        sa.select(top_up_rules.c.tenant_id, top_up_rules.c.customer_id)
        .where(top_up_rules.c.check_time <= now)
        .order_by(top_up_rules.c.check_time)
        .limit(limit)
    )
    return [DueRule(*row) for row in conn.execute(query)]


def add_event(tx: Tx, event: CreditEvent) -> None:
    """Add an event."""
    values = {name: getattr(event, name) for name in _EVENT}
    tx.conn.execute(sa.insert(credit_events).values(tenant_id=tx.tenant_id, **values))


def page_events(tx: Tx, customer_id: int | None, before_id: str, limit: int) -> list[CreditEvent]:
    """Read events, newest first; those before `before_id`, if given."""
    query = (
        sa.select(*(credit_events.c[name] for name in _EVENT), customers.c.customer_key)
        .join(
            customers,
            sa.and_(
                customers.c.tenant_id == credit_events.c.tenant_id,
                customers.c.customer_id == credit_events.c.customer_id,
            ),
        )
        .where(credit_events.c.tenant_id == tx.tenant_id)
    )
    if customer_id is not None:
        query = query.where(credit_events.c.customer_id == customer_id)
    if before_id:
        query = query.where(credit_events.c.credit_event_id < before_id)
    query = query.order_by(credit_events.c.credit_event_id.desc()).limit(limit)
    return [
        CreditEvent(**{**row, "kind": CreditEventKind(row["kind"])})
        for row in tx.conn.execute(query).mappings()
    ]
