"""Verbs on operations."""

import time
from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated

import typer
from rich.console import RenderableType

from ammeter.cli import root
from ammeter.cli.session import Session, list_all, session_of
from ammeter.cli.times import show_time
from ammeter.cli.view import fields, table, word
from ammeter.client import new_request_id
from ammeter.v1 import operation_pb2 as pb

group = root.group("operation", "Work that goes on whoever waits for it.")

OperationId = Annotated[str, typer.Argument(metavar="OPERATION", help='Its id, "op_...".')]
_ENDED = {pb.Operation.STATE_SUCCEEDED, pb.Operation.STATE_FAILED, pb.Operation.STATE_CANCELLED}
_LOOK_SECONDS = 0.5


class State(StrEnum):
    """The words of ammeter.v1.Operation.State."""

    WAITING = "waiting"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


@group.command("get", epilog=root.EPILOG)
def get(ctx: typer.Context, operation_id: OperationId) -> None:
    """Show one operation and how far it is."""
    session = session_of(ctx)
    show(session, _get(session, operation_id))


@group.command("wait", epilog=root.EPILOG)
def wait(ctx: typer.Context, operation_id: OperationId) -> None:
    """Wait until an operation has ended; exit code 1 unless it succeeded."""
    session = session_of(ctx)
    found = _get(session, operation_id)
    while found.state not in _ENDED:
        time.sleep(_LOOK_SECONDS)
        found = _get(session, operation_id)
    show(session, found)
    if found.state != pb.Operation.STATE_SUCCEEDED:
        raise typer.Exit(1)


@group.command("cancel", epilog=root.EPILOG)
def cancel(ctx: typer.Context, operation_id: OperationId) -> None:
    """End an operation before its end; what it made stays."""
    session = session_of(ctx)
    request = pb.CancelOperationRequest(operation_id=operation_id, request_id=new_request_id())
    show(session, session.client.operations.CancelOperation(request).operation)


@group.command("list", epilog=root.EPILOG)
def list_(
    ctx: typer.Context,
    *,
    state: Annotated[State | None, typer.Option(help="Only in this state.")] = None,
    limit: int = 100,
) -> None:
    """List operations, newest first."""
    session = session_of(ctx)
    wanted = pb.Operation.State.Value(f"STATE_{state.name}") if state else pb.Operation.STATE_UNSPECIFIED
    request = pb.ListOperationsRequest(state=wanted, page_size=min(limit, 1000))
    answer = list_all(session.client.operations.ListOperations, request, "operations", limit)
    session.show(answer, lambda: _overview(answer.operations))


def _get(session: Session, operation_id: str) -> pb.Operation:
    return session.client.operations.GetOperation(pb.GetOperationRequest(operation_id=operation_id)).operation


def show(session: Session, operation: pb.Operation) -> None:
    """Print an operation."""
    shown = {
        "operation": operation.operation_id,
        "does": word(pb.Operation.Kind.Name(operation.kind), "KIND"),
        "state": word(pb.Operation.State.Name(operation.state), "STATE"),
        "customer": operation.customer_key or "all",
        "done": f"{operation.done_count} of {operation.total_count} subscriptions",
        "invoices": operation.invoice_count,
        "not billed": operation.failed_count or "",
        "error": operation.error_message,
        "begun": show_time(operation.create_time),
        "ended": show_time(operation.end_time),
    }
    session.show(operation, lambda: fields(shown))


def _overview(operations: Iterable[pb.Operation]) -> RenderableType:
    rows = (
        (
            each.operation_id,
            word(pb.Operation.Kind.Name(each.kind), "KIND"),
            word(pb.Operation.State.Name(each.state), "STATE"),
            each.customer_key or "all",
            f"{each.done_count}/{each.total_count}",
            each.invoice_count,
            show_time(each.create_time),
            show_time(each.end_time),
        )
        for each in operations
    )
    columns = ["operation", "does", "state", "customer", "done", "invoices", "begun", "ended"]
    return table(columns, rows)
