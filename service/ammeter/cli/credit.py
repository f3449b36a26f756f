"""Verbs on prepaid credits."""

from collections.abc import Iterable
from typing import Annotated

import typer
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Group, RenderableType

from ammeter.cli import root
from ammeter.cli.session import Session, list_all, session_of
from ammeter.cli.times import FORMS, parse_time, show_time
from ammeter.cli.view import fields, table, thousands, word
from ammeter.client import new_request_id
from ammeter.v1 import credit_pb2 as pb

group = root.group("credit", "Prepaid credits: money that customers have with you, and what moved it.")
top_up = root.group("top-up", "When to be told that a customer's credits run low.")
group.add_typer(top_up)

CustomerKey = Annotated[str, typer.Argument(metavar="CUSTOMER")]
Amount = Annotated[str, typer.Argument(metavar="AMOUNT", help="Money in the customer's currency.")]
LotId = Annotated[str, typer.Argument(metavar="LOT", help='Its id, "crl_...".')]
Priority = Annotated[int, typer.Option(help="Lower pays first.")]
Features = Annotated[
    list[str] | None, typer.Option("--feature", help="Pays only this feature's lines. May be repeated.")
]
Start = Annotated[
    Timestamp | None,
    typer.Option("--from", parser=parse_time, metavar="TIME", help=f"Now if left out: {FORMS}."),
]
Expires = Annotated[
    Timestamp | None, typer.Option(parser=parse_time, metavar="TIME", help="Never if left out.")
]
Reference = Annotated[str, typer.Option(help="What it is called elsewhere.")]
Description = Annotated[str, typer.Option(help="As printed.")]


@group.command("grant", epilog=root.EPILOG)
def grant(  # noqa: PLR0913 - the options of one verb
    ctx: typer.Context,
    customer_key: CustomerKey,
    amount: Amount,
    *,
    priority: Priority = 0,
    feature: Features = None,
    start: Start = None,
    expires: Expires = None,
    reference: Reference = "",
    description: Description = "",
) -> None:
    """Give credits away."""
    session = session_of(ctx)
    lot = pb.CreditLot(
        customer_key=customer_key,
        amount=amount,
        priority=priority,
        feature_keys=feature or (),
        effective_time=start,
        expire_time=expires,
        reference=reference,
        description=description,
    )
    request = pb.GrantCreditRequest(credit_lot=lot, request_id=new_request_id())
    _show(session, session.client.credits.GrantCredit(request).credit_lot)


@group.command("purchase", epilog=root.EPILOG)
def purchase(  # noqa: PLR0913 - the options of one verb
    ctx: typer.Context,
    customer_key: CustomerKey,
    amount: Amount,
    *,
    paid: Annotated[str, typer.Option(help="What was paid for it; the amount if left out.")] = "",
    priority: Priority = 0,
    feature: Features = None,
    start: Start = None,
    expires: Expires = None,
    reference: Reference = "",
    description: Description = "",
) -> None:
    """Sell credits; charging for them is up to you."""
    session = session_of(ctx)
    lot = pb.CreditLot(
        customer_key=customer_key,
        amount=amount,
        cost_basis=paid,
        priority=priority,
        feature_keys=feature or (),
        effective_time=start,
        expire_time=expires,
        reference=reference,
        description=description,
    )
    request = pb.PurchaseCreditRequest(credit_lot=lot, request_id=new_request_id())
    _show(session, session.client.credits.PurchaseCredit(request).credit_lot)


@group.command("void", epilog=root.EPILOG)
def void(ctx: typer.Context, credit_lot_id: LotId) -> None:
    """Take back what is left of a lot."""
    session = session_of(ctx)
    request = pb.VoidCreditLotRequest(credit_lot_id=credit_lot_id, request_id=new_request_id())
    _show(session, session.client.credits.VoidCreditLot(request).credit_lot)


@group.command("get", epilog=root.EPILOG)
def get(ctx: typer.Context, credit_lot_id: LotId) -> None:
    """Show one lot."""
    session = session_of(ctx)
    request = pb.GetCreditLotRequest(credit_lot_id=credit_lot_id)
    _show(session, session.client.credits.GetCreditLot(request).credit_lot)


@group.command("list", epilog=root.EPILOG)
def list_(
    ctx: typer.Context,
    *,
    customer: Annotated[str, typer.Option(help="Only this customer's.")] = "",
    limit: int = 100,
) -> None:
    """List lots by creation, spent ones, too."""
    session = session_of(ctx)
    request = pb.ListCreditLotsRequest(customer_key=customer, page_size=min(limit, 1000))
    answer = list_all(session.client.credits.ListCreditLots, request, "credit_lots", limit)
    session.show(answer, lambda: _lots(answer.credit_lots))


@group.command("balance", epilog=root.EPILOG)
def balance(ctx: typer.Context, customer_key: CustomerKey) -> None:
    """Show what is left, and what of it the invoices to come would take now."""
    session = session_of(ctx)
    request = pb.GetCreditBalanceRequest(customer_key=customer_key)
    answer = session.client.credits.GetCreditBalance(request)
    session.show(answer, lambda: _balance(answer))


@group.command("ledger", epilog=root.EPILOG)
def ledger(
    ctx: typer.Context,
    *,
    customer: Annotated[str, typer.Option(help="Only this customer's.")] = "",
    lot: Annotated[str, typer.Option(help="Only what moved this lot.")] = "",
    limit: int = 100,
) -> None:
    """List what moved credits, newest first."""
    session = session_of(ctx)
    request = pb.ListCreditTransactionsRequest(
        customer_key=customer, credit_lot_id=lot, page_size=min(limit, 1000)
    )
    answer = list_all(session.client.credits.ListCreditTransactions, request, "transactions", limit)
    session.show(answer, lambda: _ledger(answer.transactions))


@group.command("events", epilog=root.EPILOG)
def events(
    ctx: typer.Context,
    *,
    customer: Annotated[str, typer.Option(help="Only this customer's.")] = "",
    limit: int = 100,
) -> None:
    """List what somebody should act on, newest first."""
    session = session_of(ctx)
    request = pb.ListCreditEventsRequest(customer_key=customer, page_size=min(limit, 1000))
    answer = list_all(session.client.credits.ListCreditEvents, request, "events", limit)
    rows = (
        (
            each.credit_event_id,
            word(pb.CreditEvent.Kind.Name(each.kind), "KIND"),
            each.customer_key,
            f"{thousands(each.available)} {each.currency}",
            thousands(each.threshold),
            thousands(each.amount),
            show_time(each.create_time),
        )
        for each in answer.events
    )
    columns = ["event", "kind", "customer", "available", "threshold", "amount", "time"]
    session.show(answer, lambda: table(columns, rows))


@top_up.command("set", epilog=root.EPILOG)
def set_rule(
    ctx: typer.Context,
    customer_key: CustomerKey,
    *,
    below: Annotated[str, typer.Option(help="Tell when less than this is available.")],
    amount: Annotated[str, typer.Option(help="How much to top up by.")],
) -> None:
    """Be told, by an event, when a customer's credits run low."""
    session = session_of(ctx)
    rule = pb.TopUpRule(customer_key=customer_key, threshold=below, amount=amount)
    request = pb.SetTopUpRuleRequest(rule=rule, request_id=new_request_id())
    _show_rule(session, session.client.credits.SetTopUpRule(request).rule)


@top_up.command("get", epilog=root.EPILOG)
def get_rule(ctx: typer.Context, customer_key: CustomerKey) -> None:
    """Show a customer's rule."""
    session = session_of(ctx)
    request = pb.GetTopUpRuleRequest(customer_key=customer_key)
    _show_rule(session, session.client.credits.GetTopUpRule(request).rule)


@top_up.command("delete", epilog=root.EPILOG)
def delete_rule(ctx: typer.Context, customer_key: CustomerKey) -> None:
    """End a customer's rule."""
    session = session_of(ctx)
    request = pb.DeleteTopUpRuleRequest(customer_key=customer_key, request_id=new_request_id())
    session.show(session.client.credits.DeleteTopUpRule(request), lambda: "deleted")


def _show(session: Session, lot: pb.CreditLot) -> None:
    shown = {
        "lot": lot.credit_lot_id,
        "customer": lot.customer_key,
        "state": word(pb.CreditLot.State.Name(lot.state), "STATE"),
        "kind": word(pb.CreditLot.Kind.Name(lot.kind), "KIND"),
        "amount": f"{thousands(lot.amount)} {lot.currency}",
        "remaining": thousands(lot.remaining),
        "cost": thousands(lot.cost_basis),
        "priority": lot.priority,
        "features": list(lot.feature_keys),
        "from": show_time(lot.effective_time),
        "expires": show_time(lot.expire_time) or "never",
        "description": lot.description,
        "reference": lot.reference,
        "void from": show_time(lot.void_time),
    }
    session.show(lot, lambda: fields(shown))


def _show_rule(session: Session, rule: pb.TopUpRule) -> None:
    shown = {
        "customer": rule.customer_key,
        "below": thousands(rule.threshold),
        "amount": thousands(rule.amount),
        "state": "armed" if rule.armed else "told, waiting for the balance to come back",
    }
    session.show(rule, lambda: fields(shown))


def _lots(lots: Iterable[pb.CreditLot]) -> RenderableType:
    rows = (
        (
            each.credit_lot_id,
            each.customer_key,
            word(pb.CreditLot.State.Name(each.state), "STATE"),
            word(pb.CreditLot.Kind.Name(each.kind), "KIND"),
            thousands(each.amount),
            f"{thousands(each.remaining)} {each.currency}",
            each.priority,
            ", ".join(each.feature_keys) or "all",
            show_time(each.expire_time) or "never",
        )
        for each in lots
    )
    columns = ["lot", "customer", "state", "kind", "amount", "remaining", "priority", "features", "expires"]
    return table(columns, rows)


def _balance(answer: pb.GetCreditBalanceResponse) -> RenderableType:
    head = fields(
        {
            "remaining": f"{thousands(answer.remaining)} {answer.currency}",
            "pending": thousands(answer.pending),
            "available": thousands(answer.available),
            "cost": thousands(answer.cost_basis),
        }
    )
    rows = (
        (
            each.credit_lot.credit_lot_id,
            thousands(each.credit_lot.remaining),
            thousands(each.pending),
            ", ".join(each.credit_lot.feature_keys) or "all",
            show_time(each.credit_lot.expire_time) or "never",
        )
        for each in answer.lots
    )
    return Group(head, table(["lot", "remaining", "pending", "features", "expires"], rows))


def _ledger(transactions: Iterable[pb.CreditTransaction]) -> RenderableType:
    rows = (
        (
            str(each.transaction_id) if place == 0 else "",
            show_time(each.book_time) if place == 0 else "",
            word(pb.CreditTransaction.Kind.Name(each.kind), "KIND") if place == 0 else "",
            each.customer_key if place == 0 else "",
            word(pb.CreditEntry.Account.Name(entry.account), "ACCOUNT"),
            entry.credit_lot_id,
            entry.line_id or each.invoice_id,
            f"{thousands(entry.amount)} {each.currency}",
        )
        for each in transactions
        for place, entry in enumerate(each.entries)
    )
    return table(["number", "time", "why", "customer", "account", "lot", "for", "amount"], rows)
