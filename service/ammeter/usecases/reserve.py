"""Reserve, extend, settle, release, renew: decided in memory, answered when durable."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import NamedTuple

from ammeter import metrics
from ammeter.domain import reservation as rules
from ammeter.domain.book import Change, Entry, Now
from ammeter.domain.entitlement import Access, Reason, decide
from ammeter.domain.minute import minute_of, time_of
from ammeter.domain.reservation import Key, Renewal, Reservation, Standing, Wish
from ammeter.errors import NotFoundError, PreconditionError, invalid
from ammeter.store import reservations as store
from ammeter.store.db import Tx
from ammeter.usecases.check import Balance, BehindError, Check, balance, find
from ammeter.usecases.desk import Desk, Made, Once
from ammeter.usecases.engine import EngineError, Receipt
from ammeter.usecases.ids import new_id
from ammeter.usecases.live import Live
from ammeter.usecases.memory import LiveEntitlement
from ammeter.usecases.record import Intake

# For a balance that is never reset: later than anything that is written down.
_FAR = datetime(9000, 1, 1, tzinfo=UTC)


class Outcome(NamedTuple):
    """What a call is answered with, once it is durable at a position."""

    reservation: Reservation | None
    access: Access | None
    now: datetime
    receipt: Receipt | None = None


class Usage(NamedTuple):
    """Events that go with a change: a RecordUsageRequest, and what raises if none of them counts."""

    body: bytes
    judge: Callable[[Receipt], None]


class Call(NamedTuple):
    """What all calls have: whose, what makes it safe to repeat, how it is answered, and when it came.

    `encode` writes the answer at a position.
    """

    tenant_id: int
    once: Once | None
    encode: Callable[[Outcome, int], bytes]
    now: datetime


class Reserving:
    """The verbs; on the event loop."""

    def __init__(self, live: Live, desk: Desk, intake: Intake) -> None:
        """Decide on `live`, wait at `desk`; events come in by `intake`."""
        self._live = live
        self._desk = desk
        self._intake = intake

    async def reserve(self, call: Call, asked: Check, wish: Wish) -> bytes:
        """Hold what is wanted, or say why nothing is held."""

        def decision(_: Entry | None) -> Made | bytes:
            minute = minute_of(call.now)
            found = find(self._live, call.tenant_id, asked, minute)
            if isinstance(found, Access):
                return self._refuse(call, found)
            customer, one = found
            if one.access is not None:
                why = "names a feature without a balance: only metered entitlements can be reserved"
                raise invalid("feature_key", why)
            key = Key(call.tenant_id, customer.customer_id, asked.feature_key)
            stands = self._balance(key, one, minute)
            change = self._desk.book.reserve(
                new_id("rsv", call.now),
                key,
                (customer.customer_key, asked.subject or ""),
                wish,
                _standing(stands, one),
                self._desk.now(call.now),
            )
            if change is None:
                least = wish.amount if wish.minimum is None else wish.minimum
                return self._refuse(call, _access(stands, one, least))
            metrics.RESERVATIONS.labels("lease" if wish.lease else "granted").inc()
            return _made(call, change, _granted(stands, one, change.added))

        return await self._desk.submit(call.tenant_id, call.once, None, decision)

    async def extend(self, call: Call, reservation_id: str, wish: Wish) -> bytes:
        """Let it last longer."""

        def decision(entry: Entry | None) -> Made | bytes:
            known = _known(entry, reservation_id)
            change = self._desk.book.extend(known, wish, self._desk.now(call.now))
            metrics.RESERVATIONS.labels("extended").inc()
            return _made(call, change)

        return await self._desk.submit(call.tenant_id, call.once, reservation_id, decision)

    async def settle(self, call: Call, reservation_id: str, amount: int, usage: Usage | None) -> bytes:
        """End it with what was used, together with its events if they are given."""

        def decision(entry: Entry | None) -> Made | bytes:
            known = _known(entry, reservation_id)
            rules.settled(known.reservation, amount, call.now, late=False)
            receipt = self._admit(call, usage)
            change = self._desk.book.settle(known, amount, self._desk.now(call.now))
            metrics.RESERVATIONS.labels("settled_late" if change.after.late else "settled").inc()
            return _made(call, change, receipt=receipt)

        return await self._desk.submit(call.tenant_id, call.once, reservation_id, decision)

    async def release(self, call: Call, reservation_id: str) -> bytes:
        """End it unused."""

        def decision(entry: Entry | None) -> Made | bytes:
            known = _known(entry, reservation_id)
            change = self._desk.book.release(known, self._desk.now(call.now))
            if change is None:
                return call.encode(Outcome(known.reservation, None, call.now), 0)
            metrics.RESERVATIONS.labels("released").inc()
            return _made(call, change)

        return await self._desk.submit(call.tenant_id, call.once, reservation_id, decision)

    async def renew(self, call: Call, reservation_id: str, renewal: Renewal, usage: Usage | None) -> bytes:
        """Take off a lease what was used, and top it up."""

        def decision(entry: Entry | None) -> Made | bytes:
            known = _known(entry, reservation_id)
            key, minute, now = known.reservation.key, minute_of(call.now), self._desk.now(call.now)
            one = self._entitlement(known.reservation, minute)
            stands = self._balance(key, one, minute)
            standing = _standing(stands, one)
            self._check_renewal(known, renewal, standing, now)
            receipt = self._admit(call, usage)
            change = self._desk.book.renew(known, renewal, standing, now)
            metrics.RESERVATIONS.labels("renewed").inc()
            held = change.after.held
            access = _granted(stands, one, change.added) if held else _access(stands, one, None)
            return _made(call, change, access, receipt=receipt)

        return await self._desk.submit(call.tenant_id, call.once, reservation_id, decision)

    def _check_renewal(self, known: Entry, renewal: Renewal, standing: Standing, now: Now) -> None:
        """Raise what the renewal will raise, before its events are let in."""
        over = now.mono >= known.hold_at
        rules.renewed(known.reservation, renewal, standing, now.wall, counted=known.counted, expired=over)

    def _entitlement(self, mine: Reservation, minute: int) -> LiveEntitlement:
        asked = Check(mine.customer_key, None, mine.key.feature_key, None)
        found = find(self._live, mine.key.tenant_id, asked, minute)
        if isinstance(found, Access) or found[1].access is not None:
            message = "the entitlement under the lease has ended: settle what was used of it"
            raise PreconditionError(message)
        return found[1]

    def _balance(self, key: Key, one: LiveEntitlement, minute: int) -> Balance:
        try:
            return balance(self._live, key, one, minute)
        except EngineError as error:
            raise BehindError(key.customer_id, error) from error

    def _refuse(self, call: Call, access: Access) -> bytes:
        metrics.RESERVATIONS.labels("refused").inc()
        return call.encode(Outcome(None, access, call.now), 0)

    def _admit(self, call: Call, usage: Usage | None) -> Receipt | None:
        if usage is None:
            return None
        receipt = self._intake.admit_now(call.tenant_id, usage.body)
        usage.judge(receipt)
        return receipt


def get_reservation(tx: Tx, reservation_id: str) -> Reservation:
    """Read one; raises NotFoundError."""
    found = None if "\0" in reservation_id else store.get(tx, reservation_id)
    if found is None:
        raise NotFoundError("reservation", reservation_id)
    return found


def _made(call: Call, change: Change, access: Access | None = None, receipt: Receipt | None = None) -> Made:
    outcome = Outcome(change.after, access, call.now, receipt)
    return Made(change, receipt.group if receipt else 0, lambda position: call.encode(outcome, position))


def _known(entry: Entry | None, reservation_id: str) -> Entry:
    if entry is None:
        raise NotFoundError("reservation", reservation_id)
    return entry


def _standing(stands: Balance, one: LiveEntitlement) -> Standing:
    end = time_of(stands.period[1]) or _FAR
    return Standing(stands.left, stands.held, one.soft_limit, end)


def _access(stands: Balance, one: LiveEntitlement, amount: int | None) -> Access:
    left, usage, period, held = stands
    return decide(left, usage, one.allowance, amount, period, soft_limit=one.soft_limit, held=held)


def _granted(stands: Balance, one: LiveEntitlement, added: int) -> Access:
    """Say yes, with the balance after it."""
    within = added <= stands.left - stands.held
    after = _access(stands._replace(held=stands.held + added), one, None)
    reason = Reason.ALLOWED if within else Reason.ALLOWED_OVER_SOFT_LIMIT
    return after._replace(access=True, reason=reason)
