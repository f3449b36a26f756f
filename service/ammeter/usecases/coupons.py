"""Create, archive, attach and detach coupons; take them off what periods cost."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal

from ammeter.domain.coupon import (
    MAX_ATTACHED,
    AttachedCoupon,
    Coupon,
    CouponDraft,
    check_from,
    check_to,
    make_coupon,
)
from ammeter.domain.coupon_line import Taken, coupon_lines
from ammeter.domain.customer import Customer
from ammeter.domain.invoice import InvoiceLine, Slot
from ammeter.domain.late import Repricing
from ammeter.domain.period import Period
from ammeter.domain.subscription import Subscription
from ammeter.errors import AlreadyExistsError, InternalError, NotFoundError, PreconditionError, invalid
from ammeter.store import clocks, customers
from ammeter.store import coupons as store
from ammeter.store.db import Tx
from ammeter.usecases.ids import new_id
from ammeter.usecases.subscribe import get_subscription


def create_coupon(tx: Tx, draft: CouponDraft, now: datetime) -> Coupon:
    """Add a coupon; raises InvalidInputError with all faults, AlreadyExistsError."""
    made = store.insert(tx, make_coupon(draft), now)
    if made is None:
        message = f"there is a coupon {draft.coupon_key!r} already: choose another key"
        raise AlreadyExistsError(message, field="coupon.coupon_key")
    return made


def get_coupon(tx: Tx, coupon_key: str, *, lock: bool = False) -> Coupon:
    """Read a coupon; raises NotFoundError."""
    found = None if "\0" in coupon_key else store.get(tx, coupon_key, lock=lock)
    if found is None:
        raise NotFoundError("coupon", coupon_key)
    return found


def archive_coupon(tx: Tx, coupon_key: str, now: datetime) -> Coupon:
    """Close a coupon for new attachments; an archived one stays as it is. Raises NotFoundError."""
    coupon = get_coupon(tx, coupon_key, lock=True)
    return coupon if coupon.archive_time else store.archive(tx, coupon, now)


def attach_coupon(
    tx: Tx, coupon_key: str, customer_key: str, subscription_id: str, from_time: datetime, now: datetime
) -> AttachedCoupon:
    """Attach a coupon to a customer or to a subscription.

    Raises NotFoundError, InvalidInputError, and PreconditionError for a coupon
    that is archived, in another currency, or there already.
    """
    if bool(customer_key) == bool(subscription_id):
        raise invalid("customer_key", "or subscription_id is needed, and not both: say what gets the coupon")
    start = check_from(from_time, now)
    coupon = get_coupon(tx, coupon_key, lock=True)
    customer = _hold(tx, customer_key, subscription_id)
    if coupon.archive_time is not None:
        raise PreconditionError(f"coupon {coupon_key!r} is archived: attach another", field="coupon_key")
    if coupon.currency not in {"", customer.currency}:
        raise PreconditionError(
            f"coupon {coupon_key!r} is in {coupon.currency}, the customer pays in {customer.currency}: "
            "attach another",
            field="coupon_key",
        )
    standing = [one for one in store.of_customer(tx, customer.customer_id) if one.to_time is None]
    if any(one.coupon == coupon and one.subscription_id == subscription_id for one in standing):
        raise PreconditionError(
            f"coupon {coupon_key!r} is attached there already: detach it first", field="coupon_key"
        )
    if len(standing) >= MAX_ATTACHED:
        raise PreconditionError(
            f"the customer has {MAX_ATTACHED} coupons attached already: detach one first",
            reason="LIMIT_EXCEEDED",
        )
    attached = AttachedCoupon(
        new_id("cpn", now),
        coupon,
        customer.customer_id,
        customer.customer_key,
        subscription_id,
        start,
        None,
        now,
    )
    store.attach(tx, attached)
    clocks.set_back(tx, customer.customer_id)
    return attached


def detach_coupon(tx: Tx, attached_coupon_id: str, to_time: datetime, now: datetime) -> AttachedCoupon:
    """End an attachment; one that has ended stays as it is. Raises NotFoundError, InvalidInputError."""
    attached = _find(tx, attached_coupon_id)
    customers.get_by_id(tx, attached.customer_id, lock=True)
    attached = _find(tx, attached_coupon_id)
    if attached.to_time is not None and attached.to_time <= now:
        return attached
    ended = store.detach(tx, attached, check_to(to_time, now))
    clocks.set_back(tx, attached.customer_id)
    return ended


def _find(tx: Tx, attached_coupon_id: str) -> AttachedCoupon:
    found = None if "\0" in attached_coupon_id else store.get_attached(tx, attached_coupon_id)
    if found is None:
        raise NotFoundError("attached coupon", attached_coupon_id)
    return found


def _hold(tx: Tx, customer_key: str, subscription_id: str) -> Customer:
    """Lock the customer, which whoever makes an invoice holds, too."""
    if subscription_id:
        customer_id = get_subscription(tx, subscription_id).customer_id
        found = customers.get_by_id(tx, customer_id, lock=True)
    else:
        found = None if "\0" in customer_key else customers.get(tx, customer_key, lock=True)
    if found is not None:
        return found
    if subscription_id:
        raise InternalError(f"customer of subscription {subscription_id} is gone")
    raise NotFoundError("customer", customer_key)


def backdated(attached: Iterable[AttachedCoupon]) -> list[Repricing]:
    """Say which periods must be looked at again, as a coupon was attached after they had ended."""
    return [Repricing(one.create_time, one.from_time) for one in attached if one.from_time < one.create_time]


def take_off(
    sub: Subscription,
    slot: Slot,
    periods: Iterable[Period],
    costs: Mapping[int, Mapping[str, Decimal]],
    attached: Iterable[AttachedCoupon],
    taken: Taken,
    exponent: int,
) -> list[InvoiceLine]:
    """Make the lines of coupons for the periods that an invoice is about; `costs` by period and feature."""
    mine = [one for one in attached if one.subscription_id in {"", sub.subscription_id}]
    by_index = {period.index: period for period in periods}
    if not mine:
        return []
    return [
        line
        for index, period in sorted(by_index.items())
        for line in coupon_lines(sub, slot, period, costs.get(index, {}), mine, taken, exponent)
    ]
