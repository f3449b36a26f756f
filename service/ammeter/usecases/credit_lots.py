"""Make, spend, give back, void and expire prepaid credits. Every movement is booked."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from itertools import groupby

from ammeter.domain.credit_lot import (
    CreditLot,
    LotDraft,
    LotKind,
    Move,
    MoveKind,
    Transaction,
    book,
    check_lot,
    check_voidable,
    is_expired,
)
from ammeter.domain.invoice import Invoice
from ammeter.domain.minute import truncate
from ammeter.domain.money import currency_exponent, round_money
from ammeter.domain.prepaid import pay_from, with_prepaid
from ammeter.store import catalog, credit_ledger, credit_lots, top_ups
from ammeter.store.db import Database, Tx
from ammeter.usecases.customers import get_customer
from ammeter.usecases.ids import new_id

_PAGE = 100
_MOVES = {LotKind.GRANTED: MoveKind.GRANT, LotKind.PURCHASED: MoveKind.PURCHASE}


def make_lot(tx: Tx, draft: LotDraft, kind: LotKind, now: datetime) -> CreditLot:
    """Give a customer credits, as a present or sold; raises NotFoundError, InvalidInputError."""
    customer = get_customer(tx, draft.customer_key, lock=True)  # its currency cannot change meanwhile
    exponent = currency_exponent(customer.currency)
    check_lot(draft, kind, catalog.get_features(tx, draft.feature_keys), exponent, now)
    paid = draft.amount if draft.cost_basis is None else draft.cost_basis
    lot = CreditLot(
        credit_lot_id=new_id("crl", now),
        customer_id=customer.customer_id,
        customer_key=customer.customer_key,
        kind=kind,
        currency=customer.currency,
        amount=round_money(draft.amount, exponent),
        remaining=Decimal(0),
        cost_basis=round_money(paid if kind is LotKind.PURCHASED else Decimal(0), exponent),
        priority=draft.priority,
        feature_keys=draft.feature_keys,
        effective_time=truncate(draft.effective_time or now),
        expire_time=None if draft.expire_time is None else truncate(draft.expire_time),
        description=draft.description,
        reference=draft.reference,
        create_time=now,
    )
    credit_lots.insert(tx, lot)
    _post(tx, _MOVES[kind], {lot.credit_lot_id: lot}, [Move(lot.credit_lot_id, lot.amount)], now)
    return credit_lots.get(tx, lot.credit_lot_id)


def void_lot(tx: Tx, credit_lot_id: str, now: datetime) -> CreditLot:
    """Take back what is left of a lot; a void one stays as it is. Raises NotFoundError, PreconditionError."""
    lot = credit_lots.get(tx, credit_lot_id, lock=True)
    if lot.void_time is not None:
        return lot
    check_voidable(lot, now)
    credit_lots.set_void(tx, credit_lot_id, now)
    _empty(tx, MoveKind.VOID, lot, now, now)
    return credit_lots.get(tx, credit_lot_id)


def apply_credits(tx: Tx, invoice: Invoice, now: datetime) -> Invoice:
    """Let the customer's usable lots pay what they can of an invoice that is issued now."""
    lots = credit_lots.usable(tx, invoice.customer_id, invoice.currency, now, lock=True)
    prepaid, total = with_prepaid(invoice, pay_from(lots, invoice))
    if prepaid:
        moves = [Move(one.credit_lot_id, one.amount.copy_negate(), one.line_id) for one in prepaid]
        _post(tx, MoveKind.APPLY, {lot.credit_lot_id: lot for lot in lots}, moves, now, invoice)
    return replace(invoice, prepaid=prepaid, prepaid_total=total)


def give_back(tx: Tx, invoice: Invoice, now: datetime) -> None:
    """Put what credits paid of an invoice that is void now back where it came from.

    What comes back to a lot that has expired or was voided meanwhile goes the
    way of that lot in the same moment.
    """
    if not invoice.prepaid:
        return
    ids = sorted({one.credit_lot_id for one in invoice.prepaid})
    lots = credit_lots.named(tx, ids, lock=True)
    moves = [Move(one.credit_lot_id, one.amount, one.line_id) for one in invoice.prepaid]
    _post(tx, MoveKind.RETURN, lots, moves, now, invoice)
    for lot in credit_lots.named(tx, ids).values():
        if lot.void_time is not None:
            _empty(tx, MoveKind.VOID, lot, now, now)
        elif is_expired(lot, now):
            _empty(tx, MoveKind.EXPIRE, lot, now, now)


def expire_credits(db: Database, now: datetime, is_stopping: Callable[[], bool]) -> int:
    """Book what has expired by now, of all tenants; returns how many lots.

    Whether that is done or not, an expired lot pays nothing.
    """
    done = 0
    while not is_stopping():
        with db.engine() as conn:
            page = credit_lots.expired(conn, now, _PAGE)
        for tenant_id, rows in groupby(sorted(page), key=lambda row: row.tenant_id):
            with db.tenant(tenant_id) as tx:
                lots = credit_lots.named(tx, [row.credit_lot_id for row in rows], lock=True)
                for lot in lots.values():
                    if lot.remaining and lot.expire_time is not None:
                        _empty(tx, MoveKind.EXPIRE, lot, lot.expire_time, now)
                        done += 1
        if len(page) < _PAGE:
            break
    return done


def _empty(tx: Tx, kind: MoveKind, lot: CreditLot, book_time: datetime, now: datetime) -> None:
    """Take all that is left out of a lot."""
    if lot.remaining:
        moves = [Move(lot.credit_lot_id, lot.remaining.copy_negate())]
        _post(tx, kind, {lot.credit_lot_id: lot}, moves, now, book_time=book_time)


def _post(
    tx: Tx,
    kind: MoveKind,
    lots: Mapping[str, CreditLot],
    moves: Sequence[Move],
    now: datetime,
    invoice: Invoice | None = None,
    book_time: datetime | None = None,
) -> None:
    lot = next(iter(lots.values()))
    entries = book(kind, lots, moves, currency_exponent(lot.currency))
    credit_ledger.post(
        tx,
        Transaction(
            kind=kind,
            customer_id=lot.customer_id,
            invoice_id=invoice.invoice_id if invoice else "",
            book_time=book_time or now,
            create_time=now,
            entries=entries,
        ),
    )
    top_ups.set_due(tx, lot.customer_id)
