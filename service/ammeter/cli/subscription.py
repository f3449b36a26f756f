"""Verbs that put customers on plans."""

import json
from typing import Annotated

import typer
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Group, RenderableType
from rich.progress import Progress

from ammeter.cli import agreed, root
from ammeter.cli.session import Session, console, list_all, messages, plain, session_of
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
    quantity: Annotated[int | None, typer.Option(help="Seats, for prices per seat; 1 if left out.")] = None,
) -> None:
    """Subscribe a customer to a plan."""
    session = session_of(ctx)
    request = pb.CreateSubscriptionRequest(
        customer_key=customer_key,
        plan_key=plan_key,
        start_time=start,
        anchor_time=anchor,
        quantity=quantity,
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


SubscriptionId = Annotated[str, typer.Argument(metavar="SUBSCRIPTION", help='Its id, "sub_...".')]
AtPeriodEnd = Annotated[bool, typer.Option("--at-period-end", help="When the current period ends.")]
At = Annotated[
    Timestamp | None, typer.Option(parser=parse_time, metavar="TIME", help=f"At a time ahead: {FORMS}.")
]


def _timing(at: Timestamp | None, *, at_period_end: bool) -> pb.ChangeTiming.ValueType:
    if at is not None and at_period_end:
        raise typer.BadParameter("--at and --at-period-end exclude each other")
    if at is not None:
        return pb.CHANGE_TIMING_AT_TIME
    return pb.CHANGE_TIMING_PERIOD_END if at_period_end else pb.CHANGE_TIMING_UNSPECIFIED


@group.command("change", epilog=root.EPILOG)
def change(
    ctx: typer.Context,
    subscription_id: SubscriptionId,
    plan_key: Annotated[str, typer.Argument(metavar="PLAN")],
    *,
    phase: Annotated[str, typer.Option(help="The phase to begin with; the first if left out.")] = "",
    quantity: Annotated[int | None, typer.Option(help="Seats; as they are if left out.")] = None,
    at: At = None,
    at_period_end: AtPeriodEnd = False,
) -> None:
    """Put a subscription on another plan: now, unless told otherwise."""
    session = session_of(ctx)
    request = pb.ChangeSubscriptionRequest(
        subscription_id=subscription_id,
        plan_key=plan_key,
        phase_key=phase,
        quantity=quantity,
        timing=_timing(at, at_period_end=at_period_end),
        change_time=at,
        request_id=new_request_id(),
    )
    _show(session, session.client.subscriptions.ChangeSubscription(request).subscription)


@group.command("resume", epilog=root.EPILOG)
def resume(ctx: typer.Context, subscription_id: SubscriptionId) -> None:
    """Take back a cancellation whose time has not come."""
    session = session_of(ctx)
    request = pb.ResumeSubscriptionRequest(subscription_id=subscription_id, request_id=new_request_id())
    _show(session, session.client.subscriptions.ResumeSubscription(request).subscription)


@group.command("quantity", epilog=root.EPILOG)
def quantity_(
    ctx: typer.Context,
    subscription_id: SubscriptionId,
    quantity: Annotated[int, typer.Argument(metavar="SEATS")],
    *,
    at: At = None,
    at_period_end: AtPeriodEnd = False,
) -> None:
    """Set what prices per seat are charged for: now, unless told otherwise."""
    session = session_of(ctx)
    request = pb.SetSubscriptionQuantityRequest(
        subscription_id=subscription_id,
        quantity=quantity,
        timing=_timing(at, at_period_end=at_period_end),
        change_time=at,
        request_id=new_request_id(),
    )
    _show(session, session.client.subscriptions.SetSubscriptionQuantity(request).subscription)


@group.command("migrate", epilog=root.EPILOG)
def migrate(
    ctx: typer.Context,
    plan_key: Annotated[str, typer.Argument(metavar="PLAN")],
    *,
    from_version: Annotated[
        int, typer.Option("--from", metavar="VERSION", help="All others if left out.")
    ] = 0,
    to_version: Annotated[
        int, typer.Option("--to", metavar="VERSION", help="The active one if left out.")
    ] = 0,
    now: Annotated[bool, typer.Option("--now", help="At once, not at the end of each one's period.")] = False,
    at: At = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write nothing; list what would be.")] = False,
) -> None:
    """Put all subscriptions on a plan onto another version of it. Safe to repeat."""
    session = session_of(ctx)
    if at is not None and now:
        raise typer.BadParameter("--at and --now exclude each other")
    timing = pb.CHANGE_TIMING_NOW if now else _timing(at, at_period_end=False)
    request = pb.MigrateSubscriptionsRequest(
        plan_key=plan_key,
        from_version=from_version,
        to_version=to_version,
        timing=timing,
        change_time=at,
        dry_run=dry_run,
    )
    rows, last = [], pb.MigrateSubscriptionsResponse()
    screen = messages()
    with Progress(console=screen, transient=True, disable=not screen.is_terminal) as progress:
        bar = progress.add_task("subscriptions", total=None)
        for last in session.client.subscriptions.MigrateSubscriptions(request):
            progress.update(bar, completed=last.done_count, total=last.total_count or None)
            if session.json:
                typer.echo(json.dumps(plain(last), ensure_ascii=False))
            elif last.subscription_id:
                rows.append(_move(last))
    if not session.json:
        titles = ["subscription", "customer", "from", "to", "at", "problem"]
        if rows:
            console().print(table(titles, rows))
        verb = "would move" if dry_run else "moved"
        console().print(
            f"{last.moved_count} {verb}, {last.problem_count} cannot, {last.done_count} were looked at"
        )
    if last.problem_count:
        raise typer.Exit(1)


def _move(each: pb.MigrateSubscriptionsResponse) -> tuple[object, ...]:
    to = f"{each.to_version}{f', {each.phase_key}' if each.phase_key else ''}"
    when = show_time(each.change_time)
    return each.subscription_id, each.customer_key, each.from_version, to, when, each.problem


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
        "seats": made.quantity,
        "from": show_time(made.start_time),
        "to": _end(made),
        "anchor": show_time(made.anchor_time),
        "period": period if made.HasField("period_start_time") else "",
    }
    session.show(made, lambda: Group(fields(card), _spans(made), agreed.overrides(made)))


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
    return f"{span.plan_key}, version {span.plan_version}{phase}, {span.quantity} seats"


def _end(each: pb.Subscription) -> str:
    return show_time(each.end_time) or "open"
