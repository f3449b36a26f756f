"""Verbs on add-ons."""

from collections.abc import Iterable
from typing import Annotated

import typer
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import RenderableType

from ammeter.cli import root
from ammeter.cli.session import list_all, session_of
from ammeter.cli.times import FORMS, parse_time, show_time
from ammeter.cli.view import table
from ammeter.client import new_request_id
from ammeter.v1 import add_on_pb2 as pb

group = root.group("add-on", "Plans beside a subscription's own.")

Subscription = Annotated[str, typer.Argument(metavar="SUBSCRIPTION")]


@group.command("attach", epilog=root.EPILOG)
def attach(
    ctx: typer.Context,
    subscription_id: Subscription,
    plan_key: Annotated[str, typer.Argument(metavar="PLAN")],
    *,
    quantity: Annotated[int, typer.Option(help="How many, if it has a flat price per seat.")] = 1,
    from_time: Annotated[
        Timestamp | None,
        typer.Option("--from", parser=parse_time, metavar="TIME", help=f"Else now: {FORMS}."),
    ] = None,
) -> None:
    """Attach a plan to a subscription."""
    session = session_of(ctx)
    request = pb.AttachAddOnRequest(
        subscription_id=subscription_id,
        plan_key=plan_key,
        quantity=quantity,
        from_time=from_time,
        request_id=new_request_id(),
    )
    made = session.client.add_ons.AttachAddOn(request).add_on
    session.show(made, lambda: _rows([made]))


@group.command("detach", epilog=root.EPILOG)
def detach(
    ctx: typer.Context,
    add_on_id: Annotated[str, typer.Argument(metavar="ID", help='"add_...".')],
    *,
    to_time: Annotated[
        Timestamp | None,
        typer.Option("--at", parser=parse_time, metavar="TIME", help=f"Else now: {FORMS}."),
    ] = None,
) -> None:
    """End an add-on."""
    session = session_of(ctx)
    request = pb.DetachAddOnRequest(add_on_id=add_on_id, to_time=to_time, request_id=new_request_id())
    done = session.client.add_ons.DetachAddOn(request).add_on
    session.show(done, lambda: _rows([done]))


@group.command("list", epilog=root.EPILOG)
def list_(ctx: typer.Context, subscription_id: Subscription, *, limit: int = 1000) -> None:
    """List the add-ons of a subscription."""
    session = session_of(ctx)
    request = pb.ListAddOnsRequest(subscription_id=subscription_id, page_size=1000)
    answer = list_all(session.client.add_ons.ListAddOns, request, "add_ons", limit)
    session.show(answer, lambda: _rows(answer.add_ons))


def _rows(found: Iterable[pb.AddOn]) -> RenderableType:
    rows = (
        (
            each.add_on_id,
            each.plan_key,
            each.plan_version,
            each.quantity,
            show_time(each.from_time),
            show_time(each.to_time),
        )
        for each in found
    )
    return table(["id", "plan", "version", "quantity", "from", "until"], rows)
