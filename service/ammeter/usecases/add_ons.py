"""Attach add-ons to subscriptions, and detach them."""

from datetime import datetime

from ammeter.domain.add_on import MAX_ADD_ONS, AddOn, check_fits, check_from, ended
from ammeter.domain.period import period_at
from ammeter.domain.subscription import Subscription
from ammeter.errors import NotFoundError, PreconditionError
from ammeter.store import add_ons as store
from ammeter.store import clocks
from ammeter.store.db import Tx
from ammeter.usecases.change import hold_subscription
from ammeter.usecases.ids import new_id
from ammeter.usecases.live import Live
from ammeter.usecases.provide import provide
from ammeter.usecases.subscribe import open_plan


def attach_add_on(
    tx: Tx,
    live: Live,
    subscription_id: str,
    plan_key: str,
    quantity: int,
    from_time: datetime | None,
    now: datetime,
) -> AddOn:
    """Put a plan's active version beside a subscription's own plan.

    Raises NotFoundError, InvalidInputError; PreconditionError after the end,
    for a plan that is no add-on of it, and where features or rate cards meet.
    """
    sub = hold_subscription(tx, subscription_id)
    if sub.end_time is not None and sub.end_time <= now:
        raise PreconditionError(f"subscription {subscription_id} has ended: nothing goes beside it any more")
    plan = open_plan(tx, plan_key, sub.currency)
    check_fits(sub, plan, quantity)
    around = period_at(sub, max(now, sub.start_time))
    start = check_from(from_time, around.start if around else sub.start_time, now)
    standing = [one for one in store.of_subscription(tx, subscription_id) if one.to_time is None]
    if len(standing) >= MAX_ADD_ONS:
        raise PreconditionError(
            f"subscription {subscription_id} has {MAX_ADD_ONS} add-ons: detach one first",
            reason="LIMIT_EXCEEDED",
        )
    made = AddOn(
        new_id("add", now),
        subscription_id,
        plan.plan_id,
        plan.plan_key,
        plan.version,
        quantity,
        start,
        None,
        now,
    )
    store.insert(tx, made)
    _follow(tx, live, sub, now)
    return made


def detach_add_on(tx: Tx, live: Live, add_on_id: str, to_time: datetime, now: datetime) -> AddOn:
    """End an add-on; one that has ended stays as it is. Raises NotFoundError, InvalidInputError."""
    sub = hold_subscription(tx, _find(tx, add_on_id).subscription_id)
    one = _find(tx, add_on_id)
    if one.to_time is not None and one.to_time <= now:
        return one
    done = ended(one, to_time, now)
    store.set_end(tx, done)
    _follow(tx, live, sub, now)
    return done


def _find(tx: Tx, add_on_id: str) -> AddOn:
    found = None if "\0" in add_on_id else store.get(tx, add_on_id)
    if found is None:
        raise NotFoundError("add-on", add_on_id)
    return found


def _follow(tx: Tx, live: Live, sub: Subscription, now: datetime) -> None:
    """Make entitlements follow, here and in memory, and have the subscription billed soon."""
    provide(tx, sub, now)
    clocks.set_back(tx, sub.customer_id)
    tx.after_commit.append(lambda: live.refresh_customer(tx.tenant_id, sub.customer_id))
