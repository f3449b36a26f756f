"""SubscriptionService: customers on plans."""

from datetime import datetime

from ammeter.domain.cancellation import Timing
from ammeter.domain.period import period_at
from ammeter.domain.spans import Span, span_at
from ammeter.domain.subscription import Subscription
from ammeter.errors import invalid
from ammeter.rpc import paging
from ammeter.rpc.convert import from_timestamp, to_timestamp
from ammeter.rpc.method import ADMIN, READ, Method
from ammeter.store import subscriptions as store
from ammeter.store.db import Tx
from ammeter.usecases import subscribe
from ammeter.usecases.customers import get_customer
from ammeter.usecases.live import Live
from ammeter.v1 import subscription_pb2 as pb

_TIMINGS: dict[int, Timing] = {
    pb.CANCEL_TIMING_UNSPECIFIED: Timing.NOW,
    pb.CANCEL_TIMING_NOW: Timing.NOW,
    pb.CANCEL_TIMING_PERIOD_END: Timing.PERIOD_END,
    pb.CANCEL_TIMING_AT_TIME: Timing.AT_TIME,
}


class SubscriptionRpc:
    """The service."""

    service = "ammeter.v1.SubscriptionService"

    def __init__(self, live: Live) -> None:
        """Tell `live` what changes."""
        self._live = live

    def methods(self) -> list[Method]:
        """List the RPCs."""
        return [
            Method.write("CreateSubscription", ADMIN, self.create_subscription),
            Method.read("GetSubscription", READ, self.get_subscription),
            Method.read("ListSubscriptions", READ, self.list_subscriptions),
            Method.write("CancelSubscription", ADMIN, self.cancel_subscription),
        ]

    def create_subscription(
        self, tx: Tx, request: pb.CreateSubscriptionRequest, now: datetime
    ) -> pb.CreateSubscriptionResponse:
        """Subscribe a customer."""
        created = subscribe.create_subscription(
            tx,
            self._live,
            request.customer_key,
            request.plan_key,
            from_timestamp(request.start_time, "start_time", present=request.HasField("start_time")),
            from_timestamp(request.anchor_time, "anchor_time", present=request.HasField("anchor_time")),
            now,
        )
        return pb.CreateSubscriptionResponse(subscription=subscription_message(created, now))

    def get_subscription(
        self, tx: Tx, request: pb.GetSubscriptionRequest, now: datetime
    ) -> pb.GetSubscriptionResponse:
        """Read a subscription."""
        found = subscribe.get_subscription(tx, request.subscription_id)
        return pb.GetSubscriptionResponse(subscription=subscription_message(found, now))

    def list_subscriptions(
        self, tx: Tx, request: pb.ListSubscriptionsRequest, now: datetime
    ) -> pb.ListSubscriptionsResponse:
        """List subscriptions."""
        customer_id = get_customer(tx, request.customer_key).customer_id if request.customer_key else None
        size, query = paging.page_size(request.page_size), paging.fingerprint(request)
        after = paging.decode_token(request.page_token, query) or ("",)
        found = store.page(tx, customer_id, str(after[0]), size + 1)
        token = paging.encode_token(query, (found[size - 1].subscription_id,)) if len(found) > size else ""
        return pb.ListSubscriptionsResponse(
            subscriptions=[subscription_message(one, now) for one in found[:size]], next_page_token=token
        )

    def cancel_subscription(
        self, tx: Tx, request: pb.CancelSubscriptionRequest, now: datetime
    ) -> pb.CancelSubscriptionResponse:
        """End a subscription."""
        timing = _TIMINGS.get(request.timing)
        if timing is None:
            raise invalid(
                "timing", "must be CANCEL_TIMING_NOW, CANCEL_TIMING_PERIOD_END or CANCEL_TIMING_AT_TIME"
            )
        time = from_timestamp(request.cancel_time, "cancel_time", present=request.HasField("cancel_time"))
        cancelled = subscribe.cancel_subscription(tx, self._live, request.subscription_id, timing, time, now)
        return pb.CancelSubscriptionResponse(subscription=subscription_message(cancelled, now))


def subscription_message(subscription: Subscription, now: datetime) -> pb.Subscription:
    """Write a subscription, with the period around now."""
    period = period_at(subscription, now)
    spans = subscription.course
    here = span_at(spans, now)
    return pb.Subscription(
        subscription_id=subscription.subscription_id,
        customer_key=subscription.customer_key,
        plan_key=here.plan_key,
        plan_version=here.plan_version,
        phase_key=here.phase_key,
        start_time=to_timestamp(subscription.start_time),
        end_time=to_timestamp(subscription.end_time),
        anchor_time=to_timestamp(subscription.anchor_time),
        period_start_time=to_timestamp(period.start) if period else None,
        period_end_time=to_timestamp(period.end) if period else None,
        create_time=to_timestamp(subscription.create_time),
        cancel_time=to_timestamp(subscription.cancel_time),
        spans=[_span_message(span) for span in spans],
    )


def _span_message(span: Span) -> pb.SubscriptionSpan:
    return pb.SubscriptionSpan(
        plan_key=span.plan_key,
        plan_version=span.plan_version,
        phase_key=span.phase_key,
        start_time=to_timestamp(span.start_time),
        end_time=to_timestamp(span.end_time),
    )
