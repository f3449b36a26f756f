"""Operations: work that outlives the call that asked for it."""

from datetime import datetime
from enum import StrEnum
from typing import NamedTuple


class OperationKind(StrEnum):
    """What an operation does."""

    GENERATE_INVOICES = "generate_invoices"


class OperationState(StrEnum):
    """What an operation is."""

    WAITING = "waiting"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


ENDED = frozenset({OperationState.SUCCEEDED, OperationState.FAILED, OperationState.CANCELLED})


class Operation(NamedTuple):
    """A piece of work and how far it is; `cursor` is the last subscription that it is done with."""

    operation_id: str
    kind: OperationKind
    customer_key: str
    issue: bool
    create_time: datetime
    update_time: datetime
    state: OperationState = OperationState.WAITING
    cursor: str = ""
    done_count: int = 0
    total_count: int = 0
    invoice_count: int = 0
    failed_count: int = 0
    error_reason: str = ""
    error_message: str = ""
    end_time: datetime | None = None
    cancel_time: datetime | None = None


def cancel(operation: Operation, now: datetime) -> Operation:
    """Ask for its end: one that waits ends at once, one that has ended stays as it is."""
    if operation.state in ENDED or operation.cancel_time is not None:
        return operation
    asked = operation._replace(cancel_time=now, update_time=now)
    if operation.state is OperationState.WAITING:
        return end(asked, now)
    return asked


def end(operation: Operation, now: datetime) -> Operation:
    """End an operation: cancelled if that was asked for, failed where there was an error."""
    if operation.cancel_time is not None:
        state = OperationState.CANCELLED
    else:
        state = OperationState.FAILED if operation.failed_count else OperationState.SUCCEEDED
    return operation._replace(state=state, end_time=now, update_time=now)
