"""Tax rates, and taxes as they are kept with what bears them."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import datetime
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert as upsert

from ammeter.domain.tax import Tax, TaxRate
from ammeter.store.billing_tables import tax_rates
from ammeter.store.db import Tx

_FIELDS = [tax_rates.c[name] for name in TaxRate.__dataclass_fields__]


def insert(tx: Tx, rate: TaxRate) -> bool:
    """Add a rate; False if its key is taken."""
    query = upsert(tax_rates).values(tenant_id=tx.tenant_id, **asdict(rate)).on_conflict_do_nothing()
    return tx.conn.execute(query.returning(tax_rates.c.tax_rate_key)).one_or_none() is not None


def get(tx: Tx, tax_rate_key: str, *, lock: bool = False) -> TaxRate | None:
    """Read a rate; `lock` holds it until the transaction ends."""
    query = _mine(tx).where(tax_rates.c.tax_rate_key == tax_rate_key)
    row = tx.conn.execute(query.with_for_update() if lock else query).mappings().one_or_none()
    return None if row is None else TaxRate(**row)


def named(tx: Tx, names: Sequence[str], *, lock: bool = False) -> dict[str, TaxRate]:
    """Read rates by key; `lock` keeps them as they are until the transaction ends."""
    if not names:
        return {}
    query = _mine(tx).where(tax_rates.c.tax_rate_key.in_(names)).order_by(tax_rates.c.tax_rate_key)
    rows = tx.conn.execute(query.with_for_update(read=True) if lock else query).mappings()
    return {row["tax_rate_key"]: TaxRate(**row) for row in rows}


def page(tx: Tx, after_key: str, limit: int) -> list[TaxRate]:
    """Read rates by key, those after `after_key`."""
    query = _mine(tx).where(tax_rates.c.tax_rate_key > after_key).order_by(tax_rates.c.tax_rate_key)
    return [TaxRate(**row) for row in tx.conn.execute(query.limit(limit)).mappings()]


def archive(tx: Tx, rate: TaxRate, now: datetime) -> TaxRate:
    """Mark a rate as not to be used any more."""
    mine = sa.and_(tax_rates.c.tenant_id == tx.tenant_id, tax_rates.c.tax_rate_key == rate.tax_rate_key)
    tx.conn.execute(sa.update(tax_rates).where(mine).values(archive_time=now))
    return replace(rate, archive_time=now)


def _mine(tx: Tx) -> sa.Select[Any]:
    return sa.select(*_FIELDS).where(tax_rates.c.tenant_id == tx.tenant_id)


def taxes_json(taxes: Sequence[Tax]) -> list[dict[str, Any]]:
    """Write taxes for a JSON column; decimals are text."""
    return [
        asdict(tax)
        | {
            "percentage": str(tax.percentage),
            "covered_amount": str(tax.covered_amount),
            "amount": str(tax.amount),
        }
        for tax in taxes
    ]


def read_taxes(rows: Sequence[dict[str, Any]]) -> tuple[Tax, ...]:
    """Read what taxes_json wrote."""
    return tuple(
        Tax(
            **{
                **row,
                "percentage": Decimal(row["percentage"]),
                "covered_amount": Decimal(row["covered_amount"]),
                "amount": Decimal(row["amount"]),
                "line_ids": tuple(row["line_ids"]),
            }
        )
        for row in rows
    )
