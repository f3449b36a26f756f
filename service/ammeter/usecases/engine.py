"""The only door to the Rust core."""

from ammeter._native import (
    MAX_EVENTS_PER_REQUEST,
    QUANTITY_SCALE,
    Block,
    Engine,
    EngineError,
    Frozen,
    MeterBuilder,
    MeterSpec,
    QueryResult,
    Receipt,
    SealedGroup,
    Segment,
    StoredEvents,
    compress,
    decompress,
    merge_blocks,
    panic_for_test,
    parse_quantity,
    segment_digest,
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
    "Block",
    "Engine",
    "EngineError",
    "Frozen",
    "MeterBuilder",
    "MeterSpec",
    "QueryResult",
    "Receipt",
    "SealedGroup",
    "Segment",
    "StoredEvents",
    "compress",
    "decompress",
    "merge_blocks",
    "panic_for_test",
    "parse_quantity",
    "public",
    "segment_digest",
]


def public(error: EngineError) -> AmmeterError:
    """Turn the core's error into one that a caller may see."""
    match error.reason:
        case "MALFORMED_REQUEST":
            return InvalidInputError([Violation("request", error.message)], reason="MALFORMED_REQUEST")
        case "LIMIT_EXCEEDED":
            return InvalidInputError([Violation("events", error.message)], reason="LIMIT_EXCEEDED")
        case "INVALID_DEFINITION":
            return InvalidInputError([Violation("meter", error.message)])
        case "BACK_PRESSURE":
            return ExhaustedError(error.message, retry_seconds=0.1)
        case "OUT_OF_RANGE":
            return OutOfRangeError(error.message)
        case "STALE_SNAPSHOT" | "UNKNOWN_METER":
            # A checkpoint or a rebuilt meter overtook the reader.
            return UnavailableError("what was read changed meanwhile: try again", retry_seconds=0.05)
        case _:
            return InternalError(f"{error.reason}: {error.message}")
