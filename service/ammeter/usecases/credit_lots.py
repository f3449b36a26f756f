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
from ammeter.domain.invoice import Invoice, Prepaid
from ammeter.domain.minute import truncate
from ammeter.domain.money import add, currency_exponent, round_money, subtract
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
    check_lot(draft, kind, catalog.get_features(tx, draft.feature_keys), customer.currency, now)
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
    moves = [Move(lot.credit_lot_id, lot.amount)]
    _post(tx, [_transaction(_MOVES[kind], {lot.credit_lot_id: lot}, moves, now)])
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


def apply_credits(tx: Tx, drafts: Sequence[Invoice], now: datetime) -> list[Invoice]:
    """Let the customers' usable lots pay what they can of invoices that are issued now, in their order."""
    lots = credit_lots.usable_of(tx, {one.customer_id for one in drafts}, now, lock=True)
    paid, booked = [], []
    for invoice in drafts:
        theirs = lots.get(invoice.customer_id, ())
        usable = [lot for lot in theirs if lot.currency == invoice.currency and lot.remaining]
        prepaid, total = with_prepaid(invoice, pay_from(usable, invoice) if usable else ())
        paid.append(invoice._replace(prepaid=prepaid, prepaid_total=total))
        if prepaid:
            moves = [Move(one.credit_lot_id, one.amount.copy_negate(), one.line_id) for one in prepaid]
            before = {lot.credit_lot_id: lot for lot in usable}
            booked.append(_transaction(MoveKind.APPLY, before, moves, now, invoice))
            lots[invoice.customer_id] = [_after(lot, prepaid) for lot in theirs]
    _post(tx, booked)
    return paid


def _after(lot: CreditLot, prepaid: Sequence[Prepaid]) -> CreditLot:
    taken = add(one.amount for one in prepaid if one.credit_lot_id == lot.credit_lot_id)
    return replace(lot, remaining=subtract(lot.remaining, taken))


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
    _post(tx, [_transaction(MoveKind.RETURN, lots, moves, now, invoice)])
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
        _post(tx, [_transaction(kind, {lot.credit_lot_id: lot}, moves, now, book_time=book_time)])


def _transaction(
    kind: MoveKind,
    lots: Mapping[str, CreditLot],
    moves: Sequence[Move],
    now: datetime,
    invoice: Invoice | None = None,
    book_time: datetime | None = None,
) -> Transaction:
    lot = next(iter(lots.values()))
    return Transaction(
        kind=kind,
        customer_id=lot.customer_id,
        invoice_id=invoice.invoice_id if invoice else "",
        book_time=book_time or now,
        create_time=now,
        entries=book(kind, lots, moves, currency_exponent(lot.currency)),
    )


def _post(tx: Tx, transactions: Sequence[Transaction]) -> None:
    if transactions:
        credit_ledger.post(tx, transactions)
        top_ups.set_due(tx, {one.customer_id for one in transactions})
