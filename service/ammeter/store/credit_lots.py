"""Lots of prepaid credits. What remains of one is written by the database, from the ledger."""

from collections.abc import Collection, Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from ammeter.domain.credit_lot import CreditLot, LotKind
from ammeter.errors import NotFoundError
from ammeter.store.credit_tables import credit_lots
from ammeter.store.db import Tx
from ammeter.store.many import one_of
from ammeter.store.tables import customers

_FIELDS = [field.name for field in fields(CreditLot) if field.name != "customer_key"]


class Expired(NamedTuple):
    """A lot that has expired with something left, which is not booked yet."""

    tenant_id: int
    credit_lot_id: str


def insert(tx: Tx, lot: CreditLot) -> None:
    """Add a lot, empty: entries fill it."""
    values = {name: getattr(lot, name) for name in _FIELDS} | {
        "remaining": 0,
        "feature_keys": list(lot.feature_keys),
    }
    tx.conn.execute(sa.insert(credit_lots).values(tenant_id=tx.tenant_id, **values))


def get(tx: Tx, credit_lot_id: str, *, lock: bool = False) -> CreditLot:
    """Read a lot; raises NotFoundError."""
    query = _select(tx).where(credit_lots.c.credit_lot_id == credit_lot_id)
    if lock:
        query = query.with_for_update(of=credit_lots)
    row = tx.conn.execute(query).mappings().one_or_none()
    if row is None:
        raise NotFoundError("credit lot", credit_lot_id)
    return _lot(row)


def named(tx: Tx, lot_ids: Sequence[str], *, lock: bool = False) -> dict[str, CreditLot]:
    """Read lots by their ids, locked in the order of these."""
    query = _select(tx).where(credit_lots.c.credit_lot_id.in_(lot_ids)).order_by(credit_lots.c.credit_lot_id)
    if lock:
        query = query.with_for_update(of=credit_lots)
    return {row["credit_lot_id"]: _lot(row) for row in tx.conn.execute(query).mappings()}


def usable(tx: Tx, customer_id: int, currency: str, now: datetime) -> list[CreditLot]:
    """Read a customer's lots that pay invoices in a currency now, by id."""
    lots = usable_of(tx, [customer_id], now).get(customer_id, [])
    return [lot for lot in lots if lot.currency == currency]


def usable_of(
    tx: Tx, customer_ids: Collection[int], now: datetime, *, lock: bool = False
) -> dict[int, list[CreditLot]]:
    """Read the lots of customers that pay invoices now, by id.

    Locked in this order, so that nobody waits in a ring.
    """
    query = (
        _select(tx)
        .where(
            one_of(credit_lots.c.customer_id, customer_ids),
            credit_lots.c.remaining > 0,
            credit_lots.c.void_time.is_(None),
            credit_lots.c.effective_time <= now,
            sa.or_(credit_lots.c.expire_time.is_(None), credit_lots.c.expire_time > now),
        )
        .order_by(credit_lots.c.credit_lot_id)
    )
    if lock:
        query = query.with_for_update(of=credit_lots)
    found: dict[int, list[CreditLot]] = {}
    for row in tx.conn.execute(query).mappings():
        found.setdefault(row["customer_id"], []).append(_lot(row))
    return found


def page(tx: Tx, customer_id: int | None, after_id: str, limit: int) -> list[CreditLot]:
    """Read lots by id, which is by creation; those after `after_id`, of one customer if given."""
    query = _select(tx).where(credit_lots.c.credit_lot_id > after_id)
    if customer_id is not None:
        query = query.where(credit_lots.c.customer_id == customer_id)
    query = query.order_by(credit_lots.c.credit_lot_id).limit(limit)
    return [_lot(row) for row in tx.conn.execute(query).mappings()]


def any_of_customer(tx: Tx, customer_id: int) -> bool:
    """Tell whether a customer has, or had, credits."""
    mine = sa.exists().where(
        credit_lots.c.tenant_id == tx.tenant_id, credit_lots.c.customer_id == customer_id
    )
    return bool(tx.conn.execute(sa.select(mine)).scalar_one())


def set_void(tx: Tx, credit_lot_id: str, now: datetime) -> None:
    """Say that a lot is void from now on."""
    change = (
        sa.update(credit_lots)
        .where(credit_lots.c.tenant_id == tx.tenant_id, credit_lots.c.credit_lot_id == credit_lot_id)
        .values(void_time=now)
    )
    tx.conn.execute(change)


def expired(conn: Connection, now: datetime, limit: int) -> list[Expired]:
    """Find lots of any tenant that have expired with something left, the earliest first."""
    query = (
        sa.select(credit_lots.c.tenant_id, credit_lots.c.credit_lot_id)
        .where(credit_lots.c.expire_time <= now, credit_lots.c.remaining > 0)
        .order_by(credit_lots.c.expire_time)
        .limit(limit)
    )
    return [Expired(*row) for row in conn.execute(query)]


def _select(tx: Tx) -> sa.Select[Any]:
    return (
        sa.select(*(credit_lots.c[name] for name in _FIELDS), customers.c.customer_key)
        .join(
            customers,
            sa.and_(
                customers.c.tenant_id == credit_lots.c.tenant_id,
                customers.c.customer_id == credit_lots.c.customer_id,
            ),
        )
        .where(credit_lots.c.tenant_id == tx.tenant_id)
    )


def _lot(row: RowMapping) -> CreditLot:
    read: dict[str, Any] = {"kind": LotKind(row["kind"]), "feature_keys": tuple(row["feature_keys"])}
    return CreditLot(**{**row, **read})
