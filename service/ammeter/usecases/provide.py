"""Make a customer's entitlements what its subscription's spans say."""

from collections.abc import Sequence
from datetime import datetime
from itertools import combinations
from typing import NamedTuple

from ammeter.domain.add_on import NOTHING, beside, no_plan, on_two, same_keys
from ammeter.domain.catalog import MeteredTemplate, Plan, StaticTemplate
from ammeter.domain.entitlement import AllowanceChange, Entitlement, Kind
from ammeter.domain.spans import Use, Wanted, entitled, shared, uses
from ammeter.domain.subscription import Subscription
from ammeter.errors import PreconditionError
from ammeter.store import add_ons, catalog, entitlements, rate_cards
from ammeter.store import subscriptions as store
from ammeter.store.db import Tx
from ammeter.usecases.ids import new_id

# What brings features to a subscription, in requests that do.
_ASKED = "plan_key"


class _Course(NamedTuple):
    """What has to be done to a subscription's entitlements, and the features that they give then."""

    fresh: list[Entitlement]
    goes_on: list[tuple[Entitlement, Entitlement]]
    never_comes: list[Entitlement]
    given: list[Use]


def provide(tx: Tx, subscription: Subscription, now: datetime) -> None:
    """Begin and end entitlements so that they are those of the subscription's spans, up to its end.

    Raises PreconditionError (FEATURE_OVERLAP) when the customer has one of
    its features otherwise. The caller holds the customer's row.
    """
    course = _compare(tx, subscription, now)
    for mine, made in course.goes_on:
        if (mine.to_time, mine.changes) != (made.to_time, made.changes):
            entitlements.set_course(tx, mine.entitlement_id, made.to_time, made.changes)
    for mine in course.never_comes:
        if mine.to_time != mine.from_time:
            entitlements.set_course(tx, mine.entitlement_id, mine.from_time)
    _check(tx, subscription, course)
    features = catalog.get_features(tx, [one.feature_key for one in course.fresh])
    entitlements.insert(tx, course.fresh, {key: feature.feature_id for key, feature in features.items()})


def check_overlap(tx: Tx, subscription: Subscription, now: datetime) -> None:
    """Raise what `provide` would, and write nothing."""
    _check(tx, subscription, _compare(tx, subscription, now))


def _compare(tx: Tx, subscription: Subscription, now: datetime) -> _Course:
    courses = courses_of(tx, subscription)
    plans = plans_of(tx, courses)
    _check_beside(courses, plans)
    there = entitlements.of_subscription(tx, subscription.subscription_id)
    kept = {(one.feature_key, one.from_time): one for one in there}
    found = _Course([], [], [], [])
    for one in [one for course in courses for one in entitled(course.stretches, plans)]:
        made = _entitlement(subscription, one, now)
        mine = kept.get((one.feature_key, one.start_time))
        if mine is None or not _same(mine, made):
            found.fresh.append(made)
        else:
            del kept[mine.feature_key, mine.from_time]
            found.goes_on.append((mine, made))
            if mine.delete_time is not None:
                continue
        found.given.append(Use(one.feature_key, one.start_time, one.end_time))
    found.never_comes.extend(kept.values())
    return found


def _check(tx: Tx, subscription: Subscription, course: _Course) -> None:
    _check_subscriptions(tx, subscription)
    _check_by_hand(tx, subscription, course.given)


def _same(mine: Entitlement, made: Entitlement) -> bool:
    return (mine.kind, mine.allowance, mine.soft_limit, mine.config) == (
        made.kind,
        made.allowance,
        made.soft_limit,
        made.config,
    )


def _entitlement(subscription: Subscription, wanted: Wanted, now: datetime) -> Entitlement:
    template = wanted.template
    metered = template if isinstance(template, MeteredTemplate) else None
    static = template if isinstance(template, StaticTemplate) else None
    return Entitlement(
        entitlement_id=new_id("ent", now),
        counter=0,
        customer_id=subscription.customer_id,
        customer_key=subscription.customer_key,
        feature_key=wanted.feature_key,
        subscription_id=subscription.subscription_id,
        kind=Kind.METERED if metered else Kind.STATIC if static else Kind.BOOLEAN,
        allowance=metered.allowance if metered else None,
        soft_limit=metered.soft_limit if metered else False,
        config=static.config if static else None,
        from_time=wanted.start_time,
        to_time=wanted.end_time,
        changes=tuple(AllowanceChange(time, one.allowance, one.soft_limit) for time, one in wanted.changes),
    )


def _check_beside(courses: Sequence[Subscription], plans: dict[int, Plan]) -> None:
    """Refuse add-ons whose lines could not be told from those of the plan, or from each other's."""
    if on_two(courses):
        raise PreconditionError(
            "the subscription is on that plan itself some time: attach another, or a new version",
            field=_ASKED,
        )
    both = same_keys(courses, plans)
    if both:
        raise PreconditionError(
            f"rate cards of the plan and of add-ons have the keys {', '.join(both)} at the same time: "
            "their lines must be told apart, make another plan",
            field=_ASKED,
        )


def courses_of(tx: Tx, subscription: Subscription) -> list[Subscription]:
    """Give a subscription's own course, and one for each plan that was added on."""
    return [subscription, *beside(subscription, add_ons.of_subscription(tx, subscription.subscription_id))]


def plans_of(tx: Tx, courses: Sequence[Subscription]) -> dict[int, Plan]:
    """Read the plans that courses are on; that of an add-on that is not there is empty."""
    ids = {span.plan_id for one in courses for span in one.course} - {NOTHING}
    return catalog.get_plans_by_id(tx, ids) | {NOTHING: no_plan(courses[0])}


def _check_subscriptions(tx: Tx, subscription: Subscription) -> None:
    """Refuse features that the customer has by another subscription at the same instant."""
    others = [
        one
        for one in store.of_customer(tx, subscription.customer_id)
        if one.subscription_id != subscription.subscription_id
    ]
    own = courses_of(tx, subscription)
    beside_it = {other.subscription_id: courses_of(tx, other) for other in others}
    every = [one for courses in (own, *beside_it.values()) for one in courses]
    features = rate_cards.features_by_phase(tx, {span.plan_id for one in every for span in one.course})
    for first, second in combinations(own, 2):
        both = shared(uses(first.stretches, features), uses(second.stretches, features))
        if both:
            raise PreconditionError(
                f"its plan and its add-ons both give {', '.join(both)} at that time: each feature once",
                reason="FEATURE_OVERLAP",
                field=_ASKED,
            )
    mine = [use for one in own for use in uses(one.stretches, features)]
    for other in others:
        theirs = [use for one in beside_it[other.subscription_id] for use in uses(one.stretches, features)]
        both = shared(mine, theirs)
        if both:
            raise PreconditionError(
                f"subscription {other.subscription_id} gives {', '.join(both)} at that time: "
                "end it first, or start later",
                reason="FEATURE_OVERLAP",
                field=_ASKED,
            )


def _check_by_hand(tx: Tx, subscription: Subscription, given: list[Use]) -> None:
    """Refuse features that the customer was given by hand at the same instant."""
    for held in entitlements.by_hand(tx, subscription.customer_id):
        mine = held.entitlement
        lasts = mine.from_time != mine.to_time
        if lasts and shared(given, [Use(mine.feature_key, mine.from_time, mine.to_time)]):
            raise PreconditionError(
                f"entitlement {mine.entitlement_id}, made by hand, gives {mine.feature_key} "
                "at that time: delete it first",
                reason="FEATURE_OVERLAP",
                field=_ASKED,
            )
