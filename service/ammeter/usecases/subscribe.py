"""Subscribe customers to plans, and end subscriptions."""

from dataclasses import replace
from datetime import datetime, timedelta

from ammeter.domain.cancellation import Timing, end_of_cancelled
from ammeter.domain.catalog import MeteredTemplate, Plan, RateCard, StaticTemplate
from ammeter.domain.entitlement import Entitlement, Kind
from ammeter.domain.minute import truncate
from ammeter.domain.subscription import Subscription
from ammeter.errors import InvalidInputError, NotFoundError, PreconditionError, Violation
from ammeter.store import catalog, customers, entitlements
from ammeter.store import subscriptions as store
from ammeter.store.db import Tx
from ammeter.usecases.customers import get_customer
from ammeter.usecases.ids import new_id
from ammeter.usecases.live import Live

_MAX_PAST = timedelta(days=35)
_MAX_AHEAD = timedelta(days=366)
# An anchor far away says nothing that a near one does not.
_MAX_ANCHOR = timedelta(days=3660)


def create_subscription(
    tx: Tx,
    live: Live,
    customer_key: str,
    plan_key: str,
    start_time: datetime | None,
    anchor_time: datetime | None,
    now: datetime,
) -> Subscription:
    """Subscribe a customer to a plan and grant the entitlements of its rate cards."""
    start = truncate(start_time or now)
    anchor = truncate(anchor_time or start)
    _check_times(start_time or now, start, anchor, now)
    customer = get_customer(tx, customer_key, lock=True)
    plan = _open_plan(tx, plan_key, customer.currency)
    subscription = Subscription(
        subscription_id=new_id("sub", now),
        customer_id=customer.customer_id,
        customer_key=customer.customer_key,
        plan_id=plan.plan_id,
        plan_key=plan.plan_key,
        start_time=start,
        end_time=None,
        anchor_time=anchor,
        time_zone=customer.time_zone,
        billing_cadence=plan.billing_cadence,
        currency=plan.currency,
        create_time=now,
    )
    _check_overlap(tx, subscription)
    store.insert(tx, subscription)
    _grant(tx, subscription, plan, now)
    tx.after_commit.append(lambda: live.refresh_customer(tx.tenant_id, customer.customer_id))
    return subscription


def _check_times(given: datetime, start: datetime, anchor: datetime, now: datetime) -> None:
    violations = []
    if not now - _MAX_PAST <= given <= now + _MAX_AHEAD:
        violations.append(Violation("start_time", "must be at most 35 days in the past or 1 year ahead"))
    if abs(anchor - start) > _MAX_ANCHOR:
        violations.append(Violation("anchor_time", "must be at most 10 years from start_time"))
    if violations:
        raise InvalidInputError(violations)


def _open_plan(tx: Tx, plan_key: str, currency: str) -> Plan:
    plan = None if "\0" in plan_key else catalog.lock_plan(tx, plan_key, shared=True)
    if plan is None:
        raise NotFoundError("plan", plan_key)
    if plan.state != "active":
        raise PreconditionError(f"plan {plan_key!r} is archived: subscribe to another")
    if plan.currency != currency:
        raise PreconditionError(
            f"plan {plan_key!r} is in {plan.currency}, the customer pays in {currency}: choose another"
        )
    return plan


def _check_overlap(tx: Tx, subscription: Subscription) -> None:
    if subscription.start_time == subscription.end_time:
        return
    found = store.overlaps(tx, subscription)
    if found:
        other, features = found[0]
        raise PreconditionError(
            f"subscription {other} gives {', '.join(features)} at that time: end it first, or start later",
            reason="FEATURE_OVERLAP",
        )
    by_hand = entitlements.by_hand_overlapping(tx, subscription)
    if by_hand:
        entitlement_id, feature = by_hand[0]
        raise PreconditionError(
            f"entitlement {entitlement_id}, made by hand, gives {feature} at that time: delete it first",
            reason="FEATURE_OVERLAP",
        )


def _grant(tx: Tx, subscription: Subscription, plan: Plan, now: datetime) -> None:
    granted = [
        _entitlement(subscription, card, now) for card in plan.rate_cards if card.entitlement is not None
    ]
    features = catalog.get_features(tx, [entitlement.feature_key for entitlement in granted])
    entitlements.insert(tx, granted, {key: feature.feature_id for key, feature in features.items()})


def _entitlement(subscription: Subscription, card: RateCard, now: datetime) -> Entitlement:
    template = card.entitlement
    metered = template if isinstance(template, MeteredTemplate) else None
    static = template if isinstance(template, StaticTemplate) else None
    return Entitlement(
        entitlement_id=new_id("ent", now),
        counter=0,
        customer_id=subscription.customer_id,
        customer_key=subscription.customer_key,
        feature_key=card.feature_key,
        subscription_id=subscription.subscription_id,
        kind=Kind.METERED if metered else Kind.STATIC if static else Kind.BOOLEAN,
        allowance=metered.allowance if metered else None,
        soft_limit=metered.soft_limit if metered else False,
        config=static.config if static else None,
        from_time=subscription.start_time,
        to_time=subscription.end_time,
    )


def get_subscription(tx: Tx, subscription_id: str) -> Subscription:
    """Read a subscription; raises NotFoundError."""
    subscription = None if "\0" in subscription_id else store.get(tx, subscription_id)
    if subscription is None:
        raise NotFoundError("subscription", subscription_id)
    return subscription


def cancel_subscription(
    tx: Tx, live: Live, subscription_id: str, timing: Timing, cancel_time: datetime | None, now: datetime
) -> Subscription:
    """End a subscription and its entitlements; one that has not ended yet may be ended sooner or later."""
    customer_id = get_subscription(tx, subscription_id).customer_id
    # The lock that subscribing takes: two changes of one customer come one after the other.
    customers.get_by_id(tx, customer_id, lock=True)
    subscription = get_subscription(tx, subscription_id)
    end = end_of_cancelled(subscription, timing, cancel_time, now)
    cancelled = replace(subscription, end_time=end, cancel_time=now)
    _check_overlap(tx, cancelled)
    store.set_end(tx, subscription_id, end, now)
    entitlements.set_end(tx, subscription_id, end)
    tx.after_commit.append(lambda: live.refresh_customer(tx.tenant_id, customer_id))
    return cancelled
