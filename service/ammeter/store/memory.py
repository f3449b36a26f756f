"""What memory reads of all tenants at once."""

from collections.abc import Iterator
from itertools import groupby

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ammeter.domain.catalog import FailMode, FailRule
from ammeter.store.entitlements import Held, Known, held, known_customers
from ammeter.store.tables import features


def customers_with_held(conn: Connection) -> Iterator[tuple[Known, list[Held]]]:
    """Read every customer with its entitlements (engine role): a few at a time, there may be a million."""
    groups = groupby(held(conn), key=lambda one: (one.tenant_id, one.entitlement.customer_id))
    key, group = next(groups, (None, iter(())))
    for customer in known_customers(conn):
        if key == (customer.tenant_id, customer.customer_id):
            yield customer, list(group)
            key, group = next(groups, (None, iter(())))
        else:
            yield customer, []


def fail_rules(conn: Connection, of: tuple[int, str] | None = None) -> dict[tuple[int, str], FailRule]:
    """Read the fail mode of every feature by (tenant_id, feature_key) (engine role), or of that one."""
    query = sa.select(
        features.c.tenant_id, features.c.feature_key, features.c.fail_mode, features.c.fail_allowance
    )
    if of is not None:
        query = query.where(features.c.tenant_id == of[0], features.c.feature_key == of[1])
    return {
        (row.tenant_id, row.feature_key): FailRule(FailMode(row.fail_mode), row.fail_allowance)
        for row in conn.execute(query)
    }
