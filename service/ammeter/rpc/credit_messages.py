"""Prepaid credits as messages. Money has the currency's digits."""

from datetime import datetime
from decimal import Decimal

from ammeter.domain.credit_lot import (
    Account,
    CreditLot,
    Entry,
    LotKind,
    LotState,
    MoveKind,
    Transaction,
    lot_state,
    remaining_at,
)
from ammeter.domain.money import currency_exponent, round_money
from ammeter.domain.top_up import CreditEvent, CreditEventKind, TopUpRule
from ammeter.rpc.convert import to_timestamp
from ammeter.rpc.invoice import money
from ammeter.usecases.credit_balance import CreditBalance
from ammeter.v1 import credit_pb2 as pb

_KINDS = {
    LotKind.GRANTED: pb.CreditLot.KIND_GRANTED,
    LotKind.PURCHASED: pb.CreditLot.KIND_PURCHASED,
}
_STATES = {
    LotState.SCHEDULED: pb.CreditLot.STATE_SCHEDULED,
    LotState.ACTIVE: pb.CreditLot.STATE_ACTIVE,
    LotState.EXHAUSTED: pb.CreditLot.STATE_EXHAUSTED,
    LotState.EXPIRED: pb.CreditLot.STATE_EXPIRED,
    LotState.VOID: pb.CreditLot.STATE_VOID,
}
_MOVES = {
    MoveKind.GRANT: pb.CreditTransaction.KIND_GRANT,
    MoveKind.PURCHASE: pb.CreditTransaction.KIND_PURCHASE,
    MoveKind.APPLY: pb.CreditTransaction.KIND_APPLY,
    MoveKind.RETURN: pb.CreditTransaction.KIND_RETURN,
    MoveKind.EXPIRE: pb.CreditTransaction.KIND_EXPIRE,
    MoveKind.VOID: pb.CreditTransaction.KIND_VOID,
}
_ACCOUNTS = {
    Account.LOT: pb.CreditEntry.ACCOUNT_LOT,
    Account.GRANTED: pb.CreditEntry.ACCOUNT_GRANTED,
    Account.PURCHASED: pb.CreditEntry.ACCOUNT_PURCHASED,
    Account.APPLIED: pb.CreditEntry.ACCOUNT_APPLIED,
    Account.EXPIRED: pb.CreditEntry.ACCOUNT_EXPIRED,
    Account.VOIDED: pb.CreditEntry.ACCOUNT_VOIDED,
}
_EVENTS = {CreditEventKind.TOP_UP_NEEDED: pb.CreditEvent.KIND_TOP_UP_NEEDED}


def lot_message(lot: CreditLot, now: datetime) -> pb.CreditLot:
    """Write a lot as it is now."""
    return pb.CreditLot(
        credit_lot_id=lot.credit_lot_id,
        customer_key=lot.customer_key,
        kind=_KINDS[lot.kind],
        state=_STATES[lot_state(lot, now)],
        currency=lot.currency,
        amount=money(lot.amount),
        remaining=_money(remaining_at(lot, now), lot.currency),
        cost_basis=money(lot.cost_basis),
        priority=lot.priority,
        feature_keys=lot.feature_keys,
        effective_time=to_timestamp(lot.effective_time),
        expire_time=to_timestamp(lot.expire_time),
        description=lot.description,
        reference=lot.reference,
        create_time=to_timestamp(lot.create_time),
        void_time=to_timestamp(lot.void_time),
    )


def balance_message(balance: CreditBalance, now: datetime) -> pb.GetCreditBalanceResponse:
    """Write a balance."""
    return pb.GetCreditBalanceResponse(
        currency=balance.currency,
        remaining=money(balance.remaining),
        pending=money(balance.pending),
        available=money(balance.available),
        cost_basis=money(balance.cost_basis),
        lots=[
            pb.CreditLotBalance(credit_lot=lot_message(lot, now), pending=_money(pending, balance.currency))
            for lot, pending in balance.lots
        ],
    )


def transaction_message(transaction: Transaction) -> pb.CreditTransaction:
    """Write a transaction of the ledger."""
    return pb.CreditTransaction(
        transaction_id=transaction.transaction_id,
        kind=_MOVES[transaction.kind],
        customer_key=transaction.customer_key,
        currency=transaction.currency,
        invoice_id=transaction.invoice_id,
        book_time=to_timestamp(transaction.book_time),
        create_time=to_timestamp(transaction.create_time),
        entries=[_entry(entry, transaction.currency) for entry in transaction.entries],
    )


def _entry(entry: Entry, currency: str) -> pb.CreditEntry:
    return pb.CreditEntry(
        account=_ACCOUNTS[entry.account],
        credit_lot_id=entry.credit_lot_id,
        line_id=entry.line_id,
        amount=_money(entry.amount, currency),
        cost=_money(entry.cost, currency),
    )


def rule_message(customer_key: str, rule: TopUpRule) -> pb.TopUpRule:
    """Write a top-up rule."""
    return pb.TopUpRule(
        customer_key=customer_key,
        threshold=money(rule.threshold),
        amount=money(rule.amount),
        armed=rule.armed,
        update_time=to_timestamp(rule.update_time),
    )


def event_message(event: CreditEvent) -> pb.CreditEvent:
    """Write an event."""
    return pb.CreditEvent(
        credit_event_id=event.credit_event_id,
        kind=_EVENTS[event.kind],
        customer_key=event.customer_key,
        currency=event.currency,
        available=_money(event.available, event.currency),
        threshold=money(event.threshold),
        amount=money(event.amount),
        create_time=to_timestamp(event.create_time),
    )


def _money(amount: Decimal, currency: str) -> str:
    return money(round_money(amount, currency_exponent(currency)))
