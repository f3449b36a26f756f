"""Change what a subscription is on: another plan, another quantity, no end any more."""

from dataclasses import replace
from datetime import datetime
from typing import NamedTuple

from ammeter.domain.cancellation import Timing
from ammeter.domain.catalog import Plan
from ammeter.domain.change import check_quantity, on_plan, time_of_change, with_quantity
from ammeter.domain.spans import phase_named, span_at
from ammeter.domain.subscription import Subscription
from ammeter.errors import InvalidInputError, PreconditionError, Violation, invalid
from ammeter.store import customers
from ammeter.store import subscriptions as store
from ammeter.store.db import Tx
from ammeter.usecases.catalog import get_plan
from ammeter.usecases.live import Live
from ammeter.usecases.provide import check_overlap, provide
from ammeter.usecases.subscribe import check_open, get_subscription, open_plan


class When(NamedTuple):
    """When a change takes effect; `time` goes with AT_TIME."""

    timing: Timing = Timing.NOW
    time: datetime | None = None


NOW = When()


class Wish(NamedTuple):
    """What a subscription is to be put on; empty: the first phase, the quantity that it has."""

    plan_key: str
    phase_key: str = ""
    quantity: int | None = None
    when: When = NOW


def hold_subscription(tx: Tx, subscription_id: str) -> Subscription:
    """Lock a subscription's customer and read it as it is now; raises NotFoundError."""
    customer_id = get_subscription(tx, subscription_id).customer_id
    # The lock that subscribing takes: two changes of one customer come one after the other.
    customers.get_by_id(tx, customer_id, lock=True)
    return get_subscription(tx, subscription_id)


def change_subscription(tx: Tx, live: Live, subscription_id: str, wish: Wish, now: datetime) -> Subscription:
    """Put a subscription on a plan's active version.

    Raises NotFoundError, InvalidInputError; PreconditionError when it has
    ended, when nothing would change, for another currency or cadence, and for
    features that the customer has otherwise then.
    """
    subscription = hold_subscription(tx, subscription_id)
    plan = open_plan(tx, wish.plan_key, subscription.currency)
    return put_course(tx, live, wished(subscription, plan, wish, now), now)


def imagined(tx: Tx, subscription: Subscription, wish: Wish, now: datetime) -> Subscription:
    """Say what a subscription would be if a wish were granted: writes nothing, raises what granting it would.

    Without a plan_key only the quantity is another.
    """
    try:
        changed = _imagined(tx, subscription, wish, now)
        check_overlap(tx, changed, now)
    except InvalidInputError as error:
        violations = [Violation(f"change.{field}", why) for field, why in error.violations]
        raise InvalidInputError(violations) from error
    except PreconditionError as error:
        error.field = error.field and f"change.{error.field}"
        raise
    return changed


def _imagined(tx: Tx, subscription: Subscription, wish: Wish, now: datetime) -> Subscription:
    if wish.plan_key:
        plan = check_open(get_plan(tx, wish.plan_key), wish.plan_key, subscription.currency)
        return wished(subscription, plan, wish, now)
    if wish.quantity is None or wish.phase_key:
        raise invalid("plan_key", "is needed: say the plan, or leave it and give but a quantity")
    check_quantity(wish.quantity)
    return with_quantity(subscription, wish.quantity, time_of_change(subscription, *wish.when, now))


def wished(subscription: Subscription, plan: Plan, wish: Wish, now: datetime) -> Subscription:
    """Say what a subscription would be after a change; nothing is written."""
    time = time_of_change(subscription, *wish.when, now)
    phase = phase_named(plan, wish.phase_key) if wish.phase_key else 0
    if phase is None:
        keys = ", ".join(one.phase_key for one in plan.phases if one.phase_key) or "none"
        raise invalid("phase_key", f"names no phase of plan {plan.plan_key!r}: it has {keys}")
    quantity = wish.quantity
    if quantity is None:
        quantity = span_at(subscription.course, time).quantity
    check_quantity(quantity)
    return on_plan(subscription, plan, phase, quantity, time)


def set_quantity(
    tx: Tx, live: Live, subscription_id: str, quantity: int, when: When, now: datetime
) -> Subscription:
    """Set the quantity of a subscription from a time on; one that it has stays as it is.

    Raises as change_subscription.
    """
    check_quantity(quantity)
    subscription = hold_subscription(tx, subscription_id)
    time = time_of_change(subscription, *when, now)
    changed = with_quantity(subscription, quantity, time)
    return subscription if changed.spans == subscription.spans else put_course(tx, live, changed, now)


def resume_subscription(tx: Tx, live: Live, subscription_id: str, now: datetime) -> Subscription:
    """Take back a cancellation whose time has not come.

    Raises NotFoundError; PreconditionError when there is none, and for
    features that the customer has otherwise after it.
    """
    subscription = hold_subscription(tx, subscription_id)
    if subscription.end_time is None:
        raise PreconditionError(
            f"subscription {subscription_id} is not cancelled: there is nothing to resume",
            field="subscription_id",
        )
    if subscription.end_time <= now:
        message = f"subscription {subscription_id} has ended: subscribe anew"
        raise PreconditionError(message, field="subscription_id")
    resumed = replace(subscription, end_time=None, cancel_time=None, update_time=now)
    store.take_back_end(tx, subscription_id, now)
    try:
        provide(tx, resumed, now)
    except PreconditionError as error:
        error.field = "subscription_id"
        raise
    tx.after_commit.append(lambda: live.refresh_customer(tx.tenant_id, subscription.customer_id))
    return resumed


def put_course(tx: Tx, live: Live, changed: Subscription, now: datetime) -> Subscription:
    """Write a subscription's spans, and make its entitlements follow them."""
    store.set_spans(tx, changed, now)
    provide(tx, changed, now)
    tx.after_commit.append(lambda: live.refresh_customer(tx.tenant_id, changed.customer_id))
    return replace(changed, update_time=now)
