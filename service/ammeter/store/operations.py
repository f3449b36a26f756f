"""Operations and their progress."""

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from ammeter.domain.operation import Operation, OperationKind, OperationState
from ammeter.errors import NotFoundError
from ammeter.store.billing_tables import operations
from ammeter.store.db import Tx

_FORGOTTEN = "one is forgotten some time after its end (AMMETER_OPERATION_DAYS), and what it made stays"
_LOCK = sa.text("SELECT pg_advisory_xact_lock(:lock)")
# Keeps the operations' lock apart from other locks of the same tenant.
_OPERATION_LOCKS = 3 << 32
_OPEN = operations.c.end_time.is_(None)


def insert(tx: Tx, operation: Operation) -> None:
    """Add an operation."""
    values = operation._asdict()
    tx.conn.execute(sa.insert(operations).values(tenant_id=tx.tenant_id, **values))


def get(tx: Tx, operation_id: str, *, lock: bool = False) -> Operation:
    """Read an operation; raises NotFoundError."""
    query = _select(tx).where(operations.c.operation_id == operation_id)
    row = tx.conn.execute(query.with_for_update() if lock else query).mappings().one_or_none()
    if row is None:
        raise NotFoundError("operation", operation_id, _FORGOTTEN)
    return _operation(row)


def update(tx: Tx, operation: Operation) -> None:
    """Write an operation's fields."""
    change = (
        sa.update(operations)
        .where(operations.c.tenant_id == tx.tenant_id, operations.c.operation_id == operation.operation_id)
        .values(operation._asdict())
    )
    tx.conn.execute(change)


def next_open(tx: Tx) -> Operation | None:
    """Read and lock the tenant's operation that runs, else the one that waits for longest.

    Two who ask at the same time do so one after the other: the second sees
    what the first has made run.
    """
    tx.conn.execute(_LOCK, {"lock": _OPERATION_LOCKS + tx.tenant_id})
    query = (
        _select(tx)
        .where(_OPEN)
        .order_by(operations.c.state != OperationState.RUNNING.value, operations.c.operation_id)
        .limit(1)
        .with_for_update()
    )
    row = tx.conn.execute(query).mappings().one_or_none()
    return None if row is None else _operation(row)


def page(tx: Tx, state: OperationState | None, before_id: str, limit: int) -> list[Operation]:
    """Read operations, newest first; those before `before_id`, if given."""
    query = _select(tx)
    if state is not None:
        query = query.where(operations.c.state == state.value)
    if before_id:
        query = query.where(operations.c.operation_id < before_id)
    query = query.order_by(operations.c.operation_id.desc()).limit(limit)
    return [_operation(row) for row in tx.conn.execute(query).mappings()]


def tenants_with_work(conn: Connection) -> list[int]:
    """Find the tenants of which an operation runs or waits."""
    query = sa.select(operations.c.tenant_id).where(_OPEN).distinct()
    return sorted(conn.execute(query).scalars())


def expire(conn: Connection, before: datetime) -> int:
    """Forget operations that ended before (engine role); returns how many. One that waits or runs stays."""
    return conn.execute(sa.delete(operations).where(operations.c.end_time < before)).rowcount


def _select(tx: Tx) -> sa.Select[Any]:
    return sa.select(*(operations.c[name] for name in Operation._fields)).where(
        operations.c.tenant_id == tx.tenant_id
    )


def _operation(row: RowMapping) -> Operation:
    read: dict[str, Any] = {"kind": OperationKind(row["kind"]), "state": OperationState(row["state"])}
    return Operation(**{**row, **read})
