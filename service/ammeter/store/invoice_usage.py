"""Usage by group of an invoice's lines, frozen with it for its annex."""

from decimal import Decimal

import sqlalchemy as sa

from ammeter.domain.usage_groups import UsageGroups
from ammeter.store.billing_tables import invoice_lines, invoice_usage
from ammeter.store.db import Tx


def insert(tx: Tx, invoice_id: str, line_id: str, groups: UsageGroups) -> None:
    """Add a line's groups; the invoice must still be a draft."""
    rows = [[list(values), str(quantity)] for values, quantity in groups.rows]
    tx.conn.execute(
        sa.insert(invoice_usage).values(
            tenant_id=tx.tenant_id,
            invoice_id=invoice_id,
            line_id=line_id,
            names=list(groups.names),
            rows=rows,
            left_out_count=groups.left_out_count,
        )
    )


def of_invoice(tx: Tx, invoice_id: str) -> tuple[tuple[str, UsageGroups], ...]:
    """Read the groups of an invoice, by line_id, in the order of its lines."""
    query = (
        sa.select(invoice_usage)
        .join(
            invoice_lines,
            sa.and_(
                invoice_lines.c.tenant_id == invoice_usage.c.tenant_id,
                invoice_lines.c.invoice_id == invoice_usage.c.invoice_id,
                invoice_lines.c.line_id == invoice_usage.c.line_id,
            ),
        )
        .where(invoice_usage.c.tenant_id == tx.tenant_id, invoice_usage.c.invoice_id == invoice_id)
        .order_by(invoice_lines.c.ordinal)
    )
    return tuple(
        (
            row.line_id,
            UsageGroups(
                tuple(row.names),
                tuple((tuple(values), Decimal(quantity)) for values, quantity in row.rows),
                row.left_out_count,
            ),
        )
        for row in tx.conn.execute(query)
    )
