"""OperationService: messages to values and back."""

from datetime import datetime

from ammeter.domain.operation import Operation, OperationKind, OperationState
from ammeter.errors import invalid
from ammeter.rpc.convert import to_timestamp
from ammeter.rpc.method import ADMIN, READ, Method
from ammeter.rpc.paging import decode_token, encode_token, fingerprint, page_size
from ammeter.store import operations
from ammeter.store.db import Tx
from ammeter.usecases.operations import cancel_operation
from ammeter.v1 import operation_pb2 as pb

_KINDS = {OperationKind.GENERATE_INVOICES: pb.Operation.KIND_GENERATE_INVOICES}
_STATES = {
    OperationState.WAITING: pb.Operation.STATE_WAITING,
    OperationState.RUNNING: pb.Operation.STATE_RUNNING,
    OperationState.SUCCEEDED: pb.Operation.STATE_SUCCEEDED,
    OperationState.FAILED: pb.Operation.STATE_FAILED,
    OperationState.CANCELLED: pb.Operation.STATE_CANCELLED,
}
_STATE_OF = {number: state for state, number in _STATES.items()}


class OperationRpc:
    """The service's methods."""

    service = "ammeter.v1.OperationService"

    def methods(self) -> list[Method]:
        """Every RPC of the service."""
        return [
            Method.read("GetOperation", READ, self.get),
            Method.read("ListOperations", READ, self.list),
            Method.write("CancelOperation", ADMIN, self.cancel),
        ]

    def get(self, tx: Tx, request: pb.GetOperationRequest, _now: datetime) -> pb.GetOperationResponse:
        """Answer one operation."""
        return pb.GetOperationResponse(operation=to_message(operations.get(tx, request.operation_id)))

    def list(self, tx: Tx, request: pb.ListOperationsRequest, _now: datetime) -> pb.ListOperationsResponse:
        """Answer a page of operations, newest first."""
        query, size = fingerprint(request), page_size(request.page_size)
        if request.state and request.state not in _STATE_OF:
            raise invalid("state", f"is no state of an operation: {', '.join(pb.Operation.State.keys()[1:])}")
        before = decode_token(request.page_token, query) or ("",)
        found = operations.page(tx, _STATE_OF.get(request.state), str(before[0]), size + 1)
        more = encode_token(query, (found[size - 1].operation_id,)) if len(found) > size else ""
        return pb.ListOperationsResponse(
            operations=[to_message(one) for one in found[:size]], next_page_token=more
        )

    def cancel(self, tx: Tx, request: pb.CancelOperationRequest, now: datetime) -> pb.CancelOperationResponse:
        """Ask for the end of an operation."""
        return pb.CancelOperationResponse(
            operation=to_message(cancel_operation(tx, request.operation_id, now))
        )


def to_message(operation: Operation) -> pb.Operation:
    """Write an operation."""
    return pb.Operation(
        operation_id=operation.operation_id,
        kind=_KINDS[operation.kind],
        state=_STATES[operation.state],
        customer_key=operation.customer_key,
        issue=operation.issue,
        done_count=operation.done_count,
        total_count=operation.total_count,
        invoice_count=operation.invoice_count,
        error_reason=operation.error_reason,
        error_message=operation.error_message,
        create_time=to_timestamp(operation.create_time),
        update_time=to_timestamp(operation.update_time),
        end_time=to_timestamp(operation.end_time),
        cancel_time=to_timestamp(operation.cancel_time),
        failed_count=operation.failed_count,
    )
