"""Thresholds, and the outbox of what they told."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.engine import Connection

from ammeter.domain.minute import minute_of
from ammeter.domain.quantity import from_scaled, to_scaled
from ammeter.domain.threshold import Standing, Threshold, ThresholdKind
from ammeter.domain.top_up import CreditEvent
from ammeter.store.db import Tx
from ammeter.store.notification_tables import notifications, thresholds
from ammeter.store.tables import customers, entitlements, features

_LOCK = sa.text("SELECT pg_advisory_xact_lock(:lock, :tenant)")
# "noti" in ASCII.
_SEQUENCE_LOCK = 0x6E6F7469


class Fired(NamedTuple):
    """What is to be told: a rule holds for an entitlement (by its counter) in a period."""

    tenant_id: int
    counter: int
    rule: Threshold
    standing: Standing


class TopUp(NamedTuple):
    """What is told of a credit event; money as text."""

    credit_event_id: str
    currency: str
    available: str
    threshold: str
    amount: str


class Told(NamedTuple):
    """A notification as it is stored; quantities are scaled ints, and none with a top_up."""

    sequence: int
    rule: Threshold
    entitlement_id: str
    customer_key: str
    feature_key: str
    start_minute: int
    end_minute: int
    usage: int
    balance: int
    overage: int
    create_time: datetime
    top_up: TopUp | None = None


# The kind of notifications about credits; the others are those of thresholds.
TOP_UP_NEEDED = "TOP_UP_NEEDED"


class Wanted(NamedTuple):
    """Which notifications: those after a sequence, about what is not empty."""

    after_sequence: int
    customer_key: str
    feature_key: str
    threshold_id: str
    kind: str = ""


def insert_threshold(tx: Tx, rule: Threshold, customer_id: int | None, feature_id: int | None) -> None:
    """Add a rule."""
    tx.conn.execute(
        sa.insert(thresholds).values(
            tenant_id=tx.tenant_id,
            threshold_id=rule.threshold_id,
            customer_id=customer_id,
            feature_id=feature_id,
            kind=rule.kind.value,
            amount=None if rule.amount is None else from_scaled(rule.amount),
            percent=None if rule.percent is None else from_scaled(rule.percent),
            create_time=rule.create_time,
        )
    )


def count_thresholds(tx: Tx) -> int:
    """Count the tenant's rules."""
    query = sa.select(sa.func.count()).select_from(thresholds).where(thresholds.c.tenant_id == tx.tenant_id)
    return int(tx.conn.execute(query).scalar_one())


def get_threshold(tx: Tx, threshold_id: str) -> Threshold | None:
    """Read a rule."""
    mine = (thresholds.c.tenant_id == tx.tenant_id, thresholds.c.threshold_id == threshold_id)
    row = tx.conn.execute(_rules().where(*mine)).one_or_none()
    return None if row is None else _rule(row)


def page_thresholds(tx: Tx, after_id: str, limit: int) -> list[Threshold]:
    """Read rules by id, which is by creation; those after `after_id`."""
    query = _rules().where(thresholds.c.tenant_id == tx.tenant_id, thresholds.c.threshold_id > after_id)
    return [_rule(row) for row in tx.conn.execute(query.order_by(thresholds.c.threshold_id).limit(limit))]


def delete_threshold(tx: Tx, threshold_id: str) -> bool:
    """Forget a rule; False if there is none."""
    mine = (thresholds.c.tenant_id == tx.tenant_id, thresholds.c.threshold_id == threshold_id)
    return tx.conn.execute(sa.delete(thresholds).where(*mine)).rowcount > 0


def all_thresholds(conn: Connection) -> dict[int, list[Threshold]]:
    """Read every rule by tenant (engine role)."""
    found: dict[int, list[Threshold]] = {}
    for row in conn.execute(_rules().order_by(thresholds.c.threshold_id)):
        found.setdefault(row.tenant_id, []).append(_rule(row))
    return found


def told_since(conn: Connection, minute: int) -> set[tuple[str, int, int]]:
    """Read (threshold_id, counter, period start) of what was told about periods that end after a minute."""
    table = notifications.c
    query = sa.select(table.threshold_id, table.counter, table.period_start_minute)
    return {
        (row.threshold_id, row.counter, row.period_start_minute)
        for row in conn.execute(query.where(table.period_end_minute > minute))
    }


def tell(conn: Connection, tenant_id: int, fired: Sequence[Fired], now: datetime) -> int:
    """Write what was not told yet, in order (engine role); returns how many.

    The caller's transaction holds the writer's epoch, so no other writer tells
    anything meanwhile.
    """
    following = _next_sequence(conn, tenant_id)
    names = _names(conn, tenant_id, {one.counter for one in fired})
    rows = [
        _row(one, names[one.counter], sequence, now)
        for sequence, one in enumerate(fired, start=following)
        if one.counter in names
    ]
    if not rows:
        return 0
    change = upsert(notifications).values(rows).on_conflict_do_nothing()
    return len(conn.execute(change.returning(notifications.c.sequence)).all())


def tell_top_up(tx: Tx, event: CreditEvent) -> None:
    """Write that a top-up is needed."""
    sequence = _next_sequence(tx.conn, tx.tenant_id)
    minute = minute_of(event.create_time)
    rule = Threshold(
        event.credit_event_id,
        event.customer_key,
        "",
        ThresholdKind.LOW_BALANCE,
        to_scaled(event.threshold),
        None,
        event.create_time,
    )
    money = (f"{amount:f}" for amount in (event.available, event.threshold, event.amount))
    values = {
        "tenant_id": tx.tenant_id,
        "sequence": sequence,
        # What an older version reads: a low balance, of no entitlement.
        "threshold_id": rule.threshold_id,
        "counter": 0,
        "period_start_minute": minute,
        "period_end_minute": minute,
        "threshold": _rule_json(rule),
        "entitlement_id": "",
        "customer_key": event.customer_key,
        "feature_key": "",
        "usage": 0,
        "balance": max(event.available, Decimal(0)),
        "overage": 0,
        "create_time": event.create_time,
        "top_up": TopUp(event.credit_event_id, event.currency, *money)._asdict(),
    }
    tx.conn.execute(sa.insert(notifications).values(values))


def _next_sequence(conn: Connection, tenant_id: int) -> int:
    """Give the number after a tenant's last; others wait for theirs until the transaction ends."""
    conn.execute(_LOCK, {"lock": _SEQUENCE_LOCK, "tenant": tenant_id})
    last = sa.select(sa.func.max(notifications.c.sequence)).where(notifications.c.tenant_id == tenant_id)
    return (conn.execute(last).scalar_one_or_none() or 0) + 1


def _rule_json(rule: Threshold) -> dict[str, str | None]:
    return {
        "customer_key": rule.customer_key,
        "feature_key": rule.feature_key,
        "kind": rule.kind.value,
        "amount": None if rule.amount is None else str(rule.amount),
        "percent": None if rule.percent is None else str(rule.percent),
        "create_time": rule.create_time.isoformat(),
    }


def _row(one: Fired, names: tuple[str, str, str], sequence: int, now: datetime) -> dict[str, Any]:
    rule, standing = one.rule, one.standing
    return {
        "tenant_id": one.tenant_id,
        "sequence": sequence,
        "threshold_id": rule.threshold_id,
        "counter": one.counter,
        "period_start_minute": standing.start_minute,
        "period_end_minute": standing.end_minute,
        "threshold": _rule_json(rule),
        "entitlement_id": names[0],
        "customer_key": names[1],
        "feature_key": names[2],
        "usage": from_scaled(standing.usage),
        "balance": from_scaled(max(standing.left, 0)),
        "overage": from_scaled(max(-standing.left, 0)),
        "create_time": now,
    }


def _names(conn: Connection, tenant_id: int, counters: set[int]) -> dict[int, tuple[str, str, str]]:
    mine = entitlements.c
    query = (
        sa.select(mine.counter, mine.entitlement_id, customers.c.customer_key, features.c.feature_key)
        .join(
            customers,
            (customers.c.tenant_id == mine.tenant_id) & (customers.c.customer_id == mine.customer_id),
        )
        .join(features, (features.c.tenant_id == mine.tenant_id) & (features.c.feature_id == mine.feature_id))
        .where(mine.tenant_id == tenant_id, mine.counter.in_(counters))
    )
    return {
        row.counter: (row.entitlement_id, row.customer_key, row.feature_key) for row in conn.execute(query)
    }


def page(tx: Tx, wanted: Wanted, limit: int) -> list[Told]:
    """Read notifications by sequence."""
    table = notifications.c
    query = sa.select(notifications).where(
        table.tenant_id == tx.tenant_id, table.sequence > wanted.after_sequence
    )
    for column, value in (
        (table.customer_key, wanted.customer_key),
        (table.feature_key, wanted.feature_key),
        (table.threshold_id, wanted.threshold_id),
    ):
        if value:
            query = query.where(column == value)
    if wanted.kind == TOP_UP_NEEDED:
        query = query.where(table.top_up.is_not(None))
    elif wanted.kind:
        query = query.where(table.top_up.is_(None), table.threshold["kind"].astext == wanted.kind)
    return [_told(row) for row in tx.conn.execute(query.order_by(table.sequence).limit(limit))]


def _told(row: sa.Row[Any]) -> Told:
    said = row.threshold
    rule = Threshold(
        row.threshold_id,
        said["customer_key"],
        said["feature_key"],
        ThresholdKind(said["kind"]),
        None if said["amount"] is None else int(said["amount"]),
        None if said["percent"] is None else int(said["percent"]),
        datetime.fromisoformat(said["create_time"]),
    )
    return Told(
        row.sequence,
        rule,
        row.entitlement_id,
        row.customer_key,
        row.feature_key,
        row.period_start_minute,
        row.period_end_minute,
        to_scaled(row.usage),
        to_scaled(row.balance),
        to_scaled(row.overage),
        row.create_time,
        None if row.top_up is None else TopUp(**row.top_up),
    )


def _rules() -> sa.Select[Any]:
    mine = thresholds.c
    return (
        sa.select(thresholds, customers.c.customer_key, features.c.feature_key)
        .outerjoin(
            customers,
            (customers.c.tenant_id == mine.tenant_id) & (customers.c.customer_id == mine.customer_id),
        )
        .outerjoin(
            features, (features.c.tenant_id == mine.tenant_id) & (features.c.feature_id == mine.feature_id)
        )
    )


def _rule(row: sa.Row[Any]) -> Threshold:
    return Threshold(
        row.threshold_id,
        row.customer_key or "",
        row.feature_key or "",
        ThresholdKind(row.kind),
        None if row.amount is None else to_scaled(row.amount),
        None if row.percent is None else to_scaled(row.percent),
        row.create_time,
    )
