"""Credit notes, their lines and their numbers. Rows are added, never changed."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.engine import RowMapping

from ammeter.domain.credit_note import CreditNote, CreditNoteLine
from ammeter.errors import NotFoundError
from ammeter.store.billing_tables import credit_note_lines, credit_note_numbers, credit_notes, invoices
from ammeter.store.db import Tx
from ammeter.store.tables import customers
from ammeter.store.taxes import read_taxes, taxes_json

_OWN_FIELDS = (
    "credit_note_id",
    "number",
    "number_text",
    "invoice_id",
    "reason",
    "subtotal",
    "total",
    "create_time",
)


def credited(tx: Tx, invoice_id: str) -> dict[str, Decimal]:
    """Add up what credit notes took of an invoice's lines, by line_id."""
    query = (
        sa.select(credit_note_lines.c.line_id, sa.func.sum(credit_note_lines.c.amount).label("amount"))
        .join(
            credit_notes,
            sa.and_(
                credit_notes.c.tenant_id == credit_note_lines.c.tenant_id,
                credit_notes.c.credit_note_id == credit_note_lines.c.credit_note_id,
            ),
        )
        .where(credit_notes.c.tenant_id == tx.tenant_id, credit_notes.c.invoice_id == invoice_id)
        .group_by(credit_note_lines.c.line_id)
    )
    return {row.line_id: row.amount for row in tx.conn.execute(query)}


def next_number(tx: Tx) -> int:
    """Take the tenant's next credit note number, held until the transaction ends: numbers have no gaps."""
    query = upsert(credit_note_numbers).values(tenant_id=tx.tenant_id, last_number=1)
    query = query.on_conflict_do_update(
        index_elements=["tenant_id"], set_={"last_number": credit_note_numbers.c.last_number + 1}
    )
    number: int = tx.conn.execute(query.returning(credit_note_numbers.c.last_number)).scalar_one()
    return number


def insert(tx: Tx, note: CreditNote) -> None:
    """Add a credit note with its lines."""
    values = {name: getattr(note, name) for name in _OWN_FIELDS}
    tx.conn.execute(
        sa.insert(credit_notes).values(tenant_id=tx.tenant_id, taxes=taxes_json(note.taxes), **values)
    )
    owner = {"tenant_id": tx.tenant_id, "credit_note_id": note.credit_note_id}
    rows: list[dict[str, Any]] = [
        owner | {"ordinal": ordinal} | asdict(line) for ordinal, line in enumerate(note.lines)
    ]
    tx.conn.execute(sa.insert(credit_note_lines), rows)


def get(tx: Tx, credit_note_id: str) -> CreditNote:
    """Read a credit note with its lines; raises NotFoundError."""
    mine = _select(tx).where(credit_notes.c.credit_note_id == credit_note_id)
    row = tx.conn.execute(mine).mappings().one_or_none()
    if row is None:
        raise NotFoundError("credit note", credit_note_id)
    lines = credit_note_lines.c
    query = (
        sa.select(lines.line_id, lines.description, lines.amount)
        .where(lines.tenant_id == tx.tenant_id, lines.credit_note_id == credit_note_id)
        .order_by(lines.ordinal)
    )
    found = tuple(CreditNoteLine(*line) for line in tx.conn.execute(query))
    return replace(_note(row), lines=found)


def page(
    tx: Tx, customer_id: int | None, invoice_id: str, before: int | None, limit: int
) -> Sequence[CreditNote]:
    """Read credit notes without lines, newest first; those with numbers less than `before`, if given."""
    query = _select(tx)
    if customer_id is not None:
        query = query.where(invoices.c.customer_id == customer_id)
    if invoice_id:
        query = query.where(credit_notes.c.invoice_id == invoice_id)
    if before is not None:
        query = query.where(credit_notes.c.number < before)
    query = query.order_by(credit_notes.c.number.desc()).limit(limit)
    return [_note(row) for row in tx.conn.execute(query).mappings()]


def _select(tx: Tx) -> sa.Select[Any]:
    return (
        sa.select(
            *(credit_notes.c[name] for name in _OWN_FIELDS),
            credit_notes.c.taxes,
            invoices.c.number_text.label("invoice_number_text"),
            invoices.c.currency,
            customers.c.customer_key,
        )
        .join(
            invoices,
            sa.and_(
                invoices.c.tenant_id == credit_notes.c.tenant_id,
                invoices.c.invoice_id == credit_notes.c.invoice_id,
            ),
        )
        .join(
            customers,
            sa.and_(
                customers.c.tenant_id == invoices.c.tenant_id,
                customers.c.customer_id == invoices.c.customer_id,
            ),
        )
        .where(credit_notes.c.tenant_id == tx.tenant_id)
    )


def _note(row: RowMapping) -> CreditNote:
    return CreditNote(**{**row, "taxes": read_taxes(row["taxes"])})
