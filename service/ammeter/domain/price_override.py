"""Other prices for one subscription: what takes the place of a rate card's, and when."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

from ammeter.domain import keys
from ammeter.domain.catalog import RateCard
from ammeter.domain.minute import truncate
from ammeter.domain.period import Period
from ammeter.domain.price import Commitments, Discounts, FlatPrice, Price, Terms, UnitConversion
from ammeter.domain.price_form import KINDS, form_of
from ammeter.domain.price_rules import make_price, make_terms
from ammeter.errors import InvalidInputError, Violation

PARTS = ("unit_conversion", "discounts", "commitments")
_AHEAD = timedelta(days=366)
_FAR = timedelta(days=3653)
_PATH = "price_override"

# Given parts by name; None takes the rate card's away.
Given = Mapping[str, UnitConversion | Discounts | Commitments | None]


@dataclass(frozen=True)
class OverrideDraft:
    """An override as sent: trees of text as of rate cards; times are read."""

    subscription_id: str
    rate_card_key: str
    from_time: datetime | None
    to_time: datetime | None
    price_kind: str
    price: Mapping[str, Any]
    terms: Mapping[str, Any]
    reason: str = ""


@dataclass(frozen=True)
class PriceOverride:
    """Over [from_time, to_time) a price (None: the rate card's) and parts of the terms around it."""

    price_override_id: str
    subscription_id: str
    rate_card_key: str
    from_time: datetime
    to_time: datetime | None
    price: Price | None
    given: Given
    reason: str
    create_time: datetime

    @property
    def is_void(self) -> bool:
        """Whether it ended as it began, and so never holds."""
        return self.to_time is not None and self.to_time <= self.from_time


def terms_with(terms: Terms, given: Given) -> Terms:
    """Put given parts in the place of a rate card's."""
    changed: dict[str, Any] = dict(given)
    return replace(terms, **changed)


def pieces(
    overrides: Iterable[PriceOverride], card: RateCard, part: Period
) -> Iterator[tuple[RateCard, Period]]:
    """Cut a part of a period where overrides of a rate card begin and end; each piece with what holds in it.

    What is charged once, or has no length, is one piece: by what holds as it begins.
    """
    mine = [
        one
        for one in overrides
        if one.rate_card_key == card.rate_card_key
        and not one.is_void
        and one.from_time < max(part.end, part.start + timedelta(minutes=1))
        and (one.to_time is None or one.to_time > part.start)
    ]
    if not mine:
        yield card, part
        return
    cuts = {one.from_time for one in mine} | {one.to_time for one in mine if one.to_time is not None}
    inner = () if card.one_time else sorted(time for time in cuts if part.start < time < part.end)
    for start, end in pairwise((part.start, *inner, part.end)):
        holding = next((one for one in mine if _holds(one, start)), None)
        inside = part.inside or start > part.start
        yield _changed(card, holding), replace(part, start=start, end=end, inside=inside)


def _holds(one: PriceOverride, time: datetime) -> bool:
    return one.from_time <= time and (one.to_time is None or time < one.to_time)


def _changed(card: RateCard, one: PriceOverride | None) -> RateCard:
    if one is None:
        return card
    return replace(
        card,
        price=one.price or card.price,
        terms=terms_with(card.terms, one.given),
        price_override_id=one.price_override_id,
    )


def make_override(
    draft: OverrideDraft,
    cards: Sequence[RateCard],
    dimensions: Mapping[str, Sequence[str] | None],
    currency: str,
) -> tuple[Price | None, Given]:
    """Read the price and terms of an override and check them with each rate card that it is of.

    `dimensions` are those of the meters of the rate cards' features. Raises InvalidInputError.
    """
    faults: list[Violation] = [*keys.text(f"{_PATH}.reason", draft.reason)]
    if not cards:
        why = "names no rate card of what the subscription is on, now or later: see its plan"
        faults.append(Violation(f"{_PATH}.rate_card_key", why))
    if not draft.price_kind and not draft.terms:
        faults.append(Violation(f"{_PATH}.price", "or what is around it is needed: say what changes"))
    if draft.price_kind and draft.price_kind not in KINDS:
        faults.append(Violation(f"{_PATH}.price", f"must be one of {', '.join(KINDS)}"))
        raise InvalidInputError(faults)
    price, given = None, _given(draft.terms)
    for card in cards:
        own: list[Violation] = []
        if card.price is None:
            own.append(Violation(f"{_PATH}.rate_card_key", "names a rate card that charges nothing"))
        known = dimensions.get(card.feature_key)
        if draft.price_kind:
            price = make_price(f"{_PATH}.price", draft.price_kind, draft.price, currency, known, own)
            own += _check_kind(price, card)
        merged = {name: part for name, part in form_of(card.terms).items() if name not in draft.terms}
        merged |= {name: part for name, part in draft.terms.items() if part}
        terms = make_terms(_PATH, merged, price or card.price, currency, own)
        given = {name: getattr(terms, name) for name in draft.terms}
        faults += [one for one in own if one not in faults]
    if faults:
        raise InvalidInputError(faults)
    return price, given


def _check_kind(price: Price, card: RateCard) -> Iterator[Violation]:
    """Refuse what would be measured, cut or billed in another way than the rate card's price."""
    if isinstance(price, FlatPrice) and isinstance(card.price, FlatPrice):
        if price.per_seat != card.price.per_seat:
            why = "must be that of the rate card: by the seat or not"
            yield Violation(f"{_PATH}.price.flat.per_seat", why)
    elif isinstance(price, FlatPrice) or isinstance(card.price, FlatPrice):
        kind = "flat" if isinstance(card.price, FlatPrice) else "by usage"
        yield Violation(f"{_PATH}.price", f"must be {kind}, as that of the rate card is")


def _given(terms: Mapping[str, Any]) -> Given:
    return dict.fromkeys(terms)


def check_span(draft: OverrideDraft, earliest: datetime, now: datetime) -> tuple[datetime, datetime | None]:
    """Return from when and until when an override holds; raises InvalidInputError."""
    start = truncate(draft.from_time or max(now, earliest))
    faults = []
    if not earliest <= start <= now + _AHEAD:
        why = "must not lie before the present billing period, nor more than 366 days ahead"
        faults.append(Violation(f"{_PATH}.from_time", why))
    end = None if draft.to_time is None else truncate(draft.to_time)
    if end is not None and not start < end <= now + _FAR:
        faults.append(Violation(f"{_PATH}.to_time", "must lie after from_time, at most 10 years ahead"))
    if faults:
        raise InvalidInputError(faults)
    return start, end


def end_of(one: PriceOverride, time: datetime, now: datetime) -> PriceOverride:
    """End an override at a minute; before it begins, it never holds. Raises InvalidInputError."""
    if not truncate(now) <= time <= now + _FAR:
        raise InvalidInputError(
            [Violation("to_time", "must not lie in the past, nor more than 10 years ahead")]
        )
    return replace(one, to_time=max(truncate(time), one.from_time))


def overlapping(
    others: Iterable[PriceOverride], rate_card_key: str, start: datetime, end: datetime | None
) -> PriceOverride | None:
    """Find an override of the same rate card that holds at an instant of [start, end)."""
    for one in others:
        meets = (end is None or one.from_time < end) and (one.to_time is None or start < one.to_time)
        if one.rate_card_key == rate_card_key and not one.is_void and meets:
            return one
    return None
