"""Reservations: what is held of a balance for work in flight, and what may become of it.

Amounts are ints scaled by 10**12.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

from ammeter.errors import ConflictError, PreconditionError

MAX_LIFETIME = timedelta(hours=24)
DEFAULT_LIFETIME = timedelta(minutes=1)


class State(StrEnum):
    """What became of a reservation; EXPIRED is told by the clock and never stored."""

    HELD = "held"
    SETTLED = "settled"
    RELEASED = "released"
    EXPIRED = "expired"


class Key(NamedTuple):
    """What is held against: a customer's right to a feature, whichever entitlement gives it."""

    tenant_id: int
    customer_id: int
    feature_key: str


@dataclass(frozen=True, slots=True)
class Reservation:
    """A hold on a balance.

    `granted` is all that was ever granted, `held` what is held since the last
    change, `settled` what was used of it. Until `expire_time` its holder may
    use it; until `hold_time` it counts against the balance, settled or not.
    `version` grows with every change, `generation` with every renewal of a
    lease. `late`: it was settled after it no longer counted.
    """

    reservation_id: str
    key: Key
    customer_key: str
    subject: str
    lease: bool
    wanted: int
    granted: int
    held: int
    settled: int
    state: State
    create_time: datetime
    expire_time: datetime
    hold_time: datetime
    end_time: datetime | None = None
    generation: int = 1
    version: int = 1
    late: bool = False

    def state_at(self, now: datetime) -> State:
        """Tell its state by the clock."""
        return State.EXPIRED if self.state is State.HELD and now >= self.expire_time else self.state

    def held_at(self, now: datetime) -> int:
        """Tell what counts against the balance by the clock."""
        return self.held if self.state is State.HELD and now < self.hold_time else 0


class Standing(NamedTuple):
    """Where a customer stands with a feature: `left` is before holds, and below zero overage.

    `period_end` is when the balance is reset next, the ends of time if never.
    """

    left: int
    held: int
    soft_limit: bool
    period_end: datetime

    @property
    def free(self) -> int:
        """What is neither used nor held."""
        return self.left - self.held


class Wish(NamedTuple):
    """What somebody wants held: `amount`, or at least `minimum` where less will do."""

    amount: int
    minimum: int | None
    lifetime: timedelta
    lease: bool


def grantable(standing: Standing, wish: Wish) -> int:
    """Say how much may be held; 0: nothing.

    A hard limit gives what is free and not a digit more. A soft limit always
    gives; but a lease ends where the allowance ends, so that its holder knows
    which use is within and which is beyond.
    """
    free = standing.free
    if wish.amount <= free:
        return wish.amount
    if standing.soft_limit:
        return free if wish.lease and free > 0 else wish.amount
    least = wish.amount if wish.minimum is None else wish.minimum
    return free if free >= least else 0


def bounds(standing: Standing, wish: Wish, now: datetime) -> tuple[datetime, datetime]:
    """Say until when the holder may use what is granted, and until when it counts.

    A lease lasts no longer than the period whose balance it is a slice of. On
    a hard limit it counts up to the end of that, settled or not: what its
    holder used is known to nobody else.
    """
    expire = now + wish.lifetime
    if not wish.lease:
        return expire, expire
    expire = min(expire, standing.period_end)
    return expire, expire if standing.soft_limit else standing.period_end


def extended(mine: Reservation, lifetime: timedelta, now: datetime, *, expired: bool) -> Reservation:
    """Let it expire later: so long after now, and never sooner than it would."""
    if mine.lease:
        message = f"{mine.reservation_id} is a lease: renew it instead"
        raise PreconditionError(message)
    _require_held(mine, "extended", expired=expired)
    expire = max(mine.expire_time, now + lifetime)
    return replace(mine, expire_time=expire, hold_time=expire, version=mine.version + 1)


def settled(mine: Reservation, amount: int, now: datetime, *, late: bool) -> Reservation:
    """End it with what was used of it since the last change; `late`: it counted no more."""
    if mine.state is State.RELEASED:
        message = f"{mine.reservation_id} was released: record the usage with RecordUsage"
        raise PreconditionError(message)
    if mine.state is State.SETTLED:
        message = f"{mine.reservation_id} was settled already: read it with GetReservation"
        raise PreconditionError(message)
    return replace(
        mine,
        state=State.SETTLED,
        settled=mine.settled + amount,
        held=0,
        end_time=now,
        late=late,
        version=mine.version + 1,
    )


def released(mine: Reservation, now: datetime) -> Reservation:
    """End it unused, expired or not; released twice it stays as it is."""
    if mine.state is State.SETTLED:
        message = f"{mine.reservation_id} was settled: there is nothing to release"
        raise PreconditionError(message)
    if mine.state is State.RELEASED:
        return mine
    return replace(mine, state=State.RELEASED, held=0, end_time=now, version=mine.version + 1)


class Renewal(NamedTuple):
    """What the holder of a lease says: `used` of it since `generation`, and how much is to be held now.

    `recorded`: the usage is in the balance already, rather than about to be.
    """

    generation: int
    used: int
    wish: Wish
    recorded: bool


def renewed(
    mine: Reservation, renewal: Renewal, standing: Standing, now: datetime, *, counted: int, expired: bool
) -> Reservation:
    """Take off what was used of a lease, and top it up as far as the balance goes.

    `counted` is what of it counts now, nothing once it has `expired`. What is
    left of it is never taken away, unless its holder wants less. Raises
    ConflictError when it was renewed by another meanwhile.
    """
    if not mine.lease:
        message = f"{mine.reservation_id} is no lease: extend it instead"
        raise PreconditionError(message)
    _require_held(mine, "renewed", expired=expired)
    if renewal.generation != mine.generation:
        message = (
            f"the lease is at generation {mine.generation}, not {renewal.generation}: another holder renewed "
            "it, so settle what was used and reserve anew"
        )
        raise ConflictError(message, reason="GENERATION_MISMATCH")
    rest = max(0, counted - renewal.used)
    if renewal.recorded:
        # What was used is in the balance, and would be in what is held as well.
        standing = standing._replace(held=standing.held - (counted - rest))
    more = renewal.wish.amount - rest
    # On a soft limit what is within is used up before anything beyond is given.
    tops_up = more > 0 and not (standing.soft_limit and rest and standing.free <= 0)
    added = grantable(standing, renewal.wish._replace(amount=more, minimum=1)) if tops_up else 0
    expire, hold = bounds(standing, renewal.wish, now)
    return replace(
        mine,
        wanted=renewal.wish.amount,
        granted=mine.granted + added,
        held=min(rest, renewal.wish.amount) + added,
        settled=mine.settled + renewal.used,
        expire_time=expire,
        hold_time=hold,
        generation=mine.generation + 1,
        version=mine.version + 1,
    )


def _require_held(mine: Reservation, what: str, *, expired: bool) -> None:
    if mine.state is not State.HELD:
        message = f"{mine.reservation_id} was {mine.state.value}: it cannot be {what} any more"
        raise PreconditionError(message)
    if expired:
        message = f"{mine.reservation_id} has expired: settle what was used, and reserve anew"
        raise PreconditionError(message)
