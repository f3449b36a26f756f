"""Slices of a period: what is billed of its usage before it is over.

A slice is the price of all usage so far less what is billed already, each
rounded; so tiers, packages and free units stay cumulative, and slices add up
to what the whole would cost. Minima are due with the period's own invoice.
"""

from collections.abc import Iterable, Sequence
from decimal import Decimal

from ammeter.domain.catalog import RateCard
from ammeter.domain.invoice import OPENING, Billed, InvoiceLine, Kind, Slot, usage_line
from ammeter.domain.late import Head
from ammeter.domain.money import add, currency_exponent, subtract
from ammeter.domain.period import Period
from ammeter.domain.price import FlatPrice, VolumePrice
from ammeter.domain.pricing import Detail, Usage, rate
from ammeter.domain.subscription import Subscription

_FIRST = OPENING - 1


def is_slice(ordinal: int) -> bool:
    """Whether an invoice bills a slice: their ordinals are -2, -3, ... of the period."""
    return ordinal <= _FIRST


def next_slot(heads: Sequence[Head], period: Period) -> Slot:
    """Give the next slice's place in a period: that of a void one, if there is one."""
    taken = {head.slot.ordinal for head in heads if head.slot.period.index == period.index}
    ordinal = _FIRST
    while ordinal in taken:
        ordinal -= 1
    return Slot(period, ordinal)


def is_over(heads: Iterable[Head], period: Period) -> bool:
    """Whether the period's own invoice stands, so that a slice has nothing before it that is still due."""
    return any(head.slot.ordinal == 0 and head.slot.period.index == period.index for head in heads)


def can_be_split(card: RateCard) -> bool:
    """Whether a price can be billed before the period is over; a volume price may fall with more usage."""
    return card.price is not None and not isinstance(card.price, FlatPrice | VolumePrice)


def slice_line(
    sub: Subscription,
    card: RateCard,
    part: Period,
    usage: Usage,
    position: int,
    *,
    billed: Billed,
    carrier: Slot,
    last: bool,
) -> InvoiceLine:
    """Charge usage so far less what is billed of it; `last` if the period's own invoice stands already."""
    if card.price is None:
        message = f"rate card {card.rate_card_key} has no price"
        raise TypeError(message)
    exponent = currency_exponent(sub.currency)
    whole = usage_line(sub, card, part, usage, position, billed=billed, exponent=exponent)
    rated = rate(card.price, card.terms, usage, part, exponent, last=last)
    before = Detail("billed before", None, None, billed.amount.copy_negate())
    return whole._replace(
        line_id=f"{whole.line_id}.slice.{_FIRST - carrier.ordinal}",
        kind=Kind.SLICE,
        description=f"{whole.description}, so far",
        amount=subtract(rated.amount, billed.amount),
        details=(*rated.details, *([before] if billed.amount else ())),
    )


def amount_of(lines: Iterable[InvoiceLine]) -> Decimal:
    """Add a slice up, before taxes."""
    return add(line.amount for line in lines)
