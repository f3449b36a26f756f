"""Lines of coupons: what they take off a period now, less what was taken off before."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal

from ammeter.domain.catalog import RateCard
from ammeter.domain.coupon import AttachedCoupon, Share, covers, describe, shares
from ammeter.domain.invoice import PLAN, BilledByPart, InvoiceLine, Kind, Slot
from ammeter.domain.money import add, subtract
from ammeter.domain.period import Period
from ammeter.domain.pricing import Detail
from ammeter.domain.subscription import Subscription

# By attached coupon and feature: what standing lines took off a period (so negative), by period.
Taken = Mapping[tuple[str, str, int], Decimal]
_NOTHING = Decimal(0)


def coupon_lines(
    sub: Subscription,
    slot: Slot,
    period: Period,
    costs: Mapping[str, Decimal],
    attached: Sequence[AttachedCoupon],
    taken: Taken,
    exponent: int,
) -> Iterator[InvoiceLine]:
    """Take coupons off what a period costs now, by feature; less what standing invoices took off.

    What a coupon took that does not hold for the period any more is charged back.
    """
    holding = [one for one in attached if covers(one, sub, period)]
    due = {
        (share.attached.attached_coupon_id, share.feature_key): share
        for share in shares(holding, costs, exponent)
    }
    known = {one.attached_coupon_id: one for one in attached}
    before = {
        (coupon, feature): amount
        for (coupon, feature, index), amount in taken.items()
        if index == period.index
    }
    order = {one.attached_coupon_id: place for place, one in enumerate(attached)}
    for key in sorted(due.keys() | before.keys(), key=lambda key: (order[key[0]], key[1])):
        coupon, feature = key
        share = due.get(key) or Share(known[coupon], feature, costs.get(feature, _NOTHING), _NOTHING)
        yield _line(sub, slot, period, share, before.get(key, _NOTHING))


def _line(sub: Subscription, slot: Slot, period: Period, share: Share, taken: Decimal) -> InvoiceLine:
    attached, coupon = share.attached, share.attached.coupon
    off = subtract(_NOTHING, share.amount)
    details = [Detail(describe(share), None, None, off)]
    if taken:
        details.append(Detail("taken off before", None, None, subtract(_NOTHING, taken)))
    return InvoiceLine(
        line_id=_line_id(sub, slot, period, share),
        kind=Kind.COUPON,
        rate_card_id=None,
        rate_card_key="",
        feature_key=share.feature_key,
        description=f"Coupon {coupon.name or coupon.coupon_key}",
        quantity=_NOTHING,
        unit_price=None,
        amount=add((off, subtract(_NOTHING, taken))),
        period_index=period.index,
        period_start_time=period.start,
        period_end_time=period.end,
        billed_amount=taken,
        details=tuple(details),
        coupon_key=coupon.coupon_key,
        attached_coupon_id=attached.attached_coupon_id,
    )


def _line_id(sub: Subscription, slot: Slot, period: Period, share: Share) -> str:
    """Name a line by what it takes off of what; away from the period's own invoice, by its carrier, too."""
    what = f"+coupon.{share.attached.attached_coupon_id}.{share.feature_key}"
    name = f"{sub.subscription_id}.{what}.{period.index}"
    own = slot.ordinal == 0 and slot.period.index == period.index
    return name if own else f"{name}.at.{slot.period.index}.{slot.ordinal}"


def costs_by_period(
    periods: Iterable[Period], lines: Sequence[InvoiceLine], billed: BilledByPart, cards: Iterable[RateCard]
) -> dict[int, dict[str, Decimal]]:
    """Add up what periods cost now, before coupons, by number and feature; what has none is under "".

    By these lines and what they follow, else by what is billed.
    """
    feature_of = {card.rate_card_id: card.feature_key for card in cards}
    costs = {key: one.amount for key, one in billed.items()}
    for line in lines:
        key = line.rate_card_id or PLAN, line.period_index, line.period_start_time
        costs[key] = add((line.amount, line.billed_amount))
    found: dict[int, dict[str, Decimal]] = {period.index: {} for period in periods}
    for (card, index, _), cost in costs.items():
        by_feature = found.setdefault(index, {})
        feature = feature_of.get(card, "")
        by_feature[feature] = add((by_feature.get(feature, _NOTHING), cost))
    return found
