"""A customer on a plan over time."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property

from ammeter.domain.price_override import PriceOverride
from ammeter.domain.spans import Span, cut, span_at

_INSTANT = timedelta(microseconds=1)


@dataclass(frozen=True)
class Subscription:
    """[start_time, end_time) on plans; billing periods run from anchor_time.

    `time_zone` is the customer's and `billing_cadence` the plans': together
    with the anchor they decide every boundary (see domain/period.py).
    plan_id and plan_key are of the first plan, all of them in `spans`.
    `price_overrides` are there for billing only.
    """

    subscription_id: str
    customer_id: int
    customer_key: str
    plan_id: int
    plan_key: str
    start_time: datetime
    end_time: datetime | None
    anchor_time: datetime
    time_zone: str
    billing_cadence: str
    currency: str
    create_time: datetime
    cancel_time: datetime | None = None
    spans: tuple[Span, ...] = ()
    update_time: datetime | None = None
    price_overrides: tuple[PriceOverride, ...] = ()

    @cached_property
    def course(self) -> tuple[Span, ...]:
        """Its spans without its end; one that has none stored is on its first plan all the time."""
        return self.spans or (Span(self.start_time, None, self.plan_id, plan_key=self.plan_key),)

    @property
    def stretches(self) -> list[Span]:
        """Its spans as far as they happen."""
        return cut(self.course, self.end_time)


def span_before(sub: Subscription, instant: datetime) -> Span:
    """Give the span that a subscription was on right before an instant."""
    return span_at(sub.course, instant - _INSTANT)
