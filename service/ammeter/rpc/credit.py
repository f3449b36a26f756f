"""CreditService: prepaid credits, messages to values and back."""

from datetime import datetime
from decimal import Decimal

from ammeter.domain.credit_lot import LotDraft, LotKind
from ammeter.domain.quantity import parse_decimal
from ammeter.domain.top_up import TopUpRule
from ammeter.errors import InvalidInputError, Violation, invalid
from ammeter.rpc.convert import from_timestamp
from ammeter.rpc.credit_messages import (
    balance_message,
    event_message,
    lot_message,
    rule_message,
    transaction_message,
)
from ammeter.rpc.method import ADMIN, READ, Caller, Method
from ammeter.rpc.paging import decode_token, encode_token, fingerprint, natural, page_size, read_token
from ammeter.store import credit_ledger, credit_lots, top_ups
from ammeter.store.db import Tx
from ammeter.usecases import top_up
from ammeter.usecases.bill import find_customer
from ammeter.usecases.billing import Billing
from ammeter.usecases.credit_balance import credit_balance
from ammeter.usecases.credit_lots import make_lot, void_lot
from ammeter.v1 import credit_pb2 as pb


class CreditRpc:
    """The service's methods."""

    service = "ammeter.v1.CreditService"

    def __init__(self, run: Billing) -> None:
        """`run` measures what is used and not issued yet."""
        self._run = run

    def methods(self) -> list[Method]:
        """Every RPC of the service."""
        return [
            Method.write("GrantCredit", ADMIN, self.grant),
            Method.write("PurchaseCredit", ADMIN, self.purchase),
            Method.write("VoidCreditLot", ADMIN, self.void),
            Method.read("GetCreditLot", READ, self.get),
            Method.read("ListCreditLots", READ, self.list),
            Method.plain("GetCreditBalance", READ, self.balance),
            Method.read("ListCreditTransactions", READ, self.list_transactions),
            Method.write("SetTopUpRule", ADMIN, self.set_rule),
            Method.read("GetTopUpRule", READ, self.get_rule),
            Method.write("DeleteTopUpRule", ADMIN, self.delete_rule),
            Method.read("ListCreditEvents", READ, self.list_events),
        ]

    def grant(self, tx: Tx, request: pb.GrantCreditRequest, now: datetime) -> pb.GrantCreditResponse:
        """Give credits away."""
        lot = make_lot(tx, _draft(request.credit_lot), LotKind.GRANTED, now)
        return pb.GrantCreditResponse(credit_lot=lot_message(lot, now))

    def purchase(self, tx: Tx, request: pb.PurchaseCreditRequest, now: datetime) -> pb.PurchaseCreditResponse:
        """Sell credits."""
        lot = make_lot(tx, _draft(request.credit_lot), LotKind.PURCHASED, now)
        return pb.PurchaseCreditResponse(credit_lot=lot_message(lot, now))

    def void(self, tx: Tx, request: pb.VoidCreditLotRequest, now: datetime) -> pb.VoidCreditLotResponse:
        """Take back what is left of a lot."""
        return pb.VoidCreditLotResponse(credit_lot=lot_message(void_lot(tx, request.credit_lot_id, now), now))

    def get(self, tx: Tx, request: pb.GetCreditLotRequest, now: datetime) -> pb.GetCreditLotResponse:
        """Answer one lot."""
        lot = credit_lots.get(tx, request.credit_lot_id)
        return pb.GetCreditLotResponse(credit_lot=lot_message(lot, now))

    def list(self, tx: Tx, request: pb.ListCreditLotsRequest, now: datetime) -> pb.ListCreditLotsResponse:
        """Answer a page of lots, by creation."""
        query, size = fingerprint(request), page_size(request.page_size)
        customer_id = find_customer(tx, request.customer_key) if request.customer_key else None
        after = decode_token(request.page_token, query) or ("",)
        found = credit_lots.page(tx, customer_id, str(after[0]), size + 1)
        more = encode_token(query, (found[size - 1].credit_lot_id,)) if len(found) > size else ""
        return pb.ListCreditLotsResponse(
            credit_lots=[lot_message(lot, now) for lot in found[:size]], next_page_token=more
        )

    def balance(
        self, caller: Caller, request: pb.GetCreditBalanceRequest, now: datetime
    ) -> pb.GetCreditBalanceResponse:
        """Answer what a customer's credits are worth now."""
        if not request.customer_key:
            raise invalid("customer_key", "is needed: say whose balance")
        return balance_message(credit_balance(self._run, caller.tenant_id, request.customer_key, now), now)

    def list_transactions(
        self, tx: Tx, request: pb.ListCreditTransactionsRequest, _now: datetime
    ) -> pb.ListCreditTransactionsResponse:
        """Answer a page of the ledger, newest first."""
        query, size = fingerprint(request), page_size(request.page_size)
        customer_id = find_customer(tx, request.customer_key) if request.customer_key else None
        before = read_token(request.page_token, query, natural)
        found = credit_ledger.page(tx, customer_id, request.credit_lot_id, before, size + 1)
        more = encode_token(query, (found[size - 1].transaction_id,)) if len(found) > size else ""
        return pb.ListCreditTransactionsResponse(
            transactions=[transaction_message(one) for one in found[:size]], next_page_token=more
        )

    def set_rule(self, tx: Tx, request: pb.SetTopUpRuleRequest, now: datetime) -> pb.SetTopUpRuleResponse:
        """Put a rule in the place of the one there is."""
        sent = request.rule
        faults: list[Violation] = []
        threshold, amount = (
            _decimal(getattr(sent, name), f"rule.{name}", faults) for name in ("threshold", "amount")
        )
        if faults:
            raise InvalidInputError(faults)
        rule = TopUpRule(threshold, amount)
        stored = top_up.set_rule(tx, sent.customer_key, rule, now)
        return pb.SetTopUpRuleResponse(rule=rule_message(sent.customer_key, stored))

    def get_rule(self, tx: Tx, request: pb.GetTopUpRuleRequest, _now: datetime) -> pb.GetTopUpRuleResponse:
        """Answer a customer's rule."""
        rule = top_up.get_rule(tx, request.customer_key)
        return pb.GetTopUpRuleResponse(rule=rule_message(request.customer_key, rule))

    def delete_rule(
        self, tx: Tx, request: pb.DeleteTopUpRuleRequest, _now: datetime
    ) -> pb.DeleteTopUpRuleResponse:
        """End a customer's rule."""
        top_up.delete_rule(tx, request.customer_key)
        return pb.DeleteTopUpRuleResponse()

    def list_events(
        self, tx: Tx, request: pb.ListCreditEventsRequest, _now: datetime
    ) -> pb.ListCreditEventsResponse:
        """Answer a page of events, newest first."""
        query, size = fingerprint(request), page_size(request.page_size)
        customer_id = find_customer(tx, request.customer_key) if request.customer_key else None
        before = decode_token(request.page_token, query) or ("",)
        found = top_ups.page_events(tx, customer_id, str(before[0]), size + 1)
        more = encode_token(query, (found[size - 1].credit_event_id,)) if len(found) > size else ""
        return pb.ListCreditEventsResponse(
            events=[event_message(event) for event in found[:size]], next_page_token=more
        )


def _decimal(text: str, field: str, faults: list[Violation]) -> Decimal:
    """Read a decimal; adds to `faults` what is wrong with it."""
    try:
        return parse_decimal(text, field)
    except InvalidInputError as error:
        faults += error.violations
        return Decimal(0)


def _draft(sent: pb.CreditLot) -> LotDraft:
    if not sent.customer_key:
        raise invalid("credit_lot.customer_key", "is needed: say whose credits")
    return LotDraft(
        customer_key=sent.customer_key,
        amount=parse_decimal(sent.amount, "credit_lot.amount"),
        cost_basis=parse_decimal(sent.cost_basis, "credit_lot.cost_basis") if sent.cost_basis else None,
        priority=sent.priority,
        feature_keys=tuple(sent.feature_keys),
        effective_time=from_timestamp(
            sent.effective_time, "credit_lot.effective_time", present=sent.HasField("effective_time")
        ),
        expire_time=from_timestamp(
            sent.expire_time, "credit_lot.expire_time", present=sent.HasField("expire_time")
        ),
        description=sent.description,
        reference=sent.reference,
        currency=sent.currency,
    )
