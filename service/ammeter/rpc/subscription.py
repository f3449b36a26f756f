"""SubscriptionService: customers on plans."""

from collections.abc import Iterator
from datetime import datetime

from ammeter.domain.cancellation import Timing
from ammeter.domain.period import period_at
from ammeter.domain.price_override import PriceOverride
from ammeter.domain.spans import Span, span_at
from ammeter.domain.subscription import Subscription
from ammeter.errors import invalid
from ammeter.rpc import paging
from ammeter.rpc.catalog import card_message
from ammeter.rpc.change_messages import read_when, read_wish
from ammeter.rpc.convert import from_timestamp, to_timestamp
from ammeter.rpc.entitlement_messages import entitlement_message
from ammeter.rpc.method import ADMIN, READ, Caller, Method
from ammeter.rpc.price_override import override_message
from ammeter.store import subscriptions as store
from ammeter.store.db import Database, Tx
from ammeter.usecases import change, subscribe
from ammeter.usecases.agreed import Agreed, agreed_on
from ammeter.usecases.customers import get_customer
from ammeter.usecases.live import Live
from ammeter.usecases.migrate import Migration, Progress, migrate_subscriptions
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

    def __init__(self, live: Live, db: Database) -> None:
        """Tell `live` what changes; `db` is for what takes many transactions."""
        self._live = live
        self._db = db

    def methods(self) -> list[Method]:
        """List the RPCs."""
        return [
            Method.write("CreateSubscription", ADMIN, self.create_subscription),
            Method.read("GetSubscription", READ, self.get_subscription),
            Method.read("ListSubscriptions", READ, self.list_subscriptions),
            Method.write("CancelSubscription", ADMIN, self.cancel_subscription),
            Method.write("ResumeSubscription", ADMIN, self.resume_subscription),
            Method.write("ChangeSubscription", ADMIN, self.change_subscription),
            Method.write("SetSubscriptionQuantity", ADMIN, self.set_quantity),
            Method.stream("MigrateSubscriptions", ADMIN, self.migrate),
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
            request.quantity if request.HasField("quantity") else 1,
        )
        return pb.CreateSubscriptionResponse(subscription=subscription_message(created, now))

    def get_subscription(
        self, tx: Tx, request: pb.GetSubscriptionRequest, now: datetime
    ) -> pb.GetSubscriptionResponse:
        """Read a subscription."""
        found = subscribe.get_subscription(tx, request.subscription_id)
        message = subscription_message(found, now)
        message.overrides.extend(map(_override_message, agreed_on(tx, found, now)))
        return pb.GetSubscriptionResponse(subscription=message)

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

    def resume_subscription(
        self, tx: Tx, request: pb.ResumeSubscriptionRequest, now: datetime
    ) -> pb.ResumeSubscriptionResponse:
        """Take a cancellation back."""
        resumed = change.resume_subscription(tx, self._live, request.subscription_id, now)
        return pb.ResumeSubscriptionResponse(subscription=subscription_message(resumed, now))

    def change_subscription(
        self, tx: Tx, request: pb.ChangeSubscriptionRequest, now: datetime
    ) -> pb.ChangeSubscriptionResponse:
        """Put a subscription on another plan."""
        changed = change.change_subscription(tx, self._live, request.subscription_id, read_wish(request), now)
        return pb.ChangeSubscriptionResponse(subscription=subscription_message(changed, now))

    def set_quantity(
        self, tx: Tx, request: pb.SetSubscriptionQuantityRequest, now: datetime
    ) -> pb.SetSubscriptionQuantityResponse:
        """Set what prices per seat are charged for."""
        when = read_when(request, Timing.NOW)
        changed = change.set_quantity(tx, self._live, request.subscription_id, request.quantity, when, now)
        return pb.SetSubscriptionQuantityResponse(subscription=subscription_message(changed, now))

    def migrate(
        self, caller: Caller, request: pb.MigrateSubscriptionsRequest, now: datetime
    ) -> Iterator[pb.MigrateSubscriptionsResponse]:
        """Put subscriptions on another version, one response each, and a last one."""
        wanted = Migration(
            request.plan_key,
            request.from_version,
            request.to_version,
            read_when(request, Timing.PERIOD_END),
            request.dry_run,
        )
        for step in migrate_subscriptions(self._db, self._live, caller.tenant_id, wanted, now):
            yield _migrated(step)


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
        quantity=here.quantity,
        update_time=to_timestamp(subscription.update_time),
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
        quantity=span.quantity,
    )


def _override_message(one: Agreed) -> pb.SubscriptionOverride:
    message = pb.SubscriptionOverride()
    if isinstance(one.instead, PriceOverride):
        message.price_override.CopyFrom(override_message(one.instead))
    else:
        message.entitlement.CopyFrom(entitlement_message(one.instead))
    if one.card is not None:
        message.rate_card.CopyFrom(card_message(one.card))
        message.plan_key, message.plan_version = one.card.plan_key, one.card.plan_version
    return message


def _migrated(step: Progress) -> pb.MigrateSubscriptionsResponse:
    message = pb.MigrateSubscriptionsResponse(
        done_count=step.done_count,
        total_count=step.total_count,
        moved_count=step.moved_count,
        problem_count=step.problem_count,
    )
    move = step.move
    if move is not None:
        message.subscription_id = move.subscription.subscription_id
        message.customer_key = move.subscription.customer_key
        message.from_version, message.to_version = move.from_version, move.to_version
        message.phase_key = move.phase_key
        message.problem, message.problem_reason = move.problem or ("", "")
        if move.change_time is not None:
            message.change_time.FromDatetime(move.change_time)
    return message
