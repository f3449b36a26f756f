"""Other prices for single subscriptions."""

from collections.abc import Collection
from typing import Any

import sqlalchemy as sa

from ammeter.domain.price_form import Form, form_of, kind_of, read_price, read_terms
from ammeter.domain.price_override import Given, PriceOverride
from ammeter.errors import InternalError, Violation
from ammeter.store.billing_tables import price_overrides
from ammeter.store.db import Tx
from ammeter.store.many import one_of


def insert(tx: Tx, one: PriceOverride) -> None:
    """Add an override."""
    price = {"kind": kind_of(one.price), **form_of(one.price)} if one.price else sa.null()
    terms = {name: None if part is None else form_of(part) for name, part in one.given.items()}
    tx.conn.execute(
        sa.insert(price_overrides).values(
            tenant_id=tx.tenant_id,
            price_override_id=one.price_override_id,
            subscription_id=one.subscription_id,
            rate_card_key=one.rate_card_key,
            from_time=one.from_time,
            to_time=one.to_time,
            price=price,
            terms=terms,
            reason=one.reason,
            create_time=one.create_time,
        )
    )


def set_end(tx: Tx, one: PriceOverride) -> None:
    """Write an override's end."""
    mine = sa.and_(
        price_overrides.c.tenant_id == tx.tenant_id,
        price_overrides.c.price_override_id == one.price_override_id,
    )
    tx.conn.execute(sa.update(price_overrides).where(mine).values(to_time=one.to_time))


def get(tx: Tx, price_override_id: str) -> PriceOverride | None:
    """Read an override."""
    found = _read(tx, price_overrides.c.price_override_id == price_override_id)
    return found[0] if found else None


def of_subscription(
    tx: Tx, subscription_id: str, after_id: str = "", limit: int | None = None
) -> list[PriceOverride]:
    """Read a subscription's overrides by id, which is by creation; those after `after_id`."""
    mine = sa.and_(
        price_overrides.c.subscription_id == subscription_id, price_overrides.c.price_override_id > after_id
    )
    return _read(tx, mine, limit)


def of_subscriptions(tx: Tx, subscription_ids: Collection[str]) -> dict[str, tuple[PriceOverride, ...]]:
    """Read the overrides of subscriptions, each by id."""
    found: dict[str, tuple[PriceOverride, ...]] = {}
    for one in _read(tx, one_of(price_overrides.c.subscription_id, subscription_ids)):
        found[one.subscription_id] = (*found.get(one.subscription_id, ()), one)
    return found


def _read(tx: Tx, which: sa.ColumnElement[bool], limit: int | None = None) -> list[PriceOverride]:
    query = (
        sa.select(price_overrides)
        .where(price_overrides.c.tenant_id == tx.tenant_id, which)
        .order_by(price_overrides.c.price_override_id)
        .limit(limit)
    )
    return [_override(row) for row in tx.conn.execute(query)]


def _override(row: sa.Row[Any]) -> PriceOverride:
    faults: list[Violation] = []
    price = read_price(row.price["kind"], Form("price", row.price, faults)) if row.price else None
    terms = read_terms("price", {name: part for name, part in row.terms.items() if part}, faults)
    if faults:
        raise InternalError(f"price override {row.price_override_id} is stored with faults: {faults}")
    given: Given = {name: getattr(terms, name) for name in row.terms}
    return PriceOverride(
        row.price_override_id,
        row.subscription_id,
        row.rate_card_key,
        row.from_time,
        row.to_time,
        price,
        given,
        row.reason,
        row.create_time,
    )
