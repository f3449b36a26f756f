"""The one place where an exception becomes a gRPC status."""

import uuid
from collections.abc import Sequence

import grpc
import structlog
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from sqlalchemy.exc import DBAPIError, IntegrityError

from ammeter import errors
from ammeter.errors import AmmeterError, RetryableError, Violation
from ammeter.usecases.engine import EngineError, public

DOMAIN = "ammeter"

_log = structlog.get_logger()

_CODES: dict[type[AmmeterError], grpc.StatusCode] = {
    errors.InvalidInputError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.NotFoundError: grpc.StatusCode.NOT_FOUND,
    errors.AlreadyExistsError: grpc.StatusCode.ALREADY_EXISTS,
    errors.PreconditionError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.ConflictError: grpc.StatusCode.ABORTED,
    errors.UnauthenticatedError: grpc.StatusCode.UNAUTHENTICATED,
    errors.PermissionDeniedError: grpc.StatusCode.PERMISSION_DENIED,
    errors.ExhaustedError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.UnavailableError: grpc.StatusCode.UNAVAILABLE,
    errors.OutOfRangeError: grpc.StatusCode.OUT_OF_RANGE,
    errors.InternalError: grpc.StatusCode.INTERNAL,
}

# A client takes 8 KiB of trailers. Ours hold the message twice, once percent-encoded, and details in base64.
_MAX_MESSAGE_BYTES = 700
_MAX_FIELD_BYTES = 200
_MAX_VIOLATIONS_BYTES = 2000

# SQLSTATE classes of a transaction that lost a race and may simply be repeated.
_RETRYABLE_STATES = {"40001", "40P01", "55P03", "57014"}


def public_error(error: BaseException) -> AmmeterError:
    """Turn any exception into one that a caller may see; log what is a defect."""
    if isinstance(error, EngineError):
        error = public(error)
    if isinstance(error, AmmeterError):
        if isinstance(error, errors.InternalError):
            _log.error("internal error", reason=error.reason, message=error.message)
        return error
    if isinstance(error, IntegrityError):
        return errors.AlreadyExistsError(
            "somebody else created or changed it at the same moment: read it again"
        )
    if isinstance(error, DBAPIError) and getattr(error.orig, "sqlstate", "") in _RETRYABLE_STATES:
        return errors.UnavailableError("the transaction lost a race: try again", retry_seconds=0.1)
    error_id = uuid.uuid4().hex
    _log.error("internal error", error_id=error_id, exc_info=error)
    return errors.InternalError(f"a defect on our side; error id {error_id} is in the server's log")


def status_of(error: AmmeterError) -> tuple[grpc.StatusCode, status_pb2.Status]:
    """Give the code and the google.rpc.Status, details included; it fits the limits of any client."""
    code = next(_CODES[kind] for kind in type(error).__mro__ if kind in _CODES)
    message = _shortened(error.message, _MAX_MESSAGE_BYTES)
    details: list[Message] = [error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN)]
    if isinstance(error, errors.InvalidInputError):
        message, bad_request = _explain(error)
        details.append(bad_request)
    elif error.field:
        about = error_details_pb2.BadRequest()
        about.field_violations.add(field=error.field, description=message)
        details.append(about)
    if isinstance(error, errors.ExhaustedError):
        failure = error_details_pb2.QuotaFailure()
        failure.violations.add(subject="server", description=message)
        details.append(failure)
    if isinstance(error, RetryableError):
        delay = Duration()
        delay.FromMilliseconds(round(error.retry_seconds * 1000))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    status = status_pb2.Status(code=code.value[0], message=message)
    for detail in details:
        packed = Any()
        packed.Pack(detail)
        status.details.append(packed)
    return code, status


def _explain(error: errors.InvalidInputError) -> tuple[str, Message]:
    shown = _shown(error.violations)
    bad = error_details_pb2.BadRequest()
    for field, description in shown:
        bad.field_violations.add(field=field, description=description)
    left_out = len(error.violations) - len(shown)
    ending = f"; and {left_out} more" if left_out else ""
    message = "; ".join(f"{field}: {why}" for field, why in shown)
    return _shortened(message, _MAX_MESSAGE_BYTES - len(ending)) + ending, bad


def _shown(violations: Sequence[Violation]) -> list[Violation]:
    """Give the first violations, as many as fit."""
    shown: list[Violation] = []
    room = _MAX_VIOLATIONS_BYTES
    for field, description in violations:
        one = Violation(_shortened(field, _MAX_FIELD_BYTES), _shortened(description, _MAX_MESSAGE_BYTES))
        room -= len(one.field.encode()) + len(one.description.encode())
        if room < 0 and shown:
            break
        shown.append(one)
    return shown


def _shortened(text: str, size: int) -> str:
    """Cut a text to so many bytes; its end says what is wrong, and is kept, too."""
    encoded = text.encode()
    if len(encoded) <= size:
        return text
    half = size // 2 - 2
    return f"{encoded[:half].decode(errors='ignore')}…{encoded[-half:].decode(errors='ignore')}"
