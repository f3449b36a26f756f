"""Subscribe customers to plans, and end subscriptions."""

from dataclasses import replace
from datetime import datetime, timedelta

from ammeter.domain.cancellation import Timing, end_of_cancelled
from ammeter.domain.catalog import Plan
from ammeter.domain.change import check_quantity
from ammeter.domain.minute import truncate
from ammeter.domain.spans import anchor_of, plan_spans
from ammeter.domain.subscription import Subscription
from ammeter.errors import InvalidInputError, NotFoundError, PreconditionError, Violation
from ammeter.store import catalog, customers
from ammeter.store import subscriptions as store
from ammeter.store.db import Tx
from ammeter.usecases.catalog import get_plan
from ammeter.usecases.customers import get_customer
from ammeter.usecases.ids import new_id
from ammeter.usecases.live import Live
from ammeter.usecases.provide import provide

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
    quantity: int = 1,
) -> Subscription:
    """Subscribe a customer to a plan and grant the entitlements of its rate cards."""
    start = truncate(start_time or now)
    _check_times(start_time or now, start, anchor_time, now)
    check_quantity(quantity)
    customer = get_customer(tx, customer_key, lock=True)
    plan = open_plan(tx, plan_key, customer.currency)
    spans = plan_spans(plan, start, customer.time_zone, quantity=quantity)
    subscription = Subscription(
        subscription_id=new_id("sub", now),
        customer_id=customer.customer_id,
        customer_key=customer.customer_key,
        plan_id=plan.plan_id,
        plan_key=plan.plan_key,
        start_time=start,
        end_time=None,
        anchor_time=truncate(anchor_time or anchor_of(plan, spans)),
        time_zone=customer.time_zone,
        billing_cadence=plan.billing_cadence,
        currency=plan.currency,
        create_time=now,
        spans=tuple(spans),
        update_time=now,
    )
    store.insert(tx, subscription)
    provide(tx, subscription, now)
    tx.after_commit.append(lambda: live.refresh_customer(tx.tenant_id, customer.customer_id))
    return subscription


def _check_times(given: datetime, start: datetime, anchor: datetime | None, now: datetime) -> None:
    violations = []
    if not now - _MAX_PAST <= given <= now + _MAX_AHEAD:
        violations.append(Violation("start_time", "must be at most 35 days in the past or 1 year ahead"))
    if anchor is not None and abs(truncate(anchor) - start) > _MAX_ANCHOR:
        violations.append(Violation("anchor_time", "must be at most 10 years from start_time"))
    if violations:
        raise InvalidInputError(violations)


def open_plan(tx: Tx, plan_key: str, currency: str) -> Plan:
    """Read the version of a plan that is open for subscription, and hold it.

    Raises NotFoundError; PreconditionError when there is none, or in another
    currency.
    """
    plan = None if "\0" in plan_key else catalog.lock_active(tx, plan_key)
    return check_open(plan or get_plan(tx, plan_key), plan_key, currency)


def check_open(plan: Plan, plan_key: str, currency: str) -> Plan:
    """Refuse a version that is not open, or in another currency; raises PreconditionError."""
    if plan.state != "active":
        closed = "archived: subscribe to another" if plan.state == "archived" else "a draft: publish it first"
        raise PreconditionError(f"plan {plan_key!r} is {closed}", field="plan_key")
    if plan.currency != currency:
        raise PreconditionError(
            f"plan {plan_key!r} is in {plan.currency}, the customer pays in {currency}: choose another",
            field="plan_key",
        )
    return plan


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
    cancelled = replace(subscription, end_time=end, cancel_time=now, update_time=now)
    store.set_end(tx, subscription_id, end, now)
    provide(tx, cancelled, now)
    tx.after_commit.append(lambda: live.refresh_customer(tx.tenant_id, customer_id))
    return cancelled
