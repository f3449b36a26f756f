"""Invoices, their lines and their numbers."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields, replace
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.engine import RowMapping

from ammeter.domain.invoice import (
    OPENING,
    PLAN,
    Billed,
    BilledByPart,
    Invoice,
    InvoiceLine,
    Kind,
    Slot,
    State,
)
from ammeter.domain.late import Head
from ammeter.domain.period import Period
from ammeter.errors import NotFoundError
from ammeter.store import credit_ledger
from ammeter.store.billing_tables import credit_notes, invoice_lines, invoice_numbers, invoices
from ammeter.store.db import Tx
from ammeter.store.invoice_rows import to_invoice, to_line
from ammeter.store.tables import customers, plans, subscriptions
from ammeter.store.taxes import taxes_json

_LINE_FIELDS = [field.name for field in fields(InvoiceLine)]
_OWN_FIELDS = [
    "invoice_id",
    "number",
    "state",
    "customer_id",
    "subscription_id",
    "period_index",
    "ordinal",
    "currency",
    "period_start_time",
    "period_end_time",
    "total",
    "position",
    "create_time",
    "issue_time",
    "void_time",
    "number_text",
    "subtotal",
    "due_time",
    "paid_time",
    "payment_reference",
    "uncollectible_time",
    "automatic_issue_time",
    "replaces_invoice_id",
    "prepaid_total",
    "plan_id",
]
_STANDING = invoices.c.state != State.VOID.value


def lock_subscription(tx: Tx, subscription_id: str) -> bool:
    """Make others wait who change the subscription or its invoices, until this transaction ends.

    Returns whether there is such a subscription. The customer's row, which
    invoices refer to, is held first: whoever changes a subscription takes
    customer and subscription in that order, too.
    """
    mine = sa.and_(
        subscriptions.c.tenant_id == tx.tenant_id, subscriptions.c.subscription_id == subscription_id
    )
    owner = sa.select(subscriptions.c.customer_id).where(mine).scalar_subquery()
    customer = sa.select(customers.c.customer_id).where(
        customers.c.tenant_id == tx.tenant_id, customers.c.customer_id == owner
    )
    tx.conn.execute(customer.with_for_update(read=True, key_share=True))
    query = sa.select(subscriptions.c.subscription_id).where(mine).with_for_update(key_share=True)
    return tx.conn.execute(query).one_or_none() is not None


def count_subscriptions(tx: Tx, customer_id: int | None) -> int:
    """Count the subscriptions that a run looks at: of one customer, or of all."""
    query = (
        sa.select(sa.func.count()).select_from(subscriptions).where(subscriptions.c.tenant_id == tx.tenant_id)
    )
    if customer_id is not None:
        query = query.where(subscriptions.c.customer_id == customer_id)
    return tx.conn.execute(query).scalar_one()


def subjects_time(tx: Tx, customer_id: int) -> datetime:
    """Read when a customer's subjects last changed."""
    query = sa.select(customers.c.subjects_time).where(
        customers.c.tenant_id == tx.tenant_id, customers.c.customer_id == customer_id
    )
    time: datetime = tx.conn.execute(query).scalar_one()
    return time


def standing(tx: Tx, subscription_id: str) -> list[Head]:
    """Read the standing invoices of a subscription, by period and ordinal."""
    query = (
        sa.select(invoices)
        .where(invoices.c.tenant_id == tx.tenant_id, invoices.c.subscription_id == subscription_id, _STANDING)
        .order_by(invoices.c.period_index, invoices.c.ordinal)
    )
    return [_head(row) for row in tx.conn.execute(query).mappings()]


def _head(row: RowMapping) -> Head:
    start, end = row["period_start_time"], row["period_end_time"]
    # Usage is not prorated, so the length that the period was cut from does not matter here.
    period = Period(row["period_index"], start, end, int((end - start).total_seconds()))
    computed = row["issue_time"] or row["create_time"]
    return Head(row["invoice_id"], Slot(period, row["ordinal"]), State(row["state"]), computed)


def taken_back(tx: Tx, customer_id: int, subscription_id: str, redone: str) -> frozenset[int]:
    """Find the periods that late lines, slices and coupons of void invoices, or of the redone one, are of."""
    query = (
        sa.select(invoice_lines.c.period_index)
        .distinct()
        .join(invoices, _LINES_OF_INVOICE)
        .where(
            invoices.c.tenant_id == tx.tenant_id,
            invoices.c.customer_id == customer_id,
            invoices.c.subscription_id == subscription_id,
            sa.or_(~_STANDING, invoices.c.invoice_id == redone),
            invoice_lines.c.kind.in_((Kind.LATE_USAGE.value, Kind.COUPON.value, Kind.SLICE.value)),
        )
    )
    return frozenset(tx.conn.execute(query).scalars())


_LINES_OF_INVOICE = sa.and_(
    invoice_lines.c.tenant_id == invoices.c.tenant_id, invoice_lines.c.invoice_id == invoices.c.invoice_id
)


def billed(tx: Tx, subscription_id: str, periods: Iterable[int], redone: str) -> BilledByPart:
    """Add up what standing invoices, but for the one being redone, billed in these periods, before coupons.

    What is not there was not billed. A plan's minimum has the rate_card_id PLAN.
    """
    query = (
        sa.select(
            invoice_lines.c.rate_card_id,
            invoice_lines.c.period_index,
            invoice_lines.c.period_start_time,
            sa.func.sum(invoice_lines.c.quantity).label("quantity"),
            sa.func.sum(invoice_lines.c.amount).label("amount"),
        )
        .join(invoices, _LINES_OF_INVOICE)
        .where(
            invoices.c.tenant_id == tx.tenant_id,
            invoices.c.subscription_id == subscription_id,
            _STANDING,
            invoices.c.invoice_id != redone,
            invoice_lines.c.kind != Kind.COUPON.value,
            invoice_lines.c.period_index.in_(list(periods)),
        )
        .group_by(
            invoice_lines.c.rate_card_id, invoice_lines.c.period_index, invoice_lines.c.period_start_time
        )
    )
    return {
        (row.rate_card_id or PLAN, row.period_index, row.period_start_time): Billed(row.quantity, row.amount)
        for row in tx.conn.execute(query)
    }


def replaced(tx: Tx, subscription_id: str, slot: Slot) -> str:
    """Find the last void invoice with a number that stood in a slot; empty if there is none."""
    query = sa.select(invoices.c.invoice_id).where(
        invoices.c.tenant_id == tx.tenant_id,
        invoices.c.subscription_id == subscription_id,
        invoices.c.period_index == slot.period.index,
        invoices.c.ordinal == slot.ordinal,
        ~_STANDING,
        invoices.c.number.is_not(None),
    )
    return tx.conn.execute(query.order_by(invoices.c.number.desc()).limit(1)).scalar() or ""


def insert_invoice(tx: Tx, invoice: Invoice) -> bool:
    """Add an invoice with its lines; False, and nothing is added, when one stands in its slot."""
    query = (
        upsert(invoices)
        .values(tenant_id=tx.tenant_id, **_values(invoice))
        .on_conflict_do_nothing(
            index_elements=["tenant_id", "subscription_id", "period_index", "ordinal"],
            index_where=sa.text("state <> 'void'"),
        )
        .returning(invoices.c.invoice_id)
    )
    if tx.conn.execute(query).one_or_none() is None:
        return False
    _insert_lines(tx, invoice)
    return True


def rewrite_invoice(tx: Tx, invoice: Invoice) -> None:
    """Put an invoice and its lines in the place of what is stored under its id."""
    mine = sa.and_(
        invoice_lines.c.tenant_id == tx.tenant_id, invoice_lines.c.invoice_id == invoice.invoice_id
    )
    tx.conn.execute(sa.delete(invoice_lines).where(mine))
    _insert_lines(tx, invoice)
    update_invoice(tx, invoice)


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


def update_invoice(tx: Tx, invoice: Invoice) -> None:
    """Write an invoice's own fields; its lines stay."""
    change = (
        sa.update(invoices)
        .where(invoices.c.tenant_id == tx.tenant_id, invoices.c.invoice_id == invoice.invoice_id)
        .values(_values(invoice))
    )
    tx.conn.execute(change)


def _values(invoice: Invoice) -> dict[str, Any]:
    own = {name: getattr(invoice, name) for name in _OWN_FIELDS}
    return own | {"taxes": taxes_json(invoice.taxes), "terms": asdict(invoice.terms)}


def _insert_lines(tx: Tx, invoice: Invoice) -> None:
    owner = {"tenant_id": tx.tenant_id, "invoice_id": invoice.invoice_id}
    rows: list[dict[str, Any]] = [
        owner | {"ordinal": ordinal} | _row(line) for ordinal, line in enumerate(invoice.lines)
    ]
    if rows:
        tx.conn.execute(sa.insert(invoice_lines), rows)


def _row(line: InvoiceLine) -> dict[str, Any]:
    row = {name: getattr(line, name) for name in _LINE_FIELDS}
    return row | {"details": [[None if part is None else str(part) for part in one] for one in line.details]}


def next_number(tx: Tx) -> int:
    """Take the tenant's next invoice number.

    The row stays locked until the transaction ends, so that a number is taken
    only by a transaction that commits: numbers have no gaps. Take it last.
    """
    query = upsert(invoice_numbers).values(tenant_id=tx.tenant_id, last_number=1)
    query = query.on_conflict_do_update(
        index_elements=["tenant_id"], set_={"last_number": invoice_numbers.c.last_number + 1}
    )
    number: int = tx.conn.execute(query.returning(invoice_numbers.c.last_number)).scalar_one()
    return number


def get_invoice(tx: Tx, invoice_id: str) -> Invoice:
    """Read an invoice with its lines; raises NotFoundError."""
    mine = _select(tx).where(invoices.c.invoice_id == invoice_id)
    row = None if "\0" in invoice_id else tx.conn.execute(mine).mappings().one_or_none()
    if row is None:
        raise NotFoundError("invoice", invoice_id)
    query = (
        sa.select(*(invoice_lines.c[name] for name in _LINE_FIELDS))
        .where(invoice_lines.c.tenant_id == tx.tenant_id, invoice_lines.c.invoice_id == invoice_id)
        .order_by(invoice_lines.c.ordinal)
    )
    lines = tuple(to_line(line) for line in tx.conn.execute(query).mappings())
    prepaid = credit_ledger.applied(tx, invoice_id) if row["prepaid_total"] else ()
    return replace(to_invoice(row), lines=lines, prepaid=prepaid)


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
    return [to_invoice(row) for row in tx.conn.execute(query).mappings()]


def _select(tx: Tx) -> sa.Select[Any]:
    return (
        sa.select(
            *(invoices.c[name] for name in (*_OWN_FIELDS, "taxes", "terms")),
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
