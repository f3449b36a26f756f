"""Answer checks from memory: on the event loop, in microseconds."""

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from ammeter.domain.entitlement import Access, Reason, decide
from ammeter.domain.reservation import Key
from ammeter.errors import NotFoundError, PreconditionError, RetryableError
from ammeter.usecases.engine import Engine, EngineError, public
from ammeter.usecases.live import Live
from ammeter.usecases.memory import LiveCustomer, LiveEntitlement, LiveSpan

_POLL_SECONDS = 0.005
_RENEWALS = 2

_CUSTOMER_UNKNOWN = Access(access=False, reason=Reason.CUSTOMER_UNKNOWN)
_FEATURE_UNKNOWN = Access(access=False, reason=Reason.FEATURE_UNKNOWN)
_NOT_ENTITLED = Access(access=False, reason=Reason.NOT_ENTITLED)
_NOT_ACTIVE = Access(access=False, reason=Reason.ENTITLEMENT_NOT_ACTIVE)


class Check(NamedTuple):
    """May this customer, or the owner of this subject, use the feature? `amount` is a scaled int."""

    customer_key: str | None
    subject: str | None
    feature_key: str
    amount: int | None


class Lasting(NamedTuple):
    """What a check will be decided by in minutes [from, to), as long as nothing else changes."""

    customer_id: int
    right: LiveEntitlement
    from_minute: int
    to_minute: int


class PositionNotReachedError(PreconditionError, RetryableError):
    """min_position was not reached in time."""

    reason = "POSITION_NOT_REACHED"


class BehindError(Exception):
    """Memory does not know enough to answer: renew() and ask again."""

    def __init__(self, customer_id: int = 0, cause: EngineError | None = None) -> None:
        """Say whose counters are needed; 0: commits have to be caught up with."""
        super().__init__()
        self.customer_id = customer_id
        self.cause = cause


def check(live: Live, tenant_id: int, asked: Check, minute: int) -> Access:
    """Decide one check at a minute (since the epoch); raises BehindError, EngineError."""
    found = find(live, tenant_id, asked, minute)
    if isinstance(found, Access):
        return found
    customer, one = found
    if one.access is not None:
        return one.access
    engine, book = live.engine, live.book
    try:
        if one.burn is None and book.is_empty:
            # As below, while nobody holds anything: most checks, and many at a time.
            usage, start, end = engine.usage(tenant_id, one.counter, minute)
            if book.is_empty:
                left, period = one.allowance - usage, (start, end)
                return decide(left, usage, one.allowance, asked.amount, period, soft_limit=one.soft_limit)
        key = Key(tenant_id, customer.customer_id, asked.feature_key)
        left, usage, period, held = balance(live, key, one, minute)
    except EngineError as error:
        raise BehindError(customer.customer_id, error) from error
    return decide(left, usage, one.allowance, asked.amount, period, soft_limit=one.soft_limit, held=held)


def find(
    live: Live, tenant_id: int, asked: Check, minute: int
) -> tuple[LiveCustomer, LiveEntitlement] | Access:
    """Find the entitlement that decides at a minute, or why none does; raises BehindError."""
    if live.behind:
        raise BehindError
    customer = customer_of(live, tenant_id, asked, minute)
    if customer is None:
        return _CUSTOMER_UNKNOWN
    entitlements = customer.entitlements.get(asked.feature_key)
    if entitlements is None:
        return _NOT_ENTITLED if (tenant_id, asked.feature_key) in live.features else _FEATURE_UNKNOWN
    for one in entitlements:
        if one.from_minute <= minute < one.to_minute:
            return customer, one
    return _NOT_ACTIVE


def lasting(live: Live, tenant_id: int, asked: Check, minute: int) -> Lasting | None:
    """Say what a check is decided by: None where that is not a right, or more than an allowance."""
    if live.behind:
        return None
    found = find(live, tenant_id, asked, minute)
    if isinstance(found, Access) or found[1].burn is not None:
        return None
    customer, one = found
    first, last = one.from_minute, one.to_minute
    if asked.customer_key is None:
        span = _owning(live, tenant_id, asked.subject or "", minute)
        if span is None or span.customer_id != customer.customer_id:
            return None
        first, last = max(first, span.from_minute), min(last, span.to_minute)
    return Lasting(customer.customer_id, one, first, last)


def customer_of(live: Live, tenant_id: int, asked: Check, minute: int) -> LiveCustomer | None:
    """Find whom a check is about."""
    if asked.customer_key is not None:
        return live.customers.get((tenant_id, asked.customer_key))
    return _owner(live, tenant_id, asked.subject or "", minute)


class Balance(NamedTuple):
    """What is left of a metered entitlement before holds, the period's usage, its minutes, what is held."""

    left: int
    usage: int
    period: tuple[int, int]
    held: int


def balance(live: Live, key: Key, one: LiveEntitlement, minute: int) -> Balance:
    """Read a balance at one instant, on the event loop; raises EngineError.

    Usage is read before holds. If usage is just taking the place of a hold,
    both are read as of one position: neither twice nor not at all.
    """
    engine, book = live.engine, live.book
    while True:
        position = engine.position(key.tenant_id) if book.swapping(key) else None
        left, usage, period = left_at(engine, key.tenant_id, one, minute)
        if position is not None:
            held = book.held_at(key, position)
            if engine.position(key.tenant_id) == position:
                return Balance(left, usage, period, held)
        elif not book.swapping(key):
            return Balance(left, usage, period, book.held(key))


def left_at(
    engine: Engine, tenant_id: int, one: LiveEntitlement, minute: int
) -> tuple[int, int, tuple[int, int]]:
    """Read what is left at a minute before holds, and the period's usage and minutes; raises EngineError."""
    if one.burn is None:
        usage, start, end = engine.usage(tenant_id, one.counter, minute)
        return one.allowance - usage, usage, (start, end)
    left, usage, period = one.burn.left(engine, tenant_id, one.counter, minute)
    return left, usage, (period.start_minute, period.end_minute)


def features_of(live: Live, tenant_id: int, customer_key: str) -> list[str]:
    """List the features that a customer has or had an entitlement to; raises NotFoundError."""
    customer = live.customers.get((tenant_id, customer_key))
    if customer is None:
        raise NotFoundError("customer", customer_key)
    return sorted(customer.entitlements)


def _owner(live: Live, tenant_id: int, subject: str, minute: int) -> LiveCustomer | None:
    span = _owning(live, tenant_id, subject, minute)
    return None if span is None else live.by_id.get((tenant_id, span.customer_id))


def _owning(live: Live, tenant_id: int, subject: str, minute: int) -> LiveSpan | None:
    for span in reversed(live.spans(tenant_id, subject)):
        if span.from_minute <= minute < span.to_minute:
            return span
    return None


def renew(live: Live, tenant_id: int, behind: BehindError) -> None:
    """Bring memory up to what a check needs; in a worker thread."""
    if behind.customer_id:
        live.refresh_customer(tenant_id, behind.customer_id)
    else:
        live.catch_up()


def check_now(live: Live, tenant_id: int, asked: Check, minute: int) -> Access:
    """Decide one check, bringing memory up to it where needed; in a worker thread."""
    for _ in range(_RENEWALS):
        try:
            return check(live, tenant_id, asked, minute)
        except BehindError as behind:
            renew(live, tenant_id, behind)
    try:
        return check(live, tenant_id, asked, minute)
    except BehindError as behind:
        if behind.cause is None:
            raise
        raise public(behind.cause) from behind


async def wait_for_position(live: Live, tenant_id: int, min_position: int, wait_seconds: float) -> int:
    """Return the tenant's position once it is at least `min_position`; raises PositionNotReachedError."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + wait_seconds
    while (position := live.engine.position(tenant_id)) < min_position:
        if loop.time() >= deadline:
            raise PositionNotReachedError(
                f"position {min_position} is not reached, {position} is: try again", retry_seconds=0.1
            )
        await asyncio.sleep(_POLL_SECONDS)
    return position


async def check_all(
    live: Live, tenant_id: int, asked: Sequence[Check], min_position: int, minute: int, wait_seconds: float
) -> tuple[list[Access], int]:
    """Decide checks at one minute; returns the answers and the position that all of them reflect."""
    try:
        position = await wait_for_position(live, tenant_id, min_position, wait_seconds)
        for _ in range(_RENEWALS):
            try:
                return [check(live, tenant_id, one, minute) for one in asked], position
            except BehindError as behind:
                await asyncio.to_thread(renew, live, tenant_id, behind)
        return [check(live, tenant_id, one, minute) for one in asked], position
    except BehindError as behind:
        if behind.cause is None:
            raise
        raise public(behind.cause) from behind
    except EngineError as error:
        raise public(error) from error
