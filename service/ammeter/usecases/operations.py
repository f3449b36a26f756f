"""Start, run, watch and cancel operations.

An operation is run by one thread at a time, and its progress is written as it
goes: whoever finds one that runs and is run by nobody goes on from there.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import datetime
from typing import NamedTuple, Protocol

from ammeter.domain.invoice import Invoice
from ammeter.domain.operation import Operation, OperationKind, OperationState, cancel, end
from ammeter.errors import AmmeterError, OutOfRangeError, PreconditionError
from ammeter.store import operations
from ammeter.store.db import Tx
from ammeter.usecases.bill import find_customer
from ammeter.usecases.billing import Billing
from ammeter.usecases.generate import Progress, Step, generate_invoices

# So many errors are told.
_SHOWN = 3


class Made(NamedTuple):
    """An operation as it is now, and the invoice that it made last; None once it has ended."""

    operation: Operation
    invoice: Invoice | None


class Operations(Protocol):
    """Whoever runs operations, as those see it who start and watch them."""

    def wake(self) -> None:
        """Look for work now: an operation was committed."""

    def watch(self, operation_id: str) -> AbstractContextManager[Iterator[Made]]:
        """Hear what an operation makes, to its end; begin before it is committed."""


def start_generation(
    tx: Tx, operation_id: str, customer_key: str, *, issue: bool, now: datetime
) -> Operation:
    """Have invoices generated, of one customer or (empty) of all; raises NotFoundError."""
    if customer_key:
        find_customer(tx, customer_key)
    made = Operation(
        operation_id, OperationKind.GENERATE_INVOICES, customer_key, issue, create_time=now, update_time=now
    )
    operations.insert(tx, made)
    return made


def cancel_operation(tx: Tx, operation_id: str, now: datetime) -> Operation:
    """Ask for the end of an operation; raises NotFoundError."""
    before = operations.get(tx, operation_id, lock=True)
    after = cancel(before, now)
    if after != before:
        operations.update(tx, after)
    return after


def claim(run: Billing, tenant_id: int, now: datetime) -> Operation | None:
    """Take a tenant's next operation to run, or go on with the one that runs; None if there is none."""
    with run.db.tenant(tenant_id) as tx:
        found = operations.next_open(tx)
        if found is None or found.state is OperationState.RUNNING:
            return found
        running = found._replace(state=OperationState.RUNNING, update_time=now)
        operations.update(tx, running)
        return running


def run_operation(
    run: Billing,
    tenant_id: int,
    operation: Operation,
    clock: Callable[[], datetime],
    is_stopping: Callable[[], bool] = lambda: False,
    *,
    whole: bool = True,
) -> Iterator[Made]:
    """Do an operation's work from where it is; yields each invoice, and a last one without when it has ended.

    Stopped, or without its database, it stays as it is for whoever goes on.
    Invoices that other processes made have their lines only if `whole`.
    """
    since = Progress(operation.cursor, operation.done_count, operation.total_count, operation.invoice_count)
    key = operation.customer_key
    asked = _Asked(is_stopping)
    steps = generate_invoices(
        run,
        tenant_id,
        key,
        issue=operation.issue,
        now=clock(),
        since=since,
        must_end=asked.to_end,
        whole=whole,
    )
    for step in steps:
        operation = _advanced(operation, step)
        if step.invoice is not None:
            yield Made(operation, step.invoice)
        if step.invoice is not None or step.failure is not None:
            continue
        operation = _save(run, tenant_id, operation, clock())
        asked.is_cancelled = operation.cancel_time is not None
    if asked.to_stop:
        return
    yield Made(_finish(run, tenant_id, operation, clock()), None)


class _Asked:
    """Whether a run was asked to end; once it was, it is."""

    def __init__(self, is_stopping: Callable[[], bool]) -> None:
        self.to_stop = False
        self.is_cancelled = False
        self._is_stopping = is_stopping

    def to_end(self) -> bool:
        """Whether no more must be begun."""
        self.to_stop = self.to_stop or self._is_stopping()
        return self.to_stop or self.is_cancelled


def error_of(operation: Operation) -> AmmeterError | None:
    """Make the error that a failed or cancelled operation ends a call with."""
    if operation.state is OperationState.CANCELLED:
        return PreconditionError(f"operation {operation.operation_id} was cancelled: start another one")
    if operation.state is not OperationState.FAILED:
        return None
    kind = OutOfRangeError if operation.error_reason == OutOfRangeError.reason else PreconditionError
    counts = f"{operation.failed_count} of {operation.total_count} subscriptions could not be billed"
    return kind(f"{counts}: {operation.error_message}", reason=operation.error_reason)


def _advanced(operation: Operation, step: Step) -> Operation:
    """Take over what a step did; the first few errors are kept."""
    advanced = operation._replace(**step.progress._asdict())
    if step.failure is None:
        return advanced
    error = step.failure.error
    text = f"{step.failure.subscription_id}: {error.message}"
    if operation.failed_count:
        text = f"{operation.error_message}; {text}"
    return advanced._replace(
        failed_count=operation.failed_count + 1,
        error_reason=operation.error_reason or error.reason,
        error_message=text if operation.failed_count < _SHOWN else operation.error_message,
    )


def _save(run: Billing, tenant_id: int, operation: Operation, now: datetime) -> Operation:
    """Write progress; returns the operation, with the wish to cancel it if there is one."""
    with run.db.tenant(tenant_id) as tx:
        stored = operations.get(tx, operation.operation_id, lock=True)
        saved = operation._replace(cancel_time=stored.cancel_time, update_time=now)
        operations.update(tx, saved)
        return saved


def _finish(run: Billing, tenant_id: int, operation: Operation, now: datetime) -> Operation:
    with run.db.tenant(tenant_id) as tx:
        stored = operations.get(tx, operation.operation_id, lock=True)
        ended = end(operation._replace(cancel_time=stored.cancel_time), now)
        operations.update(tx, ended)
        return ended
