"""Prepaid credits: lots of money that pay invoices, and the ledger of what moves in and out of them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction

from ammeter.domain.minute import truncate
from ammeter.domain.money import add, currency_exponent, round_money, subtract
from ammeter.errors import InvalidInputError, PreconditionError, Violation

MAX_TEXT = 256
MAX_FEATURES = 50
MAX_PRIORITY = 1000
_FARTHEST = timedelta(days=3653)
_END_OF_TIME = datetime.max.replace(tzinfo=UTC)


class LotKind(StrEnum):
    """How a lot came about."""

    GRANTED = "granted"
    PURCHASED = "purchased"


class LotState(StrEnum):
    """What a lot is at an instant."""

    SCHEDULED = "scheduled"
    ACTIVE = "active"
    EXHAUSTED = "exhausted"
    EXPIRED = "expired"
    VOID = "void"


class Account(StrEnum):
    """Where money is: in a lot, or on the other side of what moved it."""

    LOT = "lot"
    GRANTED = "granted"
    PURCHASED = "purchased"
    APPLIED = "applied"
    EXPIRED = "expired"
    VOIDED = "voided"


class MoveKind(StrEnum):
    """Why money moved."""

    GRANT = "grant"
    PURCHASE = "purchase"
    APPLY = "apply"
    RETURN = "return"
    EXPIRE = "expire"
    VOID = "void"


_OTHER_SIDE = {
    MoveKind.GRANT: Account.GRANTED,
    MoveKind.PURCHASE: Account.PURCHASED,
    MoveKind.APPLY: Account.APPLIED,
    MoveKind.RETURN: Account.APPLIED,
    MoveKind.EXPIRE: Account.EXPIRED,
    MoveKind.VOID: Account.VOIDED,
}


@dataclass(frozen=True)
class CreditLot:
    """Money of one customer, spent by priority, expiry, creation, id; without feature_keys on any line.

    `remaining` is what the ledger says; see `remaining_at`.
    """

    credit_lot_id: str
    customer_id: int
    customer_key: str
    kind: LotKind
    currency: str
    amount: Decimal
    remaining: Decimal
    cost_basis: Decimal
    priority: int
    feature_keys: tuple[str, ...]
    effective_time: datetime
    expire_time: datetime | None
    description: str
    reference: str
    create_time: datetime
    void_time: datetime | None = None


@dataclass(frozen=True)
class LotDraft:
    """What a caller says of a lot; cost_basis None where it was left open."""

    customer_key: str
    amount: Decimal
    cost_basis: Decimal | None = None
    priority: int = 0
    feature_keys: tuple[str, ...] = ()
    effective_time: datetime | None = None
    expire_time: datetime | None = None
    description: str = ""
    reference: str = ""
    currency: str = ""


@dataclass(frozen=True)
class Entry:
    """One side of a movement; cost is the part of the lot's cost basis that moves with the amount."""

    account: Account
    credit_lot_id: str
    line_id: str
    amount: Decimal
    cost: Decimal


@dataclass(frozen=True)
class Transaction:
    """Entries that add up to nothing, amounts and costs alike."""

    kind: MoveKind
    customer_id: int
    invoice_id: str
    book_time: datetime
    create_time: datetime
    entries: tuple[Entry, ...]
    transaction_id: int = 0
    customer_key: str = ""
    currency: str = ""


@dataclass(frozen=True)
class Move:
    """So much into a lot, or (negative) out of it, for a line of the transaction's invoice."""

    credit_lot_id: str
    amount: Decimal
    line_id: str = ""


def burn_order(lot: CreditLot) -> tuple[int, datetime, datetime, str]:
    """Sort lots as they pay: priority, expiry (never comes last), creation, id."""
    return lot.priority, lot.expire_time or _END_OF_TIME, lot.create_time, lot.credit_lot_id


def is_expired(lot: CreditLot, now: datetime) -> bool:
    """Whether a lot pays nothing any more because of its expiry, which it does not include."""
    return lot.expire_time is not None and lot.expire_time <= now


def is_usable(lot: CreditLot, now: datetime) -> bool:
    """Whether a lot pays an invoice that is issued now."""
    return lot_state(lot, now) is LotState.ACTIVE


def lot_state(lot: CreditLot, now: datetime) -> LotState:
    """Say what a lot is; void comes before expired, expired before exhausted."""
    if lot.void_time is not None:
        return LotState.VOID
    if is_expired(lot, now):
        return LotState.EXPIRED
    if not lot.remaining:
        return LotState.EXHAUSTED
    return LotState.SCHEDULED if lot.effective_time > now else LotState.ACTIVE


def remaining_at(lot: CreditLot, now: datetime) -> Decimal:
    """Return what can still be spent of a lot; nothing from its expiry on, whether that is booked or not."""
    return subtract(lot.remaining, lot.remaining) if is_expired(lot, now) else lot.remaining


def cost_of_remaining(lot: CreditLot, remaining: Decimal, exponent: int) -> Decimal:
    """Return the part of the cost basis that belongs to what remains, rounded half away from zero.

    What a movement costs is the difference of two of these, so that all of
    them add up to the cost basis.
    """
    return round_money(Fraction(lot.cost_basis) * Fraction(remaining) / Fraction(lot.amount), exponent)


def book(
    kind: MoveKind,
    lots: Mapping[str, CreditLot],
    moves: Sequence[Move],
    exponent: int,
) -> tuple[Entry, ...]:
    """Write movements as double entries: each takes from one side what it gives to the other.

    `lots` are as they are before; a lot that is made now has nothing remaining.
    """
    left = {lot_id: lot.remaining for lot_id, lot in lots.items()}
    entries = []
    for move in moves:
        lot, before = lots[move.credit_lot_id], left[move.credit_lot_id]
        after = left[move.credit_lot_id] = add((before, move.amount))
        cost = subtract(cost_of_remaining(lot, after, exponent), cost_of_remaining(lot, before, exponent))
        inside = Entry(Account.LOT, move.credit_lot_id, move.line_id, move.amount, cost)
        other = replace(
            inside, account=_OTHER_SIDE[kind], amount=move.amount.copy_negate(), cost=_negative(cost)
        )
        entries += [inside, other]
    return tuple(entries)


def _negative(amount: Decimal) -> Decimal:
    return amount.copy_negate() if amount else amount


def check_lot(
    draft: LotDraft, kind: LotKind, known_features: Iterable[str], currency: str, now: datetime
) -> None:
    """Refuse a lot that cannot be, telling all faults; raises InvalidInputError. `currency` is to be its."""
    faults = [
        *_check_money(draft, kind, currency_exponent(currency)),
        *_check_features(draft.feature_keys, set(known_features)),
        *_check_times(draft, now),
    ]
    if draft.currency not in {"", currency}:
        faults.append(("currency", f"must be {currency}, in which the customer pays, or left out"))
    if abs(draft.priority) > MAX_PRIORITY:
        faults.append(("priority", f"must be -{MAX_PRIORITY} to {MAX_PRIORITY}"))
    faults += [
        (field, f"must be at most {MAX_TEXT} characters: shorten it")
        for field in ("description", "reference")
        if len(getattr(draft, field)) > MAX_TEXT
    ]
    if faults:
        raise InvalidInputError([Violation(f"credit_lot.{field}", why) for field, why in faults])


def _check_money(draft: LotDraft, kind: LotKind, exponent: int) -> Iterator[tuple[str, str]]:
    if draft.amount <= 0:
        yield "amount", "must be more than 0: say how much"
    elif round_money(draft.amount, exponent) != draft.amount:
        yield "amount", f"must have at most {exponent} digits after the point"
    paid = draft.cost_basis
    if paid is None:
        return
    if kind is LotKind.GRANTED:
        yield "cost_basis", "is of purchases only: leave it out, or use PurchaseCredit"
    elif paid < 0 or round_money(paid, exponent) != paid:
        yield "cost_basis", f"must be 0 or more with at most {exponent} digits after the point"


def _check_features(feature_keys: tuple[str, ...], known: set[str]) -> Iterator[tuple[str, str]]:
    if len(feature_keys) > MAX_FEATURES:
        yield "feature_keys", f"are more than {MAX_FEATURES}: name fewer, or none for every line"
        return
    for place, key in enumerate(feature_keys):
        if key not in known:
            yield f"feature_keys[{place}]", f"there is no feature {key!r}: see ListFeatures"
        elif key in feature_keys[:place]:
            yield f"feature_keys[{place}]", "is named twice: once is enough"


def _check_times(draft: LotDraft, now: datetime) -> Iterator[tuple[str, str]]:
    start = truncate(draft.effective_time or now)
    if not truncate(now) <= start <= now + _FARTHEST:
        yield "effective_time", "must not lie before now, nor more than ten years ahead"
    if draft.expire_time is not None and not start < truncate(draft.expire_time) <= start + _FARTHEST:
        yield "expire_time", "must be a later minute than effective_time, at most ten years later"


def check_voidable(lot: CreditLot, now: datetime) -> None:
    """Refuse to void what has expired; raises PreconditionError."""
    if is_expired(lot, now):
        raise PreconditionError(f"credit lot {lot.credit_lot_id} has expired: nothing is left to void")
