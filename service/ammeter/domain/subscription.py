"""A customer on a plan over time."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class Subscription:
    """[start_time, end_time) on a plan; billing periods run from anchor_time.

    `time_zone` is the customer's and `billing_cadence` the plan's: together
    with the anchor they decide every boundary (see domain/period.py).
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
