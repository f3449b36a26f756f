"""Verbs that put customers on plans."""

from typing import Annotated

import typer
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Group, RenderableType

from ammeter.cli import root
from ammeter.cli.session import Session, list_all, session_of
from ammeter.cli.times import FORMS, parse_time, show_time
from ammeter.cli.view import fields, table
from ammeter.client import new_request_id
from ammeter.v1 import subscription_pb2 as pb

group = root.group("subscription", "Customers on plans over time; see also `subscribe` and `cancel`.")


def subscribe(
    ctx: typer.Context,
    customer_key: Annotated[str, typer.Argument(metavar="CUSTOMER")],
    plan_key: Annotated[str, typer.Argument(metavar="PLAN")],
    *,
    start: Annotated[
        Timestamp | None,
        typer.Option(
            "--from", parser=parse_time, metavar="TIME", help=f"Its start; now if left out: {FORMS}."
        ),
    ] = None,
    anchor: Annotated[
        Timestamp | None,
        typer.Option(
            parser=parse_time,
            metavar="TIME",
            help="Where periods start; if left out, where something is first charged.",
        ),
    ] = None,
) -> None:
    """Subscribe a customer to a plan."""
    session = session_of(ctx)
    request = pb.CreateSubscriptionRequest(
        customer_key=customer_key,
        plan_key=plan_key,
        start_time=start,
        anchor_time=anchor,
        request_id=new_request_id(),
    )
    _show(session, session.client.subscriptions.CreateSubscription(request).subscription)


def cancel(
    ctx: typer.Context,
    subscription_id: Annotated[str, typer.Argument(metavar="SUBSCRIPTION", help='Its id, "sub_...".')],
    *,
    at: Annotated[
        Timestamp | None, typer.Option(parser=parse_time, metavar="TIME", help=f"At a time ahead: {FORMS}.")
    ] = None,
    at_period_end: Annotated[
        bool, typer.Option("--at-period-end", help="When the current period ends.")
    ] = False,
) -> None:
    """End a subscription and its entitlements: now, unless told otherwise."""
    session = session_of(ctx)
    if at is not None and at_period_end:
        raise typer.BadParameter("--at and --at-period-end exclude each other")
    timing = pb.CANCEL_TIMING_NOW
    if at_period_end:
        timing = pb.CANCEL_TIMING_PERIOD_END
    elif at is not None:
        timing = pb.CANCEL_TIMING_AT_TIME
    request = pb.CancelSubscriptionRequest(
        subscription_id=subscription_id, timing=timing, cancel_time=at, request_id=new_request_id()
    )
    _show(session, session.client.subscriptions.CancelSubscription(request).subscription)


@group.command("get", epilog=root.EPILOG)
def get(ctx: typer.Context, subscription_id: Annotated[str, typer.Argument(metavar="SUBSCRIPTION")]) -> None:
    """Show one subscription."""
    session = session_of(ctx)
    request = pb.GetSubscriptionRequest(subscription_id=subscription_id)
    _show(session, session.client.subscriptions.GetSubscription(request).subscription)


@group.command("list", epilog=root.EPILOG)
def list_(
    ctx: typer.Context,
    *,
    customer: Annotated[str, typer.Option(help="Only this customer's.")] = "",
    limit: int = 1000,
) -> None:
    """List subscriptions by creation."""
    session = session_of(ctx)
    request = pb.ListSubscriptionsRequest(customer_key=customer, page_size=1000)
    answer = list_all(session.client.subscriptions.ListSubscriptions, request, "subscriptions", limit)
    rows = (
        (each.subscription_id, each.customer_key, each.plan_key, show_time(each.start_time), _end(each))
        for each in answer.subscriptions
    )
    session.show(answer, lambda: table(["subscription", "customer", "plan", "from", "to"], rows))


def _show(session: Session, made: pb.Subscription) -> None:
    period = f"{show_time(made.period_start_time)} to {show_time(made.period_end_time)}"
    card = {
        "subscription": made.subscription_id,
        "customer": made.customer_key,
        "plan": f"{made.plan_key}, version {made.plan_version}",
        "phase": made.phase_key,
        "from": show_time(made.start_time),
        "to": _end(made),
        "anchor": show_time(made.anchor_time),
        "period": period if made.HasField("period_start_time") else "",
    }
    session.show(made, lambda: Group(fields(card), _spans(made)))


def _spans(made: pb.Subscription) -> RenderableType:
    """Show what it is on and when, where that changes."""
    if len(made.spans) == 1:
        return Group()
    rows = (
        (show_time(each.start_time), show_time(each.end_time) or "open", _stage(each)) for each in made.spans
    )
    return table(["from", "to", "on"], rows)


def _stage(span: pb.SubscriptionSpan) -> str:
    phase = f", {span.phase_key}" if span.phase_key else ""
    return f"{span.plan_key}, version {span.plan_version}{phase}"


def _end(each: pb.Subscription) -> str:
    return show_time(each.end_time) or "open"
