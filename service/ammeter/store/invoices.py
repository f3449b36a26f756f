"""Invoices and their lines; store/invoice_writing.py writes them."""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from ammeter.domain.invoice import OPENING, Invoice, InvoiceLine, State, unpriced_in
from ammeter.errors import NotFoundError
from ammeter.store import credit_ledger
from ammeter.store.billing_tables import credit_notes, invoice_lines, invoices
from ammeter.store.db import Tx
from ammeter.store.invoice_rows import LINE_FIELDS, OWN_FIELDS, to_invoice, to_line
from ammeter.store.many import one_of
from ammeter.store.tables import customers, plans, subscriptions

_LINE = [invoice_lines.c[name] for name in LINE_FIELDS]


def lock_subscription(tx: Tx, subscription_id: str) -> bool:
    """As `lock_subscriptions`; returns whether there is such a one."""
    return bool(lock_subscriptions(tx, [subscription_id]))


def lock_subscriptions(tx: Tx, subscription_ids: Collection[str]) -> frozenset[str]:
    """Make others wait who change subscriptions or their invoices, until this transaction ends.

    Returns those that there are. The customers' rows, which invoices refer to,
    are held first: whoever changes a subscription takes customer and
    subscription in that order, too. Each in the order of their ids, so that
    nobody waits in a ring.
    """
    mine = sa.and_(
        subscriptions.c.tenant_id == tx.tenant_id, one_of(subscriptions.c.subscription_id, subscription_ids)
    )
    owners = sa.select(subscriptions.c.customer_id).where(mine)
    held = (
        sa.select(customers.c.customer_id)
        .where(customers.c.tenant_id == tx.tenant_id, customers.c.customer_id.in_(owners))
        .order_by(customers.c.customer_id)
    )
    tx.conn.execute(held.with_for_update(read=True, key_share=True))
    query = sa.select(subscriptions.c.subscription_id).where(mine).order_by(subscriptions.c.subscription_id)
    return frozenset(tx.conn.execute(query.with_for_update(key_share=True)).scalars())


def count_subscriptions(tx: Tx, customer_id: int | None) -> int:
    """Count the subscriptions that a run looks at: of one customer, or of all."""
    query = (
        sa.select(sa.func.count()).select_from(subscriptions).where(subscriptions.c.tenant_id == tx.tenant_id)
    )
    if customer_id is not None:
        query = query.where(subscriptions.c.customer_id == customer_id)
    return tx.conn.execute(query).scalar_one()


def drafters(tx: Tx, customer_id: int | None) -> list[int]:
    """Find the customers that have drafts: this one, or any."""
    query = (
        sa.select(invoices.c.customer_id)
        .distinct()
        .where(invoices.c.tenant_id == tx.tenant_id, invoices.c.state == State.DRAFT.value)
    )
    if customer_id is not None:
        query = query.where(invoices.c.customer_id == customer_id)
    return sorted(tx.conn.execute(query).scalars())


def schedule(tx: Tx, customer_id: int, grace: timedelta | None) -> None:
    """Set when a customer's drafts are issued by themselves: `grace` after they could be made, or never."""
    made = invoices.c.create_time
    time = None
    if grace is not None:
        due = (
            (invoices.c.ordinal <= OPENING, made),
            (invoices.c.ordinal == 0, invoices.c.period_end_time + grace),
        )
        time = sa.case(*due, else_=made + grace)
    change = (
        sa.update(invoices)
        .where(
            invoices.c.tenant_id == tx.tenant_id,
            invoices.c.customer_id == customer_id,
            invoices.c.state == State.DRAFT.value,
        )
        .values(automatic_issue_time=time)
    )
    tx.conn.execute(change)


def due_drafts(
    tx: Tx, now: datetime, after: tuple[datetime, str] | None, limit: int
) -> list[tuple[datetime, str]]:
    """Find drafts to be issued by themselves by now, as (automatic_issue_time, invoice_id) in that order."""
    key = (invoices.c.automatic_issue_time, invoices.c.invoice_id)
    query = sa.select(*key).where(
        invoices.c.tenant_id == tx.tenant_id,
        invoices.c.state == State.DRAFT.value,
        invoices.c.automatic_issue_time <= now,
    )
    if after is not None:
        query = query.where(sa.tuple_(*key) > sa.tuple_(*map(sa.literal, after)))
    return [(row[0], row[1]) for row in tx.conn.execute(query.order_by(*key).limit(limit))]


def get_invoice(tx: Tx, invoice_id: str) -> Invoice:
    """Read an invoice with its lines; raises NotFoundError."""
    found = {} if "\0" in invoice_id else get_invoices(tx, [invoice_id])
    if not found:
        raise NotFoundError("invoice", invoice_id)
    return found[invoice_id]


def get_invoices(tx: Tx, invoice_ids: Collection[str]) -> dict[str, Invoice]:
    """Read those of the invoices that there are, with their lines, by id."""
    rows = tx.conn.execute(_select(tx).where(one_of(invoices.c.invoice_id, invoice_ids))).mappings().all()
    lines: dict[str, list[InvoiceLine]] = {row["invoice_id"]: [] for row in rows}
    query = (
        sa.select(invoice_lines.c.invoice_id, *_LINE)
        .where(invoice_lines.c.tenant_id == tx.tenant_id, one_of(invoice_lines.c.invoice_id, lines))
        .order_by(invoice_lines.c.invoice_id, invoice_lines.c.ordinal)
    )
    for line in tx.conn.execute(query).mappings() if lines else ():
        values = dict(line)
        lines[values.pop("invoice_id")].append(to_line(values))
    prepaid = credit_ledger.applied(tx, [row["invoice_id"] for row in rows if row["prepaid_total"]])
    return {
        (key := row["invoice_id"]): to_invoice(row)._replace(
            lines=tuple(lines[key]),
            prepaid=prepaid.get(key, ()),
            unpriced_models=unpriced_in(lines[key]),
        )
        for row in rows
    }


def owners(tx: Tx, invoice_ids: Collection[str]) -> dict[str, str]:
    """Read the subscriptions of invoices, by id."""
    query = sa.select(invoices.c.invoice_id, invoices.c.subscription_id).where(
        invoices.c.tenant_id == tx.tenant_id, one_of(invoices.c.invoice_id, invoice_ids)
    )
    return {row.invoice_id: row.subscription_id for row in tx.conn.execute(query)}


def list_invoices(
    tx: Tx, customer_id: int | None, state: State | None, after_id: str, limit: int
) -> Sequence[Invoice]:
    """Read invoices without lines, newest first, later periods first; those after `after_id`, if given.

    Raises NotFoundError when there is no invoice `after_id`.
    """
    query = _select(tx)
    key = (invoices.c.create_time, invoices.c.period_end_time, invoices.c.invoice_id)
    if customer_id is not None:
        query = query.where(invoices.c.customer_id == customer_id)
    if state is not None:
        query = query.where(invoices.c.state == state.value)
    if after_id:
        mine = sa.and_(invoices.c.tenant_id == tx.tenant_id, invoices.c.invoice_id == after_id)
        last = None if "\0" in after_id else tx.conn.execute(sa.select(*key).where(mine)).one_or_none()
        if last is None:
            raise NotFoundError("invoice", after_id)
        query = query.where(sa.tuple_(*key) < sa.tuple_(*last))
    query = query.order_by(*(column.desc() for column in key)).limit(limit)
    found = [to_invoice(row) for row in tx.conn.execute(query).mappings()]
    unpriced = unpriced_drafts(tx, [one.invoice_id for one in found if one.state is State.DRAFT])
    return [one._replace(unpriced_models=unpriced.get(one.invoice_id, ())) for one in found]


def unpriced_drafts(tx: Tx, invoice_ids: Collection[str]) -> dict[str, tuple[str, ...]]:
    """Find those of the invoices that have models without a price, and these."""
    if not invoice_ids:
        return {}
    query = sa.select(invoice_lines).where(
        invoice_lines.c.tenant_id == tx.tenant_id,
        one_of(invoice_lines.c.invoice_id, invoice_ids),
        sa.func.cardinality(invoice_lines.c.unpriced_models) > 0,
    )
    lines: dict[str, list[InvoiceLine]] = {}
    for row in tx.conn.execute(query.with_only_columns(invoice_lines.c.invoice_id, *_LINE)).mappings():
        values = dict(row)
        lines.setdefault(values.pop("invoice_id"), []).append(to_line(values))
    return {key: unpriced_in(mine) for key, mine in lines.items()}


def waiting_for_prices(tx: Tx, subscription_ids: Collection[str]) -> list[str]:
    """Find the drafts of subscriptions that have models without a price, in order of periods."""
    unpriced = sa.exists().where(
        invoice_lines.c.tenant_id == tx.tenant_id,
        invoice_lines.c.invoice_id == invoices.c.invoice_id,
        sa.func.cardinality(invoice_lines.c.unpriced_models) > 0,
    )
    query = (
        sa.select(invoices.c.invoice_id)
        .where(
            invoices.c.tenant_id == tx.tenant_id,
            one_of(invoices.c.subscription_id, subscription_ids),
            invoices.c.state == State.DRAFT.value,
            unpriced,
        )
        .order_by(invoices.c.subscription_id, invoices.c.period_index, invoices.c.ordinal)
    )
    return list(tx.conn.execute(query).scalars())


def _select(tx: Tx) -> sa.Select[Any]:
    return (
        sa.select(
            *(invoices.c[name] for name in (*OWN_FIELDS, "taxes", "terms")),
            customers.c.customer_key,
            plans.c.plan_key,
            plans.c.version.label("plan_version"),
            _credited(credit_notes.c.subtotal).label("credited_subtotal"),
            _credited(credit_notes.c.total).label("credited_total"),
        )
        .join(
            customers,
            sa.and_(
                customers.c.tenant_id == invoices.c.tenant_id,
                customers.c.customer_id == invoices.c.customer_id,
            ),
        )
        .join(
            plans,
            sa.and_(plans.c.tenant_id == invoices.c.tenant_id, plans.c.plan_id == invoices.c.plan_id),
        )
        .where(invoices.c.tenant_id == tx.tenant_id)
    )


def _credited(column: sa.Column[Any]) -> sa.ScalarSelect[Any]:
    mine = sa.and_(
        credit_notes.c.tenant_id == invoices.c.tenant_id, credit_notes.c.invoice_id == invoices.c.invoice_id
    )
    total = sa.func.coalesce(sa.func.sum(column), 0)
    return sa.select(total).where(mine).correlate(invoices).scalar_subquery()
