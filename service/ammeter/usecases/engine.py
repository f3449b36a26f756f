"""The only door to the Rust core."""

from collections.abc import Callable

from ammeter._native import (
    MAX_EVENTS_PER_REQUEST,
    QUANTITY_SCALE,
    Answers,
    Block,
    Checks,
    DraftRun,
    Endings,
    Engine,
    EngineError,
    Frozen,
    MeterBuilder,
    MeterSpec,
    Pack,
    Query,
    QueryResult,
    Receipt,
    Runs,
    SealedGroup,
    Segment,
    StoredEvents,
    compress,
    decompress,
    merge_blocks,
    message_sequence,
    pack_segments,
    panic_for_test,
    parse_quantity,
    segment_digest,
    verify_segment,
)
from ammeter.errors import (
    AmmeterError,
    ExhaustedError,
    InternalError,
    InvalidInputError,
    OutOfRangeError,
    UnavailableError,
    Violation,
)

__all__ = [
    "MAX_EVENTS_PER_REQUEST",
    "QUANTITY_SCALE",
    "Answers",
    "Block",
    "Checks",
    "DraftRun",
    "Endings",
    "Engine",
    "EngineError",
    "Frozen",
    "MeterBuilder",
    "MeterSpec",
    "Pack",
    "Query",
    "QueryResult",
    "Receipt",
    "Runs",
    "SealedGroup",
    "Segment",
    "StoredEvents",
    "compress",
    "decompress",
    "merge_blocks",
    "message_sequence",
    "pack_segments",
    "panic_for_test",
    "parse_quantity",
    "public",
    "segment_digest",
    "verify_segment",
]


def public(error: EngineError) -> AmmeterError:
    """Turn the core's error into one that a caller may see."""
    make = _PUBLIC.get(error.reason)
    return make(error.message) if make else InternalError(f"{error.reason}: {error.message}")


def _refused(field: str, reason: str) -> Callable[[str], AmmeterError]:
    return lambda message: InvalidInputError([Violation(field, message)], reason=reason)


def _overtaken(_message: str) -> AmmeterError:
    # A checkpoint or a rebuilt meter overtook the reader.
    return UnavailableError("what was read changed meanwhile: try again", retry_seconds=0.05)


_PUBLIC: dict[str, Callable[[str], AmmeterError]] = {
    "MALFORMED_REQUEST": _refused("request", "MALFORMED_REQUEST"),
    "LIMIT_EXCEEDED": _refused("events", "LIMIT_EXCEEDED"),
    "INVALID_DEFINITION": _refused("meter", "INVALID_FIELD"),
    "BACK_PRESSURE": lambda message: ExhaustedError(message, retry_seconds=0.1),
    "OUT_OF_RANGE": OutOfRangeError,
    "DAMAGED_RUN": lambda _: UnavailableError(
        "the server is recovering, nothing was acknowledged: send the same events again",
        reason="NOT_SERVING",
        retry_seconds=0.5,
    ),
    "STALE_SNAPSHOT": _overtaken,
    "UNKNOWN_METER": _overtaken,
}
