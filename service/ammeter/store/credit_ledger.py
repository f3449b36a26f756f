"""The ledger of prepaid credits. Rows are added, never changed: the database refuses."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ammeter.domain.credit_lot import Account, Entry, MoveKind, Transaction
from ammeter.domain.invoice import Prepaid
from ammeter.store.credit_tables import credit_entries, credit_lots, credit_transactions
from ammeter.store.db import Tx
from ammeter.store.many import one_of, rows_of
from ammeter.store.tables import customers

_ENTRY = ("account", "credit_lot_id", "line_id", "amount", "cost")


def post(tx: Tx, transactions: Sequence[Transaction]) -> None:
    """Add transactions, of different invoices, with their entries; lots change with them."""
    if not transactions:
        return
    values: dict[str, Sequence[Any]] = {
        "kind": [one.kind for one in transactions],
        "customer_id": [one.customer_id for one in transactions],
        "invoice_id": [one.invoice_id or None for one in transactions],
        "book_time": [one.book_time for one in transactions],
        "create_time": [one.create_time for one in transactions],
    }
    made = _insert(tx, credit_transactions, values).returning(
        credit_transactions.c.invoice_id, credit_transactions.c.transaction_id
    )
    ids = {row.invoice_id: row.transaction_id for row in tx.conn.execute(made)}
    numbered = [
        (ids[one.invoice_id or None], *each) for one in transactions for each in enumerate(one.entries)
    ]
    numbers, ordinals, entries = zip(*numbered, strict=True)
    values = {name: [getattr(entry, name) for entry in entries] for name in _ENTRY}
    tx.conn.execute(_insert(tx, credit_entries, {"transaction_id": numbers, "ordinal": ordinals, **values}))


def _insert(tx: Tx, table: sa.Table, values: Mapping[str, Sequence[Any]]) -> sa.Insert:
    rows = rows_of(table, values)
    mine = sa.select(sa.literal(tx.tenant_id), *rows.values())
    return sa.insert(table).from_select(["tenant_id", *rows], mine)


def applied(tx: Tx, invoice_ids: Sequence[str]) -> dict[str, tuple[Prepaid, ...]]:
    """Read which lots paid which lines of invoices, in that order; also of those that are void now."""
    query = (
        sa.select(
            credit_transactions.c.invoice_id,
            credit_entries.c.credit_lot_id,
            credit_entries.c.line_id,
            credit_entries.c.amount,
        )
        .join(credit_transactions, _ENTRIES_OF_TRANSACTION)
        .where(
            credit_transactions.c.tenant_id == tx.tenant_id,
            one_of(credit_transactions.c.invoice_id, invoice_ids),
            credit_transactions.c.kind == MoveKind.APPLY.value,
            credit_entries.c.account == Account.APPLIED.value,
        )
        .order_by(credit_entries.c.ordinal)
    )
    found: dict[str, tuple[Prepaid, ...]] = {}
    for invoice_id, *paid in tx.conn.execute(query) if invoice_ids else ():
        found[invoice_id] = (*found.get(invoice_id, ()), Prepaid(*paid))
    return found


_ENTRIES_OF_TRANSACTION = sa.and_(
    credit_entries.c.tenant_id == credit_transactions.c.tenant_id,
    credit_entries.c.transaction_id == credit_transactions.c.transaction_id,
)


def page(
    tx: Tx, customer_id: int | None, credit_lot_id: str, before: int | None, limit: int
) -> list[Transaction]:
    """Read transactions, newest first; those with ids less than `before`, if given."""
    query = (
        sa.select(credit_transactions, customers.c.customer_key)
        .join(
            customers,
            sa.and_(
                customers.c.tenant_id == credit_transactions.c.tenant_id,
                customers.c.customer_id == credit_transactions.c.customer_id,
            ),
        )
        .where(credit_transactions.c.tenant_id == tx.tenant_id)
    )
    if customer_id is not None:
        query = query.where(credit_transactions.c.customer_id == customer_id)
    if credit_lot_id:
        moved = sa.select(credit_entries.c.transaction_id).where(
            credit_entries.c.tenant_id == tx.tenant_id, credit_entries.c.credit_lot_id == credit_lot_id
        )
        query = query.where(credit_transactions.c.transaction_id.in_(moved))
    if before is not None:
        query = query.where(credit_transactions.c.transaction_id < before)
    query = query.order_by(credit_transactions.c.transaction_id.desc()).limit(limit)
    rows = tx.conn.execute(query).all()
    entries, currencies = _entries(tx, [row.transaction_id for row in rows])
    return [
        Transaction(
            MoveKind(row.kind),
            row.customer_id,
            row.invoice_id or "",
            row.book_time,
            row.create_time,
            tuple(entries[row.transaction_id]),
            row.transaction_id,
            row.customer_key,
            currencies[row.transaction_id],
        )
        for row in rows
    ]


def _entries(tx: Tx, ids: Sequence[int]) -> tuple[dict[int, list[Entry]], dict[int, str]]:
    query = (
        sa.select(
            credit_entries.c.transaction_id,
            *(credit_entries.c[name] for name in _ENTRY),
            credit_lots.c.currency,
        )
        .join(
            credit_lots,
            sa.and_(
                credit_lots.c.tenant_id == credit_entries.c.tenant_id,
                credit_lots.c.credit_lot_id == credit_entries.c.credit_lot_id,
            ),
        )
        .where(credit_entries.c.tenant_id == tx.tenant_id, credit_entries.c.transaction_id.in_(ids))
        .order_by(credit_entries.c.transaction_id, credit_entries.c.ordinal)
    )
    found: dict[int, list[Entry]] = defaultdict(list)
    currencies = {}
    for row in tx.conn.execute(query):
        entry = Entry(Account(row.account), row.credit_lot_id, row.line_id, row.amount, row.cost)
        found[row.transaction_id].append(entry)
        currencies[row.transaction_id] = row.currency
    return found, currencies


class LedgerFault(NamedTuple):
    """Something in a tenant's ledger that does not add up."""

    what: str


class _Check(NamedTuple):
    """Rows that must not be, and how to say what is wrong with one."""

    sql: str
    say: str


# Everything that is kept twice, compared; and what must hold of each row.
_CHECKS = (
    _Check(
        """
        SELECT t.transaction_id, coalesce(sum(e.amount), 0), coalesce(sum(e.cost), 0), count(e.amount)
        FROM credit_transactions t LEFT JOIN credit_entries e USING (tenant_id, transaction_id)
        WHERE t.tenant_id = :tenant GROUP BY t.transaction_id
        HAVING sum(e.amount) IS DISTINCT FROM 0 OR sum(e.cost) IS DISTINCT FROM 0
        """,
        "credit transaction {0} does not balance: its amounts add up to {1}, its costs to {2}",
    ),
    _Check(
        """
        SELECT l.credit_lot_id, l.remaining, coalesce(sum(e.amount), 0)
        FROM credit_lots l
        LEFT JOIN credit_entries e
          ON e.tenant_id = l.tenant_id AND e.credit_lot_id = l.credit_lot_id AND e.account = 'lot'
        WHERE l.tenant_id = :tenant GROUP BY l.tenant_id, l.credit_lot_id
        HAVING l.remaining <> coalesce(sum(e.amount), 0)
          OR coalesce(sum(e.amount), 0) NOT BETWEEN 0 AND l.amount
        """,
        "credit lot {0} says that {1} remains, its entries say {2}",
    ),
    _Check(
        """
        SELECT l.credit_lot_id, l.amount, coalesce(sum(e.amount), 0)
        FROM credit_lots l
        LEFT JOIN (
          SELECT e.* FROM credit_entries e JOIN credit_transactions t USING (tenant_id, transaction_id)
          WHERE e.account = 'lot' AND t.kind IN ('grant', 'purchase')
        ) e USING (tenant_id, credit_lot_id)
        WHERE l.tenant_id = :tenant GROUP BY l.tenant_id, l.credit_lot_id
        HAVING l.amount <> coalesce(sum(e.amount), 0) OR l.cost_basis <> coalesce(sum(e.cost), 0)
        """,
        "credit lot {0} is of {1}, the ledger filled it with {2} or at another cost",
    ),
    _Check(
        """
        SELECT i.invoice_id, i.prepaid_total, coalesce(a.amount, 0), coalesce(r.amount, 0)
        FROM invoices i
        LEFT JOIN LATERAL (
          SELECT sum(e.amount) AS amount FROM credit_transactions t
          JOIN credit_entries e USING (tenant_id, transaction_id)
          WHERE t.tenant_id = i.tenant_id AND t.invoice_id = i.invoice_id
            AND t.kind = 'apply' AND e.account = 'applied'
        ) a ON true
        LEFT JOIN LATERAL (
          SELECT -sum(e.amount) AS amount FROM credit_transactions t
          JOIN credit_entries e USING (tenant_id, transaction_id)
          WHERE t.tenant_id = i.tenant_id AND t.invoice_id = i.invoice_id
            AND t.kind = 'return' AND e.account = 'applied'
        ) r ON true
        WHERE i.tenant_id = :tenant AND (
          i.prepaid_total <> coalesce(a.amount, 0)
          OR coalesce(r.amount, 0) <> CASE WHEN i.state = 'void' THEN i.prepaid_total ELSE 0 END)
        """,
        "invoice {0} says that credits paid {1}, the ledger says {2}, of which {3} came back",
    ),
)


def faults(conn: Connection, tenant_id: int) -> Iterator[LedgerFault]:
    """Reread a tenant's ledger and compare it with lots and invoices."""
    for check in _CHECKS:
        rows: Iterable[Sequence[object]] = conn.execute(sa.text(check.sql), {"tenant": tenant_id}).all()
        for row in rows:
            values = [f"{value:f}" if isinstance(value, Decimal) else value for value in row]
            yield LedgerFault(check.say.format(*values))


def transactions(conn: Connection, tenant_id: int) -> int:
    """Count a tenant's transactions."""
    query: sa.Select[Any] = sa.select(sa.func.count()).where(credit_transactions.c.tenant_id == tenant_id)
    count: int = conn.execute(query.select_from(credit_transactions)).scalar_one()
    return count
