"""Coupons: what they take off a period, and which periods they hold for."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import NamedTuple

from ammeter.domain import keys
from ammeter.domain.minute import truncate
from ammeter.domain.money import add, currency_exponent, round_money, subtract
from ammeter.domain.period import Period, period_at
from ammeter.domain.price_form import Form
from ammeter.domain.quantity import decimal_text
from ammeter.domain.subscription import Subscription
from ammeter.errors import InvalidInputError, Violation

MAX_PERIODS = 1000
MAX_ATTACHED = 20
_NEAR = timedelta(days=366)
_FAR = timedelta(days=3653)
_NOTHING = Decimal(0)
_HUNDRED = 100


@dataclass(frozen=True)
class Coupon:
    """A share (0-100) or an amount off each of `period_count` periods; 0: of every one."""

    coupon_key: str
    name: str = ""
    percentage: Decimal | None = None
    amount: Decimal | None = None
    currency: str = ""
    period_count: int = 0
    coupon_id: int = 0
    create_time: datetime | None = None
    archive_time: datetime | None = None


@dataclass(frozen=True)
class CouponDraft:
    """A coupon as sent: numbers are text, empty where nothing was said."""

    coupon_key: str
    name: str = ""
    percentage: str = ""
    amount: str = ""
    currency: str = ""
    period_count: int = 0


@dataclass(frozen=True)
class AttachedCoupon:
    """A coupon on a subscription, or (without one) on all of a customer's, from a minute to another."""

    attached_coupon_id: str
    coupon: Coupon
    customer_id: int
    customer_key: str
    subscription_id: str
    from_time: datetime
    to_time: datetime | None
    create_time: datetime


class Share(NamedTuple):
    """What an attached coupon takes off a feature's cost in a period; `cost` is before it."""

    attached: AttachedCoupon
    feature_key: str
    cost: Decimal
    amount: Decimal


def make_coupon(draft: CouponDraft) -> Coupon:
    """Turn a draft into a coupon; raises InvalidInputError with every fault."""
    faults: list[Violation] = []
    form = Form("coupon", {"percentage": draft.percentage, "amount": draft.amount}, faults)
    faults += keys.catalog_key("coupon.coupon_key", draft.coupon_key)
    faults += keys.text("coupon.name", draft.name)
    percentage = form.percentage("percentage", zero=False) if draft.percentage else None
    amount = form.optional("amount", zero=False)
    if not draft.percentage and not draft.amount:
        form.fault("", "takes nothing off: give percentage or amount")
    if not 0 <= draft.period_count <= MAX_PERIODS:
        form.fault("period_count", f"must be 0-{MAX_PERIODS}: 1 is once, 0 for ever")
    faults += _check_currency(draft, amount)
    if faults:
        raise InvalidInputError(faults)
    return Coupon(draft.coupon_key, draft.name, percentage, amount, draft.currency, draft.period_count)


def _check_currency(draft: CouponDraft, amount: Decimal | None) -> Iterator[Violation]:
    field = "coupon.currency"
    if amount is None:
        if draft.currency:
            yield Violation(field, "is of an amount only: leave it out")
        return
    faults = keys.currency(field, draft.currency)
    yield from faults
    if not faults and round_money(amount, currency_exponent(draft.currency)) != amount:
        yield Violation(
            "coupon.amount", f"has more digits after the point than {draft.currency} has: round it"
        )


def check_from(time: datetime, now: datetime) -> datetime:
    """Return the minute from which a coupon is attached; raises InvalidInputError."""
    if abs(time - now) > _NEAR:
        raise InvalidInputError([Violation("from_time", "must be at most 366 days in the past or ahead")])
    return truncate(time)


def check_to(time: datetime, now: datetime) -> datetime:
    """Return the minute at which a coupon is detached; raises InvalidInputError."""
    if not truncate(now) <= time <= now + _FAR:
        raise InvalidInputError(
            [Violation("to_time", "must not lie in the past, nor more than 10 years ahead")]
        )
    return truncate(time)


def covers(attached: AttachedCoupon, sub: Subscription, period: Period) -> bool:
    """Whether a coupon takes something off a period: it is attached when the period ends, and not used up."""
    if attached.subscription_id not in {"", sub.subscription_id}:
        return False
    if attached.from_time >= period.end or (attached.to_time is not None and attached.to_time < period.end):
        return False
    if not attached.coupon.period_count:
        return True
    first = period_at(sub, max(attached.from_time, sub.start_time))
    return first is not None and period.index - first.index < attached.coupon.period_count


def shares(found: Sequence[AttachedCoupon], costs: Mapping[str, Decimal], exponent: int) -> tuple[Share, ...]:
    """Take coupons off a period's costs by feature, one after the other: each off what those before left.

    What a coupon takes off is reckoned of the whole, at most all of it, and
    spread over what features cost, so that the shares add up. What costs less
    than nothing bears no share, and makes the whole less.
    """
    left = dict(sorted(costs.items()))
    taken = []
    for attached in found:
        whole = max(add(left.values()), _NOTHING)
        off = _off(attached.coupon, whole, exponent)
        bearing = {feature: cost for feature, cost in left.items() if cost > 0}
        for feature, part in _spread(off, bearing, exponent).items():
            taken.append(Share(attached, feature, left[feature], part))
            left[feature] = subtract(left[feature], part)
    return tuple(taken)


def _off(coupon: Coupon, whole: Decimal, exponent: int) -> Decimal:
    if coupon.amount is not None:
        return min(coupon.amount, whole)
    return round_money(Fraction(whole) * Fraction(coupon.percentage or 0) / _HUNDRED, exponent)


def _spread(off: Decimal, costs: Mapping[str, Decimal], exponent: int) -> dict[str, Decimal]:
    """Divide an amount in proportion, in whole coins: the running sum is rounded, each part a difference."""
    whole = Fraction(add(costs.values()))
    so_far = before = round_money(_NOTHING, exponent)
    running = Fraction(0)
    parts = {}
    for feature, cost in costs.items():
        running += Fraction(cost)
        before, so_far = so_far, round_money(Fraction(off) * running / whole, exponent)
        parts[feature] = subtract(so_far, before)
    return parts


def describe(share: Share) -> str:
    """Say in a detail how a share came about."""
    coupon = share.attached.coupon
    if coupon.percentage is not None:
        return f"{decimal_text(coupon.percentage)} percent of {share.cost:f}"
    return f"{decimal_text(coupon.amount or _NOTHING)} off the period, its part of {share.cost:f}"
