"""Says in one clear sentence why a call failed, and which fields are at fault."""

from dataclasses import dataclass

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from grpc_status import rpc_status


@dataclass(frozen=True)
class Failure:
    """A failed call in the server's own words; `reason` is a word of error_reason.proto, or empty."""

    code: grpc.StatusCode
    message: str
    reason: str = ""
    violations: tuple[tuple[str, str], ...] = ()
    retry_seconds: float = 0.0


def read_failure(error: grpc.RpcError) -> Failure:
    """Read the google.rpc.Status that came with an error; without one, what gRPC says."""
    call = call_of(error)
    if call is None:
        return Failure(grpc.StatusCode.UNKNOWN, str(error))
    code, text = call.code(), call.details() or ""
    try:
        status = rpc_status.from_call(call)
    except ValueError:  # details that contradict the status: a proxy's doing
        status = None
    if status is None:
        return Failure(code, text)
    info, bad, retry = (
        error_details_pb2.ErrorInfo(),
        error_details_pb2.BadRequest(),
        error_details_pb2.RetryInfo(),
    )
    for detail in status.details:
        _unpack_any(detail, info, bad, retry)
    violations = tuple((each.field, each.description) for each in bad.field_violations)
    return Failure(
        code, status.message, info.reason, violations, retry.retry_delay.ToTimedelta().total_seconds()
    )


def call_of(error: object) -> grpc.Call | None:
    """Return the call behind an error: grpcio's errors are calls, which their types do not say."""
    return error if isinstance(error, grpc.Call) else None


def _unpack_any(detail: object, *into: Message) -> None:
    for message in into:
        if detail.Unpack(message):  # type: ignore[attr-defined] # google.rpc's stubs do not know Any's methods
            return


def sentence(failure: Failure, address: str) -> str:
    """Make the line that a person reads; violations follow it, one per line."""
    if _is_unreachable(failure):
        return (
            f"no ammeter server answers at {address}: start one with `ammeter serve`, "
            f"or name another with --address or AMMETER_ADDRESS"
        )
    if failure.code is grpc.StatusCode.DEADLINE_EXCEEDED and not failure.reason:
        return f"the server at {address} did not answer in time: try again"
    if failure.code is grpc.StatusCode.UNIMPLEMENTED and not failure.reason:
        return f"the server at {address} does not offer this: is it an ammeter of this version?"
    if failure.violations and failure.code is grpc.StatusCode.INVALID_ARGUMENT:
        return "\n".join(
            ["the request was refused:", *(f"  {field}: {why}" for field, why in failure.violations)]
        )
    return failure.message or failure.code.name


def _is_unreachable(failure: Failure) -> bool:
    """Tell a server that is not there from one that says it cannot serve now: the latter gives a reason."""
    return failure.code is grpc.StatusCode.UNAVAILABLE and not failure.reason
