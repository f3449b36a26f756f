"""Write invoices, as many at a time as there are, and give them their numbers."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert as upsert

from ammeter.domain.invoice import Invoice, InvoiceLine, Party, Terms
from ammeter.domain.pricing import Detail
from ammeter.store.billing_tables import invoice_lines, invoice_numbers, invoices
from ammeter.store.db import Tx
from ammeter.store.invoice_rows import OWN_FIELDS
from ammeter.store.many import one_of, rows_of
from ammeter.store.taxes import taxes_json

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
    rows = rows_of(invoices, _values(made, _COLUMNS))
    query = (
        upsert(invoices)
        .from_select(["tenant_id", *rows], _of_tenant(tx, rows))
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
    rows = rows_of(invoices, _values(changed, known))
    change = (
        sa.update(invoices)
        .where(invoices.c.tenant_id == tx.tenant_id, invoices.c.invoice_id == rows.pop("invoice_id"))
        .values(rows)
    )
    tx.conn.execute(change)


def _insert_lines(tx: Tx, made: Sequence[Invoice]) -> None:
    lines = [line for one in made for line in one.lines]
    if lines:
        owners = [(one.invoice_id, ordinal) for one in made for ordinal in range(len(one.lines))]
        ids, ordinals = zip(*owners, strict=True)
        rows = rows_of(invoice_lines, {"invoice_id": ids, "ordinal": ordinals, **_line_values(lines)})
        tx.conn.execute(sa.insert(invoice_lines).from_select(["tenant_id", *rows], _of_tenant(tx, rows)))


def _of_tenant(tx: Tx, rows: Mapping[str, sa.ColumnElement[Any]]) -> sa.Select[Any]:
    return sa.select(sa.literal(tx.tenant_id), *rows.values())


def _line_values(lines: Sequence[InvoiceLine]) -> dict[str, Sequence[Any]]:
    """Give what lines hold, by column."""
    values: dict[str, Sequence[Any]] = dict(zip(InvoiceLine._fields, zip(*lines, strict=True), strict=True))
    values["details"] = [[_detail(one) for one in line.details] for line in lines]
    values["price_times"] = [
        [one.price_time for one in line.details] if line.price_list_key else None for line in lines
    ]
    return values


def _detail(one: Detail) -> tuple[str | None, ...]:
    quantity = None if one.quantity is None else str(one.quantity)
    unit_price = None if one.unit_price is None else str(one.unit_price)
    return one.description, quantity, unit_price, str(one.amount)


def _values(made: Sequence[Invoice], names: Sequence[str]) -> dict[str, Sequence[Any]]:
    """Give what invoices hold, by column."""
    own = dict(zip(Invoice._fields, zip(*made, strict=True), strict=True))
    values: dict[str, Sequence[Any]] = {name: own[name] for name in names}
    for name, write in _AS_JSON.items():
        if name in values:
            values[name] = [write(one) for one in values[name]]
    return values


def _terms(terms: Terms) -> dict[str, Any]:
    return {**terms._asdict(), "customer": _party(terms.customer), "supplier": _party(terms.supplier)}


def _party(party: Party) -> dict[str, str]:
    return party._asdict()


_AS_JSON: dict[str, Callable[[Any], object]] = {"taxes": taxes_json, "terms": _terms}


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
