"""Verbs on grants."""

from typing import Annotated

import typer
from google.protobuf.timestamp_pb2 import Timestamp

from ammeter.cli import root
from ammeter.cli.session import Session, list_all, session_of
from ammeter.cli.times import FORMS, parse_time, show_time
from ammeter.cli.view import fields, table, thousands
from ammeter.client import new_request_id
from ammeter.v1 import entitlement_pb2 as pb

group = root.group("grant", "What fills metered entitlements beside their allowance.")


@group.command("create", epilog=root.EPILOG)
def create(  # noqa: PLR0913 - the options of one verb
    ctx: typer.Context,
    entitlement_id: Annotated[str, typer.Argument(metavar="ENTITLEMENT", help='Its id, "ent_...".')],
    amount: Annotated[str, typer.Argument(metavar="AMOUNT")],
    *,
    priority: Annotated[int, typer.Option(help="Lower burns first; the allowance has 0.")] = 0,
    start: Annotated[
        Timestamp | None,
        typer.Option("--from", parser=parse_time, metavar="TIME", help=f"Now if left out: {FORMS}."),
    ] = None,
    expires: Annotated[
        Timestamp | None, typer.Option(parser=parse_time, metavar="TIME", help="Never if left out.")
    ] = None,
    every: Annotated[
        str, typer.Option(metavar="CADENCE", help="What is left becomes AMOUNT again so often: P1D, P1M.")
    ] = "",
    anchor: Annotated[
        Timestamp | None,
        typer.Option(parser=parse_time, metavar="TIME", help="Where --every counts from; the start."),
    ] = None,
    rollover_minimum: Annotated[str, typer.Option(help="A reset leaves at least so much.")] = "",
    rollover_maximum: Annotated[
        str, typer.Option(help="A reset leaves at most so much; all that is left if not given.")
    ] = "",
) -> None:
    """Add to what a metered entitlement has to use."""
    session = session_of(ctx)
    wanted = pb.Grant(
        entitlement_id=entitlement_id,
        amount=amount,
        priority=priority,
        effective_time=start,
        expire_time=expires,
        rollover_minimum=rollover_minimum,
        rollover_maximum=rollover_maximum,
    )
    if every:
        wanted.recurrence.MergeFrom(pb.Recurrence(cadence=every, anchor_time=anchor))
    request = pb.CreateGrantRequest(grant=wanted, request_id=new_request_id())
    _show(session, session.client.entitlements.CreateGrant(request).grant)


@group.command("void", epilog=root.EPILOG)
def void(
    ctx: typer.Context,
    grant_id: Annotated[str, typer.Argument(metavar="GRANT", help='Its id, "grt_...".')],
    *,
    at: Annotated[
        Timestamp | None,
        typer.Option(parser=parse_time, metavar="TIME", help="An earlier minute of the present period."),
    ] = None,
) -> None:
    """Take back what is left of a grant: now, unless told otherwise."""
    session = session_of(ctx)
    request = pb.VoidGrantRequest(grant_id=grant_id, void_time=at, request_id=new_request_id())
    _show(session, session.client.entitlements.VoidGrant(request).grant)


@group.command("list", epilog=root.EPILOG)
def list_(
    ctx: typer.Context,
    entitlement_id: Annotated[str, typer.Argument(metavar="ENTITLEMENT")],
    *,
    limit: int = 1000,
) -> None:
    """List the grants of an entitlement by creation, void and expired ones, too."""
    session = session_of(ctx)
    request = pb.ListGrantsRequest(entitlement_id=entitlement_id, page_size=1000)
    answer = list_all(session.client.entitlements.ListGrants, request, "grants", limit)
    rows = (
        (
            each.grant_id,
            thousands(each.amount),
            each.priority,
            show_time(each.effective_time),
            show_time(each.expire_time) or "never",
            each.recurrence.cadence,
            show_time(each.void_time),
        )
        for each in answer.grants
    )
    columns = ["grant", "amount", "priority", "from", "expires", "every", "void from"]
    session.show(answer, lambda: table(columns, rows))


def _show(session: Session, made: pb.Grant) -> None:
    recurrence = made.recurrence
    shown = {
        "grant": made.grant_id,
        "entitlement": made.entitlement_id,
        "amount": thousands(made.amount),
        "priority": made.priority,
        "from": show_time(made.effective_time),
        "expires": show_time(made.expire_time) or "never",
        "every": f"{recurrence.cadence} from {show_time(recurrence.anchor_time)}"
        if recurrence.cadence
        else "",
        "rollover": f"{made.rollover_minimum} to {made.rollover_maximum or 'all'}",
        "void from": show_time(made.void_time),
    }
    session.show(made, lambda: fields(shown))
