"""What was agreed on with one customer beside the plan, and what it stands in the place of."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from ammeter.domain.add_on import NOTHING, beside
from ammeter.domain.catalog import Plan, RateCard
from ammeter.domain.entitlement import Entitlement
from ammeter.domain.price_override import PriceOverride
from ammeter.domain.spans import span_at
from ammeter.domain.subscription import Subscription
from ammeter.store import add_ons, catalog, entitlements, price_overrides
from ammeter.store.db import Tx


class Agreed(NamedTuple):
    """A price or an entitlement that holds now or will, and the rate card that would.

    The card is the one of now, or of when it begins; None where the
    subscription has none of that key then.
    """

    instead: PriceOverride | Entitlement
    card: RateCard | None


def agreed_on(tx: Tx, sub: Subscription, now: datetime) -> list[Agreed]:
    """List a subscription's overrides that have not ended: of prices, then of entitlements, each by creation.

    An entitlement made by hand is one if the subscription or an add-on of it
    would give the feature at that time.
    """
    courses = [sub, *beside(sub, add_ons.of_subscription(tx, sub.subscription_id))]
    plans = catalog.get_plans_by_id(tx, {span.plan_id for one in courses for span in one.course} - {NOTHING})
    prices = [one for one in price_overrides.of_subscription(tx, sub.subscription_id) if not one.is_void]
    found = [
        Agreed(one, _first(card for card in cards if card.rate_card_key == one.rate_card_key))
        for one in prices
        if (cards := _cards(courses, plans, one, now)) is not None
    ]
    for held in entitlements.by_hand(tx, sub.customer_id):
        given = _cards(courses, plans, held.entitlement, now) or ()
        feature_key = held.entitlement.feature_key
        card = _first(card for card in given if card.entitlement and card.feature_key == feature_key)
        if card is not None:
            found.append(Agreed(held.entitlement, card))
    return found


def _cards(
    courses: Sequence[Subscription],
    plans: Mapping[int, Plan],
    one: PriceOverride | Entitlement,
    now: datetime,
) -> list[RateCard] | None:
    """Give the rate cards of now, or of when one begins; None if that, or the subscription, has ended."""
    time = max(now, one.from_time, courses[0].start_time)
    ends = (one.to_time, courses[0].end_time)
    if any(end is not None and end <= time for end in ends):
        return None
    spans = [span_at(course.course, time) for course in courses]
    return [
        card for span in spans if span.plan_id in plans for card in plans[span.plan_id].cards_of(span.phase)
    ]


def _first(cards: Iterator[RateCard]) -> RateCard | None:
    return next(cards, None)
