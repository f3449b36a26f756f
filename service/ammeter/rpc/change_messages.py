"""Changes of subscriptions, done or thought of: messages to values."""

from ammeter.domain.cancellation import Timing
from ammeter.errors import invalid
from ammeter.rpc.convert import from_timestamp
from ammeter.usecases.change import When, Wish
from ammeter.v1 import subscription_pb2 as pb

_TIMINGS: dict[int, Timing] = {
    pb.CHANGE_TIMING_NOW: Timing.NOW,
    pb.CHANGE_TIMING_PERIOD_END: Timing.PERIOD_END,
    pb.CHANGE_TIMING_AT_TIME: Timing.AT_TIME,
}
_Timed = (
    pb.ChangeSubscriptionRequest
    | pb.SetSubscriptionQuantityRequest
    | pb.MigrateSubscriptionsRequest
    | pb.PlannedChange
)


def read_when(sent: _Timed, default: Timing, path: str = "") -> When:
    """Read when a change takes effect; raises InvalidInputError."""
    timing = _TIMINGS.get(sent.timing, default if not sent.timing else None)
    if timing is None:
        raise invalid(f"{path}timing", f"must be one of {', '.join(pb.ChangeTiming.keys()[1:])}")
    time = from_timestamp(sent.change_time, f"{path}change_time", present=sent.HasField("change_time"))
    return When(timing, time)


def read_wish(sent: pb.ChangeSubscriptionRequest | pb.PlannedChange, path: str = "") -> Wish:
    """Read what a subscription is to be put on; raises InvalidInputError."""
    quantity = sent.quantity if sent.HasField("quantity") else None
    return Wish(sent.plan_key, sent.phase_key, quantity, read_when(sent, Timing.NOW, path))


def read_change(sent: pb.PlannedChange) -> Wish:
    """Read a change that is thought of; raises InvalidInputError."""
    return read_wish(sent, "change.")
