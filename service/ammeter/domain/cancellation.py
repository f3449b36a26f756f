"""When a cancelled subscription ends."""

from dataclasses import replace
from datetime import datetime
from enum import Enum

from ammeter.domain.minute import truncate
from ammeter.domain.period import period_at, period_number
from ammeter.domain.subscription import Subscription
from ammeter.errors import PreconditionError, invalid


class Timing(Enum):
    """When to end."""

    NOW = "now"
    PERIOD_END = "period end"
    AT_TIME = "at time"


def end_of_cancelled(
    subscription: Subscription, timing: Timing, cancel_time: datetime | None, now: datetime
) -> datetime:
    """Find the end: a whole minute, never before the start.

    An end that was set before does not bind a new one, unless it has passed
    (PreconditionError). The period end of a subscription that has not begun is
    that of its first period.
    """
    _check_time(timing, cancel_time, now)
    if subscription.end_time is not None and subscription.end_time <= now:
        raise PreconditionError(
            f"subscription {subscription.subscription_id} has ended already: there is nothing to cancel"
        )
    if timing is Timing.PERIOD_END:
        return period_end(replace(subscription, end_time=None), now)
    end = truncate(now if cancel_time is None else cancel_time)
    return max(end, subscription.start_time)


def _check_time(timing: Timing, cancel_time: datetime | None, now: datetime) -> None:
    if timing is not Timing.AT_TIME:
        if cancel_time is not None:
            raise invalid("cancel_time", "goes with CANCEL_TIMING_AT_TIME only: leave it out, or set timing")
        return
    if cancel_time is None or cancel_time <= now:
        raise invalid("cancel_time", "must be given and lie ahead for CANCEL_TIMING_AT_TIME")


def period_end(open_ended: Subscription, now: datetime) -> datetime:
    """Give the end of the period around now, or of the first one; raises PreconditionError without any."""
    period = period_at(open_ended, now) or period_number(open_ended, 0)
    if period is None:
        raise PreconditionError("the subscription has no period to end at: give a time instead")
    return period.end
