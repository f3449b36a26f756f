"""What is stored about the subscriptions of some invoices: read at once, in a few statements for all."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import NamedTuple

from ammeter.domain.add_on import NOTHING, AddOn, beside, no_plan
from ammeter.domain.catalog import Feature, Plan, RateCard
from ammeter.domain.coupon import AttachedCoupon
from ammeter.domain.invoice import PLAN, Slot
from ammeter.domain.late import MARGIN, Head, Repricing
from ammeter.domain.meter import Meter
from ammeter.domain.price import FlatPrice, LlmPrice, Price
from ammeter.domain.price_list import Book
from ammeter.domain.price_override import PriceOverride
from ammeter.domain.subscription import Subscription
from ammeter.errors import InternalError
from ammeter.store import add_ons, catalog, coupons, customers, meters, price_overrides, rate_cards, standing
from ammeter.store.db import Tx
from ammeter.store.standing import History, Past
from ammeter.usecases.price_lists import Listed, Shelf, listed, repricings


class Job(NamedTuple):
    """An invoice to be computed: its place, and what its subscription has so far.

    `redone` is the invoice whose lines the new ones will replace: it counts as
    not billed.
    """

    sub: Subscription
    slot: Slot
    past: History
    redone: str = ""

    @property
    def others(self) -> list[Head]:
        """The standing invoices beside it."""
        return [head for head in self.past.heads if head.invoice_id != self.redone]


@dataclass
class Known:
    """Add-ons and prices agreed on by subscription, coupons by customer, the rest by key or number."""

    subjects_times: Mapping[int, datetime]
    add_ons: Mapping[str, Sequence[AddOn]]
    overrides: Mapping[str, tuple[PriceOverride, ...]]
    coupons: Mapping[int, Sequence[AttachedCoupon]]
    taken_back: Mapping[str, frozenset[int]]
    plans: dict[int, Plan] = field(default_factory=dict)
    superseded: dict[int, Plan] = field(default_factory=dict)
    features: Mapping[str, Feature] = field(default_factory=dict)
    meters: Mapping[str, Meter] = field(default_factory=dict)
    books: Mapping[Listed, Book] = field(default_factory=dict)
    repricings: Mapping[Listed, Sequence[Repricing]] = field(default_factory=dict)

    def subscription(self, sub: Subscription) -> Subscription:
        """Tell a subscription the prices that were agreed on for it."""
        agreed = self.overrides.get(sub.subscription_id)
        return replace(sub, price_overrides=agreed) if agreed else sub

    def courses(self, sub: Subscription) -> list[Subscription]:
        """Give a subscription's own course, and one for each plan that was added on."""
        added = self.add_ons.get(sub.subscription_id)
        return [sub, *beside(sub, added)] if added else [sub]

    def plans_of(self, courses: Sequence[Subscription]) -> dict[int, Plan]:
        """Give the plans that courses are on; that of an add-on that is not there is empty."""
        ids = dict.fromkeys(span.plan_id for one in courses for span in one.course)  # in that order
        return {key: no_plan(courses[0]) if key == NOTHING else self.plans[key] for key in ids}

    def metered(self, card: RateCard) -> tuple[Feature, int]:
        """Give a rate card's feature and what its meter is served by; raises PreconditionError."""
        feature = self.features.get(card.feature_key)
        if feature is None or not feature.meter_key:
            raise InternalError(f"rate card {card.rate_card_key} is priced by usage but has no meter")
        return feature, meters.served_revision(self.meters[feature.meter_key])

    def book(self, price: LlmPrice) -> Book:
        """Give what a rate card's list says of its token type."""
        return self.books[price.price_list_key, price.token_type]


def read_known(tx: Tx, shelf: Shelf, jobs: Sequence[Job]) -> Known:
    """Read what the invoices' lines follow from."""
    ids = {job.sub.subscription_id for job in jobs}
    owners = {job.sub.customer_id for job in jobs}
    undone = {void.invoice_id for job in jobs for void in job.past.voids}
    undone |= {job.redone for job in jobs if job.redone}
    known = Known(
        customers.subjects_times(tx, owners),
        add_ons.of_subscriptions(tx, ids),
        price_overrides.of_subscriptions(tx, ids),
        coupons.of_customers(tx, owners),
        standing.taken_back(tx, undone),
    )
    courses = [one for job in jobs for one in known.courses(job.sub)]
    wanted = {span.plan_id for one in courses for span in one.course} - {NOTHING}
    known.plans = catalog.get_plans_by_id(tx, wanted)
    cards = [card for plan in known.plans.values() for card in plan.rate_cards]
    by_usage = {card.feature_key for card in cards if card.price and not isinstance(card.price, FlatPrice)}
    if by_usage:
        known.features = catalog.get_features(tx, by_usage)
        named = {feature.meter_key for feature in known.features.values() if feature.meter_key}
        known.meters = meters.get_meters(tx, named)
    _read_lists(tx, shelf, known, cards, jobs)
    return known


def _read_lists(tx: Tx, shelf: Shelf, known: Known, cards: Iterable[RateCard], jobs: Sequence[Job]) -> None:
    agreed = (one.price for each in known.overrides.values() for one in each)
    used = listed([*(card.price for card in cards), *agreed])
    known.books = {one: shelf.book(tx, one) for one in used}
    computed = [head.computed_time for job in jobs for head in job.others]
    if used and computed:
        # More than a later invoice needs: what was written before it was computed changes nothing.
        known.repricings = repricings(tx, used, min(computed) - MARGIN)


def read_superseded(tx: Tx, known: Known, pasts: Iterable[Past]) -> None:
    """Read the plans that something was billed by and that no subscription here is on any more."""
    there = {card.rate_card_id for plan in known.plans.values() for card in plan.rate_cards}
    billed = {card for past in pasts for card, *_ in past.billed} - {PLAN}
    if others := rate_cards.plans_of_cards(tx, billed - there):
        known.superseded = catalog.get_plans_by_id(tx, others)


def superseded_of(known: Known, plans: Mapping[int, Plan], past: Past) -> dict[int, Plan]:
    """Give the plans beside its own that something was billed by, of one subscription."""
    if not past.billed:
        return {}
    billed = {card for card, *_ in past.billed}
    every = {**known.plans, **known.superseded}
    return {
        key: plan
        for key, plan in every.items()
        if key not in plans and any(card.rate_card_id in billed for card in plan.rate_cards)
    }


def prices_of(plans: Mapping[int, Plan], sub: Subscription) -> list[Price | None]:
    """List the prices that a subscription is on."""
    own = [card.price for plan in plans.values() for card in plan.rate_cards]
    return [*own, *(one.price for one in sub.price_overrides)]
