"""Which parts of which periods an invoice bills by which rate card.

A period that plan, phase or quantity change in is billed part by part, each
by the rate cards that were in force in it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from ammeter.domain.card_cadence import has_own, own_parts
from ammeter.domain.catalog import Plan, RateCard
from ammeter.domain.invoice import OPENING, BilledByPart, Slot
from ammeter.domain.period import Period
from ammeter.domain.price import FlatPrice
from ammeter.domain.price_override import pieces
from ammeter.domain.spans import Span, parts_of, sameness
from ammeter.domain.subscription import Subscription


def flat_parts(
    sub: Subscription,
    slot: Slot,
    own: Sequence[Period],
    advance: Sequence[Period],
    plans: Mapping[int, Plan],
    billed: BilledByPart,
) -> Iterator[tuple[RateCard, Period, int]]:
    """Yield flat prices, the parts that the invoice in `slot` charges them for, and the seats.

    In advance only what begins with its period: a part that begins inside of
    one is due with the period's own invoice. What was billed in advance and
    does not come to pass, since something else is in its place, is a part of
    no length: its price is given back.
    """
    there = set()
    for period in own:
        for card, part, _, seats in _flat(sub, period, plans, by_start=False):
            if not card.in_advance:
                yield card, part, seats
    for period in advance:
        due = period.index <= slot.period.index and slot.ordinal != OPENING
        for card, part, begins, seats in _flat(sub, period, plans, by_start=True):
            if card.in_advance:
                there.add((card.rate_card_id, part.index, part.start))
                if due or begins:
                    yield card, part, seats
    cards = {card.rate_card_id: card for plan in plans.values() for card in plan.rate_cards}
    bounds = {period.index: period for period in advance}
    for key in sorted(billed.keys() - there):
        card_id, index, start = key
        if card_id in cards and cards[card_id].in_advance and index in bounds and billed[key].quantity:
            whole = bounds[index]
            inside = whole.inside or start > whole.start
            yield cards[card_id], replace(whole, start=start, end=start, inside=inside), 0


def usage_parts(
    sub: Subscription, periods: Sequence[Period], plans: Mapping[int, Plan]
) -> Iterator[tuple[RateCard, list[Period]]]:
    """Yield prices by usage, each with the parts of periods in which it is in force."""
    found: dict[tuple[int, str], tuple[RateCard, list[Period]]] = {}
    for period in periods:
        own = ((card, part) for card, _, part, _ in own_parts(sub, period, plans, by_start=False))
        usual = ((card, part) for card, part, _ in _parts(sub, period, plans, flat=False))
        for card, part in (*usual, *own):
            if card.price is None or isinstance(card.price, FlatPrice):
                continue
            for changed, piece in pieces(sub.price_overrides, card, part):
                key = changed.rate_card_id, changed.price_override_id
                found.setdefault(key, (changed, []))[1].append(piece)
    yield from found.values()


def _flat(
    sub: Subscription, period: Period, plans: Mapping[int, Plan], *, by_start: bool
) -> Iterator[tuple[RateCard, Period, bool, int]]:
    """Yield flat prices with what of them belongs to a period.

    Says whether it begins what it is a part of, and the seats.
    """
    for card, part, span in _parts(sub, period, plans, flat=True):
        yield from _pieces(sub, card, part, span, begins=not part.inside)
    for card, span, part, begins in own_parts(sub, period, plans, by_start=by_start):
        if isinstance(card.price, FlatPrice):
            yield from _pieces(sub, card, part, span, begins=begins)


def _pieces(
    sub: Subscription, card: RateCard, part: Period, span: Span, *, begins: bool
) -> Iterator[tuple[RateCard, Period, bool, int]]:
    """Cut a part where a price that was agreed on begins or ends; only the first piece begins the part."""
    for changed, piece in pieces(sub.price_overrides, card, part):
        yield changed, piece, begins and piece.start == part.start, span.quantity


def _parts(
    sub: Subscription, period: Period, plans: Mapping[int, Plan], *, flat: bool
) -> Iterator[tuple[RateCard, Period, Span]]:
    """Yield what follows the plan's periods: flat prices, or all others."""
    for span, part in parts_of(sub.course, period):
        for card in plans[span.plan_id].cards_of(span.phase):
            price = card.price
            if isinstance(price, FlatPrice) is not flat or has_own(card):
                continue
            if isinstance(price, FlatPrice) and price.per_seat:
                for one, piece in parts_of(sub.course, part, sameness(card)):
                    yield card, piece, one
            else:
                yield card, part, span
