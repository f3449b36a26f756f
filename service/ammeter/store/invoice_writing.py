"""Write invoices, as many at a time as there are, and give them their numbers."""

from collections.abc import Callable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert as upsert

from ammeter.domain.invoice import Invoice, InvoiceLine, Party, Terms
from ammeter.domain.pricing import Detail
from ammeter.store.billing_tables import invoice_lines, invoice_numbers, invoices
from ammeter.store.db import Tx
from ammeter.store.invoice_rows import LINE_FIELDS, OWN_FIELDS
from ammeter.store.many import one_of, rows_of
from ammeter.store.taxes import taxes_json

_LINE_COLUMNS = ["invoice_id", "ordinal", *LINE_FIELDS]
_COLUMNS = [*OWN_FIELDS, "taxes", "terms"]
# What an invoice gets when it is issued.
_AT_ISSUE = (
    "state",
    "number",
    "number_text",
    "issue_time",
    "due_time",
    "automatic_issue_time",
    "prepaid_total",
)


def insert_invoices(tx: Tx, made: Sequence[Invoice]) -> frozenset[str]:
    """Add invoices with their lines; returns the ids of those added.

    One in whose slot another stands is not.
    """
    if not made:
        return frozenset()
    rows = rows_of(invoices, _COLUMNS, [_values(one, _COLUMNS) for one in made])
    query = (
        upsert(invoices)
        .from_select(["tenant_id", *_COLUMNS], _of_tenant(tx, rows, _COLUMNS))
        .on_conflict_do_nothing(
            index_elements=["tenant_id", "subscription_id", "period_index", "ordinal"],
            index_where=sa.text("state <> 'void'"),
        )
        .returning(invoices.c.invoice_id)
    )
    added = frozenset(tx.conn.execute(query).scalars())
    _insert_lines(tx, [one for one in made if one.invoice_id in added])
    return added


def rewrite_invoices(tx: Tx, fresh: Sequence[Invoice]) -> None:
    """Put invoices and their lines in the place of what is stored under their ids."""
    if not fresh:
        return
    gone = sa.delete(invoice_lines).where(
        invoice_lines.c.tenant_id == tx.tenant_id,
        one_of(invoice_lines.c.invoice_id, [one.invoice_id for one in fresh]),
    )
    tx.conn.execute(gone)
    _insert_lines(tx, fresh)
    _update(tx, fresh, _COLUMNS)


def update_invoice(tx: Tx, invoice: Invoice) -> None:
    """Write an invoice's own fields; its lines stay."""
    _update(tx, [invoice], _COLUMNS)


def write_issue(tx: Tx, issued: Sequence[Invoice]) -> None:
    """Write what invoices got at their issue."""
    if issued:
        _update(tx, issued, _AT_ISSUE)


def _update(tx: Tx, changed: Sequence[Invoice], names: Sequence[str]) -> None:
    known = ["invoice_id", *(name for name in names if name != "invoice_id")]
    rows = rows_of(invoices, known, [_values(one, known) for one in changed])
    change = (
        sa.update(invoices)
        .where(invoices.c.tenant_id == tx.tenant_id, invoices.c.invoice_id == rows.c.invoice_id)
        .values({name: rows.c[name] for name in known if name != "invoice_id"})
    )
    tx.conn.execute(change)


def _insert_lines(tx: Tx, made: Sequence[Invoice]) -> None:
    lines = [_line(one, place, line) for one in made for place, line in enumerate(one.lines)]
    if lines:
        rows = rows_of(invoice_lines, _LINE_COLUMNS, lines)
        query = sa.insert(invoice_lines).from_select(
            ["tenant_id", *_LINE_COLUMNS], _of_tenant(tx, rows, _LINE_COLUMNS)
        )
        tx.conn.execute(query)


def _of_tenant(tx: Tx, rows: sa.TableValuedAlias, names: Sequence[str]) -> sa.Select[Any]:
    return sa.select(sa.literal(tx.tenant_id), *(rows.c[name] for name in names))


def _line(invoice: Invoice, place: int, line: InvoiceLine) -> dict[str, Any]:
    return {
        **line._asdict(),
        "invoice_id": invoice.invoice_id,
        "ordinal": place,
        "quantity": str(line.quantity),
        "unit_price": None if line.unit_price is None else str(line.unit_price),
        "amount": str(line.amount),
        "total_quantity": str(line.total_quantity),
        "billed_amount": str(line.billed_amount),
        "period_start_time": line.period_start_time.isoformat(),
        "period_end_time": line.period_end_time.isoformat(),
        "details": [_detail(one) for one in line.details],
        "price_times": _price_times(line) if line.price_list_key else None,
    }


def _price_times(line: InvoiceLine) -> list[str | None]:
    times = (one.price_time for one in line.details)
    return [None if time is None else time.isoformat() for time in times]


def _detail(one: Detail) -> tuple[str | None, ...]:
    quantity = None if one.quantity is None else str(one.quantity)
    unit_price = None if one.unit_price is None else str(one.unit_price)
    return one.description, quantity, unit_price, str(one.amount)


def _values(invoice: Invoice, names: Sequence[str]) -> dict[str, Any]:
    own = [(name, getattr(invoice, name)) for name in names]
    return {name: _WRITTEN.get(type(value), _as_it_is)(value) for name, value in own}


def _as_it_is(value: object) -> object:
    return value


def _terms(terms: Terms) -> dict[str, Any]:
    return {**terms._asdict(), "customer": _party(terms.customer), "supplier": _party(terms.supplier)}


def _party(party: Party) -> dict[str, str]:
    return party._asdict()


# How a value is written as JSON, by its type; what is not here is as it is.
_WRITTEN: dict[type, Callable[[Any], object]] = {
    datetime: datetime.isoformat,
    Decimal: str,
    Terms: _terms,
    tuple: taxes_json,
}


def take_numbers(tx: Tx, count: int) -> range:
    """Take the tenant's next invoice numbers.

    The row stays locked until the transaction ends, so that numbers are taken
    only by a transaction that commits: they have no gaps. Take them last.
    """
    query = upsert(invoice_numbers).values(tenant_id=tx.tenant_id, last_number=count)
    query = query.on_conflict_do_update(
        index_elements=["tenant_id"], set_={"last_number": invoice_numbers.c.last_number + count}
    )
    last: int = tx.conn.execute(query.returning(invoice_numbers.c.last_number)).scalar_one()
    return range(last - count + 1, last + 1)
