"""Names for the numbers in answers: customers, owners of subjects, meters of revisions."""

from collections.abc import Sequence

import sqlalchemy as sa

from ammeter.store.db import Tx
from ammeter.store.tables import customer_subjects, customers, meter_revisions, meters


def customer_numbers(tx: Tx, keys: Sequence[str]) -> dict[str, int]:
    """Read the numbers of customers by key; those unknown are left out."""
    query = sa.select(customers.c.customer_key, customers.c.customer_id).where(
        customers.c.tenant_id == tx.tenant_id, customers.c.customer_key.in_(keys)
    )
    return {row.customer_key: row.customer_id for row in tx.conn.execute(query)}


def customer_keys(tx: Tx, numbers: Sequence[int]) -> dict[int, str]:
    """Read the keys of customers by number."""
    query = sa.select(customers.c.customer_id, customers.c.customer_key).where(
        customers.c.tenant_id == tx.tenant_id, customers.c.customer_id.in_(numbers)
    )
    return {row.customer_id: row.customer_key for row in tx.conn.execute(query)}


def revision_keys(tx: Tx, revision_ids: set[int]) -> dict[int, str]:
    """Name the meters of served revisions."""
    query = (
        sa.select(meter_revisions.c.revision_id, meters.c.meter_key)
        .join(
            meters,
            sa.and_(
                meters.c.tenant_id == meter_revisions.c.tenant_id,
                meters.c.meter_id == meter_revisions.c.meter_id,
            ),
        )
        .where(
            meter_revisions.c.tenant_id == tx.tenant_id,
            meter_revisions.c.revision_id.in_(revision_ids),
            meter_revisions.c.state == "active",
        )
    )
    return {row.revision_id: row.meter_key for row in tx.conn.execute(query)}


def subject_owners(tx: Tx, subjects: set[str]) -> dict[str, list[tuple[int, int, str]]]:
    """Read who owns the subjects: spans of (from_minute, to_minute, customer_key)."""
    # Events may hold NUL, Postgres' texts cannot: nobody owns such a subject.
    ownable = [subject for subject in subjects if "\0" not in subject]
    query = (
        sa.select(customer_subjects, customers.c.customer_key)
        .join(
            customers,
            sa.and_(
                customers.c.tenant_id == customer_subjects.c.tenant_id,
                customers.c.customer_id == customer_subjects.c.customer_id,
            ),
        )
        .where(customer_subjects.c.tenant_id == tx.tenant_id, customer_subjects.c.subject.in_(ownable))
    )
    owners: dict[str, list[tuple[int, int, str]]] = {}
    for row in tx.conn.execute(query):
        owners.setdefault(row.subject, []).append((row.from_minute, row.to_minute, row.customer_key))
    return owners
