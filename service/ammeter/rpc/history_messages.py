"""Histories of entitlements: messages and values."""

from zoneinfo import ZoneInfo

from ammeter.domain import keys
from ammeter.domain.history import Burnt, Ending, Segment, Window
from ammeter.errors import InvalidInputError, invalid
from ammeter.rpc.convert import from_timestamp
from ammeter.rpc.entitlement_messages import minute_stamp, quantity_text
from ammeter.usecases.history import Question
from ammeter.v1 import history_pb2, usage_pb2

_SIZES: dict[int, str] = {
    usage_pb2.WINDOW_SIZE_UNSPECIFIED: "DAY",
    usage_pb2.WINDOW_SIZE_HOUR: "HOUR",
    usage_pb2.WINDOW_SIZE_DAY: "DAY",
}


def read_question(request: history_pb2.GetEntitlementHistoryRequest) -> Question:
    """Read what history is asked for; raises InvalidInputError."""
    if request.window_size not in _SIZES:
        raise invalid("window_size", "must be WINDOW_SIZE_HOUR or WINDOW_SIZE_DAY")
    violations = keys.time_zone("time_zone", request.time_zone) if request.time_zone else []
    if violations:
        raise InvalidInputError(violations)
    return Question(
        request.entitlement_id,
        from_timestamp(request.from_time, "from_time", present=request.HasField("from_time")),
        from_timestamp(request.to_time, "to_time", present=request.HasField("to_time")),
        _SIZES[request.window_size],
        ZoneInfo(request.time_zone) if request.time_zone else None,
    )


def window_message(window: Window) -> history_pb2.BalanceWindow:
    """Write a window."""
    return history_pb2.BalanceWindow(
        from_time=minute_stamp(window.start_minute),
        to_time=minute_stamp(window.end_minute),
        usage=quantity_text(window.used),
        balance=quantity_text(max(window.left, 0)),
        overage=quantity_text(max(-window.left, 0)),
    )


def segment_message(segment: Segment) -> history_pb2.BurnSegment:
    """Write a segment."""
    return history_pb2.BurnSegment(
        from_time=minute_stamp(segment.start_minute),
        to_time=minute_stamp(segment.end_minute),
        usage=quantity_text(segment.used),
        start_balance=quantity_text(max(segment.left_at_start, 0)),
        start_overage=quantity_text(max(-segment.left_at_start, 0)),
        end_balance=quantity_text(max(segment.left_at_end, 0)),
        end_overage=quantity_text(max(-segment.left_at_end, 0)),
        grants=map(_burnt_message, segment.grants),
        ends=map(_end_message, segment.endings),
    )


def _burnt_message(burnt: Burnt) -> history_pb2.BurntGrant:
    return history_pb2.BurntGrant(
        grant_id=burnt.grant.grant_id,
        amount=quantity_text(burnt.grant.amount),
        start_balance=quantity_text(burnt.opened),
        paid=quantity_text(burnt.paid),
        end_balance=quantity_text(burnt.opened - burnt.paid),
    )


def _end_message(ending: Ending) -> history_pb2.SegmentEnd:
    cause = history_pb2.SegmentEnd.Cause.Value(f"CAUSE_{ending.cause.value}")
    return history_pb2.SegmentEnd(cause=cause, grant_id=ending.grant_id)
