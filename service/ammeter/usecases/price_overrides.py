"""Agree on other prices for a subscription, and end that."""

from datetime import datetime

from ammeter.domain.catalog import RateCard
from ammeter.domain.period import period_at
from ammeter.domain.price import LlmPrice
from ammeter.domain.price_override import (
    OverrideDraft,
    PriceOverride,
    check_span,
    end_of,
    make_override,
    overlapping,
)
from ammeter.domain.subscription import Subscription
from ammeter.errors import NotFoundError, PreconditionError, invalid
from ammeter.store import catalog, clocks, customers, meters, price_lists
from ammeter.store import price_overrides as store
from ammeter.store.db import Tx
from ammeter.usecases.ids import new_id
from ammeter.usecases.subscribe import get_subscription


def create_price_override(tx: Tx, draft: OverrideDraft, now: datetime) -> PriceOverride:
    """Put a price, or what is around it, in the place of a rate card's.

    Raises NotFoundError, InvalidInputError with all faults, PreconditionError
    while another override of the rate card holds, or after the end.
    """
    sub = _hold(tx, draft.subscription_id)
    if sub.end_time is not None and sub.end_time <= now:
        raise PreconditionError(f"subscription {sub.subscription_id} has ended: what is billed stays")
    cards = _cards(tx, sub, draft.rate_card_key, now)
    dimensions = {card.feature_key: _dimensions(tx, card) for card in cards if card.feature_key}
    price, given = make_override(draft, cards, dimensions, sub.currency)
    _check_price_list(tx, price if isinstance(price, LlmPrice) else None, sub.currency, cards)
    around = period_at(sub, max(now, sub.start_time))
    start, end = check_span(draft, around.start if around else sub.start_time, now)
    other = overlapping(store.of_subscription(tx, sub.subscription_id), draft.rate_card_key, start, end)
    if other is not None:
        raise PreconditionError(
            f"price override {other.price_override_id} of {draft.rate_card_key} holds at that time: "
            "end it first"
        )
    made = PriceOverride(
        new_id("pov", now),
        sub.subscription_id,
        draft.rate_card_key,
        start,
        end,
        price,
        given,
        draft.reason,
        now,
    )
    store.insert(tx, made)
    clocks.set_back(tx, sub.customer_id)
    return made


def end_price_override(tx: Tx, price_override_id: str, to_time: datetime, now: datetime) -> PriceOverride:
    """End an override; one that has ended stays as it is. Raises NotFoundError, InvalidInputError."""
    _hold(tx, _find(tx, price_override_id).subscription_id)
    one = _find(tx, price_override_id)
    if one.to_time is not None and one.to_time <= now:
        return one
    ended = end_of(one, to_time, now)
    store.set_end(tx, ended)
    return ended


def _find(tx: Tx, price_override_id: str) -> PriceOverride:
    found = None if "\0" in price_override_id else store.get(tx, price_override_id)
    if found is None:
        raise NotFoundError("price override", price_override_id)
    return found


def _hold(tx: Tx, subscription_id: str) -> Subscription:
    """Lock a subscription's customer, which whoever makes an invoice holds, too."""
    customers.get_by_id(tx, get_subscription(tx, subscription_id).customer_id, lock=True)
    return get_subscription(tx, subscription_id)


def _cards(tx: Tx, sub: Subscription, rate_card_key: str, now: datetime) -> list[RateCard]:
    """Find the rate cards of a key that the subscription is on, now and later."""
    plans = catalog.get_plans_by_id(tx, (span.plan_id for span in sub.course))
    return [
        card
        for span in sub.course
        if span.end_time is None or span.end_time > now
        for card in plans[span.plan_id].cards_of(span.phase)
        if card.rate_card_key == rate_card_key
    ]


def _dimensions(tx: Tx, card: RateCard) -> tuple[str, ...] | None:
    feature = catalog.get_feature(tx, card.feature_key)
    if feature is None or not feature.meter_key:
        return None
    return meters.get_meter(tx, feature.meter_key).dimensions


def _check_price_list(tx: Tx, price: LlmPrice | None, currency: str, cards: list[RateCard]) -> None:
    """Refuse a price list that is not there, or in another currency, or of what does not add up."""
    if price is None:
        return
    field = "price_override.price.llm.price_list_key"
    theirs = price_lists.currencies(tx, [price.price_list_key]).get(price.price_list_key)
    if theirs != currency:
        raise invalid(field, f"names no price list in {currency}: create it first, or mend the key")
    if not all(isinstance(card.price, LlmPrice) for card in cards):
        raise invalid(
            "price_override.price.llm", "goes only where the rate card's price is from a price list, too"
        )
