"""Price lists and their entries."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert as upsert

from ammeter.domain.late import Repricing
from ammeter.domain.minute import minute_of, time_of
from ammeter.domain.price_list import Book, Entry, Layer, PriceList, book_of
from ammeter.store.billing_tables import price_list_entries, price_lists
from ammeter.store.db import Tx

_ENTRY = [price_list_entries.c[name] for name in Entry._fields]


class Version(NamedTuple):
    """Which state of a price list something was read from."""

    price_list_id: int
    version: int


def insert(tx: Tx, draft: PriceList, now: datetime) -> PriceList | None:
    """Add a price list; None if its key is taken."""
    change = (
        upsert(price_lists)
        .values(
            tenant_id=tx.tenant_id,
            price_list_key=draft.price_list_key,
            name=draft.name,
            currency=draft.currency,
            version=1,
            create_time=now,
            update_time=now,
        )
        .on_conflict_do_nothing()
        .returning(price_lists.c.price_list_id)
    )
    added = tx.conn.execute(change).scalar_one_or_none()
    return None if added is None else get(tx, draft.price_list_key)


def get(tx: Tx, price_list_key: str, *, lock: bool = False) -> PriceList | None:
    """Read a price list; `lock` holds it for a change until the transaction ends."""
    query = _lists(tx).where(price_lists.c.price_list_key == price_list_key)
    row = tx.conn.execute(query.with_for_update() if lock else query).mappings().one_or_none()
    return None if row is None else PriceList(**row)


def currencies(tx: Tx, price_list_keys: Iterable[str]) -> dict[str, str]:
    """Read the currencies of those of the price lists that exist."""
    query = sa.select(price_lists.c.price_list_key, price_lists.c.currency).where(
        price_lists.c.tenant_id == tx.tenant_id, price_lists.c.price_list_key.in_(list(price_list_keys))
    )
    return {row.price_list_key: row.currency for row in tx.conn.execute(query)}


def page(tx: Tx, after_key: str, limit: int) -> list[PriceList]:
    """Read price lists by key, those after `after_key`."""
    query = _lists(tx).where(price_lists.c.price_list_key > after_key).order_by(price_lists.c.price_list_key)
    return [PriceList(**row) for row in tx.conn.execute(query.limit(limit)).mappings()]


def _lists(tx: Tx) -> sa.Select[Any]:
    columns = [price_lists.c[name] for name in PriceList.__dataclass_fields__]
    return sa.select(*columns).where(price_lists.c.tenant_id == tx.tenant_id)


def entries(tx: Tx, price_list_id: int, layer: Layer | None = None, model: str = "") -> list[Entry]:
    """Read a list's entries, those of one layer or model only if said, by model, token type and time."""
    query = _entries(tx, price_list_id)
    if layer is not None:
        query = query.where(price_list_entries.c.layer == layer.value)
    if model:
        query = query.where(price_list_entries.c.model == model)
    return [_entry(row) for row in tx.conn.execute(query.order_by(*_ORDER))]


# By bytes, as Python compares texts.
_ORDER = [
    price_list_entries.c.model.collate("C"),
    price_list_entries.c.token_type.collate("C"),
    price_list_entries.c.effective_minute,
    price_list_entries.c.layer.collate("C"),
]


def page_entries(
    tx: Tx, price_list_id: int, model: str, after: Sequence[str | int] | None, limit: int
) -> list[Entry]:
    """As `entries`, those after (model, token type, minute, layer)."""
    query = _entries(tx, price_list_id)
    if model:
        query = query.where(price_list_entries.c.model == model)
    if after:
        query = query.where(sa.tuple_(*_ORDER) > sa.tuple_(*map(sa.literal, after)))
    return [_entry(row) for row in tx.conn.execute(query.order_by(*_ORDER).limit(limit))]


def _entries(tx: Tx, price_list_id: int) -> sa.Select[Any]:
    return sa.select(*_ENTRY).where(
        price_list_entries.c.tenant_id == tx.tenant_id, price_list_entries.c.price_list_id == price_list_id
    )


def _entry(row: sa.Row[Any]) -> Entry:
    return Entry(row.model, row.token_type, row.effective_minute, row.unit_amount, Layer(row.layer))


def count_entries(tx: Tx, price_list_id: int) -> int:
    """Count a list's entries."""
    query = sa.select(sa.func.count()).where(
        price_list_entries.c.tenant_id == tx.tenant_id, price_list_entries.c.price_list_id == price_list_id
    )
    return tx.conn.execute(query).scalar_one()


def write(tx: Tx, found: PriceList, written: Sequence[Entry], now: datetime) -> None:
    """Add entries, or put them in the place of those of their time, and count the list's version up."""
    rows = [
        {
            **entry._asdict(),
            "layer": entry.layer.value,
            "tenant_id": tx.tenant_id,
            "price_list_id": found.price_list_id,
            "write_time": now,
            "in_past": entry.effective_minute < minute_of(now),
        }
        for entry in written
    ]
    query = upsert(price_list_entries)
    keys = ["tenant_id", "price_list_id", "token_type", "model", "effective_minute", "layer"]
    fresh = {name: query.excluded[name] for name in ("unit_amount", "write_time", "in_past")}
    tx.conn.execute(query.on_conflict_do_update(index_elements=keys, set_=fresh), rows)
    change = (
        sa.update(price_lists)
        .where(price_lists.c.tenant_id == tx.tenant_id, price_lists.c.price_list_id == found.price_list_id)
        .values(version=price_lists.c.version + 1, update_time=now)
    )
    tx.conn.execute(change)


def version(tx: Tx, price_list_key: str) -> Version | None:
    """Read which state a price list is in."""
    query = sa.select(price_lists.c.price_list_id, price_lists.c.version).where(
        price_lists.c.tenant_id == tx.tenant_id, price_lists.c.price_list_key == price_list_key
    )
    row = tx.conn.execute(query).one_or_none()
    return None if row is None else Version(*row)


def book(tx: Tx, price_list_id: int, token_type: str) -> Book:
    """Read what a list says of one token type."""
    query = _entries(tx, price_list_id).where(price_list_entries.c.token_type == token_type)
    return book_of(_entry(row) for row in tx.conn.execute(query))


def repricings(tx: Tx, price_list_id: int, token_type: str, since: datetime) -> list[Repricing]:
    """Find when, since a time, prices were written whose own time had passed; the earliest of each time."""
    columns = price_list_entries.c
    query = (
        sa.select(columns.write_time, sa.func.min(columns.effective_minute))
        .where(
            columns.tenant_id == tx.tenant_id,
            columns.price_list_id == price_list_id,
            columns.token_type == token_type,
            columns.write_time >= since,
            columns.in_past,
        )
        .group_by(columns.write_time)
    )
    found = []
    for write_time, minute in tx.conn.execute(query):
        effective_time = time_of(minute)
        assert effective_time is not None  # noqa: S101 - never at the ends of time
        found.append(Repricing(write_time, effective_time))
    return found
