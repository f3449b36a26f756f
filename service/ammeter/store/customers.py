"""Customers and the spans of their subjects."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ammeter.domain.customer import Customer, CustomerDraft, Span
from ammeter.store.db import Tx
from ammeter.store.many import one_of
from ammeter.store.tables import customer_subjects, customers

_LOCK_SUBJECT = sa.text("SELECT pg_advisory_xact_lock(hashtextextended(:subject, :tenant))")
# Keeps subjects' locks apart from other locks of the same tenant.
_SUBJECT_LOCKS = 1 << 32


def insert(tx: Tx, draft: CustomerDraft, now: datetime) -> Customer | None:
    """Add a customer without subjects; None if the key is taken."""
    change = (
        sa.dialects.postgresql.insert(customers)
        .values(
            tenant_id=tx.tenant_id,
            customer_key=draft.customer_key,
            name=draft.name,
            email=draft.email,
            currency=draft.currency,
            time_zone=draft.time_zone,
            version=1,
            create_time=now,
            update_time=now,
            subjects_time=now,
        )
        .on_conflict_do_nothing()
        .returning(customers)
    )
    row = tx.conn.execute(change).one_or_none()
    return None if row is None else _customer(row)


def get(tx: Tx, customer_key: str, *, lock: bool = False) -> Customer | None:
    """Read a customer with its subjects; `lock` holds it until the transaction ends."""
    query = _mine(tx).where(customers.c.customer_key == customer_key)
    return _one(tx, query.with_for_update() if lock else query)


def get_by_id(tx: Tx, customer_id: int, *, lock: bool = False) -> Customer | None:
    """As get, by our own number."""
    query = _mine(tx).where(customers.c.customer_id == customer_id)
    return _one(tx, query.with_for_update() if lock else query)


def by_ids(tx: Tx, customer_ids: Collection[int]) -> dict[int, Customer]:
    """Read customers by our own numbers, without their subjects."""
    query = _mine(tx).where(one_of(customers.c.customer_id, customer_ids))
    return {row.customer_id: _customer(row) for row in tx.conn.execute(query)}


def subjects_times(tx: Tx, customer_ids: Collection[int]) -> dict[int, datetime]:
    """Read when customers' subjects changed last."""
    query = sa.select(customers.c.customer_id, customers.c.subjects_time).where(
        customers.c.tenant_id == tx.tenant_id, one_of(customers.c.customer_id, customer_ids)
    )
    return {row.customer_id: row.subjects_time for row in tx.conn.execute(query)}


def page(tx: Tx, after_key: str, limit: int) -> list[Customer]:
    """Read customers by key, those after `after_key`."""
    query = _mine(tx).where(customers.c.customer_key > after_key)
    rows = tx.conn.execute(query.order_by(customers.c.customer_key).limit(limit)).all()
    spans = spans_of_customers(tx.conn, tx.tenant_id, [row.customer_id for row in rows])
    return [_customer(row, spans.get(row.customer_id, ())) for row in rows]


def update(tx: Tx, customer_id: int, values: Mapping[str, Any], now: datetime) -> None:
    """Change columns of a customer and count its version up."""
    change = (
        sa.update(customers)
        .where(customers.c.tenant_id == tx.tenant_id, customers.c.customer_id == customer_id)
        .values(**values, version=customers.c.version + 1, update_time=now)
    )
    tx.conn.execute(change)


def lock_subjects(tx: Tx, subjects: Iterable[str]) -> None:
    """Hold off every other change of who owns these subjects until the transaction ends."""
    for subject in sorted(subjects):
        tx.conn.execute(_LOCK_SUBJECT, {"subject": subject, "tenant": _SUBJECT_LOCKS + tx.tenant_id})


def spans_of_subjects(
    conn: Connection, tenant_id: int, subjects: Iterable[str]
) -> dict[str, tuple[Span, ...]]:
    """Read all spans of subjects, in order; a subject without any is left out."""
    query = sa.select(customer_subjects).where(
        customer_subjects.c.tenant_id == tenant_id, customer_subjects.c.subject.in_(list(subjects))
    )
    by_subject: dict[str, list[Span]] = {}
    for row in conn.execute(query.order_by(customer_subjects.c.from_minute)):
        by_subject.setdefault(row.subject, []).append(_span(row))
    return {subject: tuple(spans) for subject, spans in by_subject.items()}


def spans_of_customers(
    conn: Connection, tenant_id: int, customer_ids: Sequence[int]
) -> dict[int, tuple[Span, ...]]:
    """Read all spans that customers own or owned, by subject and time."""
    query = sa.select(customer_subjects).where(
        customer_subjects.c.tenant_id == tenant_id, customer_subjects.c.customer_id.in_(customer_ids)
    )
    by_customer: dict[int, list[Span]] = {}
    for row in conn.execute(query.order_by(customer_subjects.c.subject, customer_subjects.c.from_minute)):
        by_customer.setdefault(row.customer_id, []).append(_span(row))
    return {customer_id: tuple(spans) for customer_id, spans in by_customer.items()}


def replace_spans(tx: Tx, subject: str, spans: Sequence[Span], now: datetime) -> None:
    """Write the spans of a subject anew; the caller holds its lock.

    Notes the time with every customer whose share of it changed.
    """
    before = spans_of_subjects(tx.conn, tx.tenant_id, [subject]).get(subject, ())
    mine = (customer_subjects.c.tenant_id == tx.tenant_id, customer_subjects.c.subject == subject)
    tx.conn.execute(sa.delete(customer_subjects).where(*mine))
    insert_spans(tx, spans)
    changed = {span.customer_id for span in {*before} ^ {*spans}}
    change = (
        sa.update(customers)
        .where(customers.c.tenant_id == tx.tenant_id, customers.c.customer_id.in_(sorted(changed)))
        .values(subjects_time=now, update_time=now, version=customers.c.version + 1)
    )
    tx.conn.execute(change)


def insert_spans(tx: Tx, spans: Sequence[Span]) -> None:
    """Add spans."""
    if spans:
        tx.conn.execute(
            sa.insert(customer_subjects), [{"tenant_id": tx.tenant_id, **span._asdict()} for span in spans]
        )


def keys_of(tx: Tx, customer_ids: Iterable[int]) -> dict[int, str]:
    """Read customers' keys."""
    query = sa.select(customers.c.customer_id, customers.c.customer_key).where(
        customers.c.tenant_id == tx.tenant_id, customers.c.customer_id.in_(list(customer_ids))
    )
    return {row.customer_id: row.customer_key for row in tx.conn.execute(query)}


def _mine(tx: Tx) -> sa.Select[Any]:
    return sa.select(customers).where(customers.c.tenant_id == tx.tenant_id)


def _one(tx: Tx, query: sa.Select[Any]) -> Customer | None:
    row = tx.conn.execute(query).one_or_none()
    if row is None:
        return None
    return _customer(
        row, spans_of_customers(tx.conn, tx.tenant_id, [row.customer_id]).get(row.customer_id, ())
    )


def _customer(row: sa.Row[Any], spans: tuple[Span, ...] = ()) -> Customer:
    return Customer(
        row.customer_id,
        row.customer_key,
        row.name,
        row.email,
        row.currency,
        row.time_zone,
        row.version,
        row.create_time,
        row.update_time,
        row.subjects_time,
        spans,
    )


def _span(row: sa.Row[Any]) -> Span:
    return Span(row.subject, row.from_minute, row.to_minute, row.customer_id)
