"""Every error that a caller can be told about.

AmmeterError
├── InvalidInputError        a field holds what it must not (names it)
├── NotFoundError            no such thing in this tenant
├── AlreadyExistsError       the key, or the request_id, is taken
├── PreconditionError        the thing is not in a state that allows it
├── ConflictError            someone else changed it first (etag)
├── UnauthenticatedError     no usable credential
├── PermissionDeniedError    the credential lacks the scope
├── ExhaustedError           over a limit for now; retry later
├── UnavailableError         not able to serve now; retry later
├── OutOfRangeError          a number too great for the decimal form
└── InternalError            a defect on our side

Each carries a `reason`, one word of error_reason.proto without its prefix,
that never changes, and a message that says what to do.
"""

from collections.abc import Sequence
from typing import NamedTuple


class Violation(NamedTuple):
    """One field at fault: its path in the request, and what is wrong with it."""

    field: str
    description: str


class AmmeterError(Exception):
    """Base of all of them."""

    reason = "INTERNAL"

    def __init__(self, message: str, *, reason: str | None = None, field: str = "") -> None:
        """Keep the message; a reason here overrides the class's. `field`: what of the request it is about."""
        super().__init__(message)
        self.message = message
        self.field = field
        if reason is not None:
            self.reason = reason

    def __reduce__(self) -> tuple[object, ...]:
        """Let it travel between processes, as it is."""
        return _rebuilt, (type(self), self.args, self.__dict__)


def _rebuilt(kind: type[AmmeterError], args: tuple[object, ...], values: dict[str, object]) -> AmmeterError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(values)
    return error


class InvalidInputError(AmmeterError):
    """One or more fields hold what they must not."""

    reason = "INVALID_FIELD"

    def __init__(self, violations: Sequence[Violation], *, reason: str | None = None) -> None:
        """Say every violation at once, so that a caller mends all in one go."""
        super().__init__("; ".join(f"{field}: {why}" for field, why in violations), reason=reason)
        self.violations = tuple(violations)


def invalid(field: str, description: str) -> InvalidInputError:
    """Make the error for a single field."""
    return InvalidInputError([Violation(field, description)])


class NotFoundError(AmmeterError):
    """No such thing in this tenant."""

    reason = "NOT_FOUND"

    def __init__(self, kind: str, key: str, why: str = "") -> None:
        """Name what was looked for: kind as in the proto ("meter"), key as given; why it may be gone."""
        gone = f"; {why}" if why else ""
        super().__init__(f"there is no {kind} {key!r}: check the key, or list what there is{gone}")
        self.kind = kind
        self.key = key


class AlreadyExistsError(AmmeterError):
    """The key is taken, or a request_id was used with other content."""

    reason = "ALREADY_EXISTS"


class PreconditionError(AmmeterError):
    """The thing is not in a state that allows this."""

    reason = "WRONG_STATE"


class ConflictError(AmmeterError):
    """Somebody else changed it first: read again."""

    reason = "ETAG_MISMATCH"


class UnauthenticatedError(AmmeterError):
    """No credential, or one that is unknown, expired or revoked."""

    reason = "UNAUTHENTICATED"


class PermissionDeniedError(AmmeterError):
    """The credential lacks the scope."""

    reason = "SCOPE_MISSING"


class RetryableError(AmmeterError):
    """The same call may succeed after `retry_seconds`."""

    def __init__(self, message: str, *, retry_seconds: float = 1.0, reason: str | None = None) -> None:
        """Say how long to wait before the next try."""
        super().__init__(message, reason=reason)
        self.retry_seconds = retry_seconds


class ExhaustedError(RetryableError):
    """Over a limit for now."""

    reason = "BACK_PRESSURE"


class UnavailableError(RetryableError):
    """Not able to serve now."""

    reason = "DATABASE_UNAVAILABLE"


class OutOfRangeError(AmmeterError):
    """A number too great for the decimal form."""

    reason = "OUT_OF_RANGE"


class InternalError(AmmeterError):
    """A defect on our side."""

    reason = "INTERNAL"
