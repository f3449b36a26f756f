"""Verbs that ask and say who may use what."""

import json
from typing import Annotated, Any

import typer
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Group, RenderableType
from rich.text import Text

from ammeter.cli import root
from ammeter.cli.feature import fail_words
from ammeter.cli.session import Session, list_all, session_of
from ammeter.cli.times import FORMS, parse_time, show_time
from ammeter.cli.view import fields, table, thousands, word
from ammeter.client import new_request_id
from ammeter.v1 import entitlement_pb2 as pb
from ammeter.v1 import history_pb2, usage_pb2

group = root.group("entitlement", "Who may use what; see also `check`, `access` and `grant`.")

_DENIED = 3
_ID = typer.Argument(metavar="ENTITLEMENT", help='Its id, "ent_...".')


def check(
    ctx: typer.Context,
    who: Annotated[
        str, typer.Argument(metavar="CUSTOMER", help="The customer's key, or with --subject a subject.")
    ],
    feature_key: Annotated[str, typer.Argument(metavar="FEATURE")],
    *,
    amount: Annotated[str, typer.Option(help="Is at least this much left?")] = "",
    subject: Annotated[bool, typer.Option("--subject", help="CUSTOMER is a subject.")] = False,
) -> None:
    """Ask whether a customer may use a feature. Exit code 0: yes; 3: no."""
    session = session_of(ctx)
    question = pb.EntitlementCheck(feature_key=feature_key, amount=amount)
    if subject:
        question.subject = who
    else:
        question.customer_key = who
    answer = session.client.entitlements.CheckEntitlement(pb.CheckEntitlementRequest(check=question))
    session.show(answer, lambda: card(answer.access))
    if not answer.access.access:
        raise typer.Exit(_DENIED)


def explain(
    ctx: typer.Context,
    customer_key: Annotated[str, typer.Argument(metavar="CUSTOMER")],
    feature_key: Annotated[str, typer.Argument(metavar="FEATURE")],
    *,
    amount: Annotated[str, typer.Option(help="Is at least this much left?")] = "",
) -> None:
    """Say why a customer may or may not use a feature: entitlement, grants, use."""
    session = session_of(ctx)
    question = pb.EntitlementCheck(customer_key=customer_key, feature_key=feature_key, amount=amount)
    answer = session.client.entitlements.ExplainAccess(pb.ExplainAccessRequest(check=question))
    session.show(answer, lambda: Text("\n".join(answer.sentences)))


def access(
    ctx: typer.Context,
    customer_key: Annotated[str, typer.Argument(metavar="CUSTOMER")],
) -> None:
    """Ask for every feature of a customer at once."""
    session = session_of(ctx)
    answer = session.client.entitlements.ListAccess(pb.ListAccessRequest(customer_key=customer_key))
    rows = (
        (
            each.feature_key,
            "yes" if each.access.access else "no",
            word(pb.AccessReason.Name(each.access.reason), "ACCESS_REASON"),
            thousands(each.access.balance),
            thousands(each.access.usage),
        )
        for each in answer.features
    )
    session.show(answer, lambda: table(["feature", "access", "reason", "balance", "usage"], rows))


@group.command("create", epilog=root.EPILOG)
def create(  # noqa: PLR0913 - the options of one verb
    ctx: typer.Context,
    customer_key: Annotated[str, typer.Argument(metavar="CUSTOMER")],
    feature_key: Annotated[str, typer.Argument(metavar="FEATURE")],
    *,
    every: Annotated[
        str, typer.Option(metavar="CADENCE", help="Metered, with usage periods of this length: P1D, P1M.")
    ] = "",
    subscription: Annotated[
        str, typer.Option(help="Metered, with this subscription's billing periods.")
    ] = "",
    allowance: Annotated[str, typer.Option(help="Issued at each reset; none: only grants count.")] = "",
    anchor: Annotated[
        Timestamp | None,
        typer.Option(parser=parse_time, metavar="TIME", help="Where periods begin; the start if left out."),
    ] = None,
    soft: Annotated[bool, typer.Option("--soft", help="Give access beyond what is there, too.")] = False,
    preserve_overage: Annotated[
        bool, typer.Option("--preserve-overage", help="Carry use beyond what was there over a reset.")
    ] = False,
    config: Annotated[str, typer.Option(help="Static: a JSON object, handed out as it is.")] = "",
    start: Annotated[
        Timestamp | None,
        typer.Option("--from", parser=parse_time, metavar="TIME", help=f"Now if left out: {FORMS}."),
    ] = None,
    end: Annotated[
        Timestamp | None,
        typer.Option("--to", parser=parse_time, metavar="TIME", help="Open-ended if left out."),
    ] = None,
    override: Annotated[
        bool, typer.Option("--override", help="In place of the one that is active then.")
    ] = False,
) -> None:
    """Give a customer a feature: metered with --every or --subscription, else static or boolean."""
    session = session_of(ctx)
    wanted = pb.Entitlement(
        customer_key=customer_key,
        feature_key=feature_key,
        subscription_id=subscription,
        from_time=start,
        to_time=end,
    )
    if every or subscription:
        metered = pb.MeteredEntitlement(
            allowance=allowance, soft_limit=soft, preserve_overage=preserve_overage
        )
        if every:
            metered.usage_period.MergeFrom(pb.UsagePeriod(cadence=every, anchor_time=anchor))
        wanted.metered.CopyFrom(metered)
    elif config:
        wanted.static.config.update(_object(config))
    else:
        wanted.boolean.SetInParent()
    entitlements = session.client.entitlements
    if override:
        replacing = pb.OverrideEntitlementRequest(entitlement=wanted, request_id=new_request_id())
        _show(session, entitlements.OverrideEntitlement(replacing).entitlement)
    else:
        request = pb.CreateEntitlementRequest(entitlement=wanted, request_id=new_request_id())
        _show(session, entitlements.CreateEntitlement(request).entitlement)


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(f"--config is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise typer.BadParameter("--config must be a JSON object")
    return found


@group.command("delete", epilog=root.EPILOG)
def delete(ctx: typer.Context, entitlement_id: Annotated[str, _ID]) -> None:
    """End an entitlement now, for good; its subscription, if any, goes on."""
    session = session_of(ctx)
    request = pb.DeleteEntitlementRequest(entitlement_id=entitlement_id, request_id=new_request_id())
    _show(session, session.client.entitlements.DeleteEntitlement(request).entitlement)


@group.command("reset", epilog=root.EPILOG)
def reset(
    ctx: typer.Context,
    entitlement_id: Annotated[str, _ID],
    *,
    at: Annotated[
        Timestamp | None,
        typer.Option(parser=parse_time, metavar="TIME", help="An earlier minute of the present period."),
    ] = None,
    move_anchor: Annotated[
        bool, typer.Option("--move-anchor", help="Count later periods from this reset.")
    ] = False,
    preserve_overage: Annotated[
        bool | None, typer.Option(help="For this reset; as the entitlement says if left out.")
    ] = None,
) -> None:
    """Begin a new usage period: now, unless told otherwise."""
    session = session_of(ctx)
    request = pb.ResetUsageRequest(
        entitlement_id=entitlement_id,
        reset_time=at,
        move_anchor=move_anchor,
        preserve_overage=preserve_overage,
        request_id=new_request_id(),
    )
    answer = session.client.entitlements.ResetUsage(request)
    period = f"{show_time(answer.period_start_time)} to {show_time(answer.period_end_time)}"
    session.show(answer, lambda: fields({"period": period}))


@group.command("history", epilog=root.EPILOG)
def history(
    ctx: typer.Context,
    entitlement_id: Annotated[str, _ID],
    *,
    start: Annotated[
        Timestamp | None,
        typer.Option("--from", parser=parse_time, metavar="TIME", help=f"The period's start: {FORMS}."),
    ] = None,
    end: Annotated[
        Timestamp | None, typer.Option("--to", parser=parse_time, metavar="TIME", help="Now if left out.")
    ] = None,
    hours: Annotated[bool, typer.Option("--hours", help="By hour; by day if left out.")] = False,
    zone: Annotated[str, typer.Option(help="IANA name; the customer's if left out.")] = "",
) -> None:
    """Tell what was used, what was left, and which grant paid how much until what changed."""
    session = session_of(ctx)
    request = history_pb2.GetEntitlementHistoryRequest(
        entitlement_id=entitlement_id,
        from_time=start,
        to_time=end,
        window_size=usage_pb2.WINDOW_SIZE_HOUR if hours else usage_pb2.WINDOW_SIZE_DAY,
        time_zone=zone,
    )
    answer = session.client.entitlements.GetEntitlementHistory(request)
    windows = (
        (show_time(each.from_time), thousands(each.usage), thousands(each.balance), thousands(each.overage))
        for each in answer.windows
    )
    segments = (
        (
            show_time(each.from_time),
            show_time(each.to_time),
            thousands(each.usage),
            [f"{grant.grant_id or 'allowance'}: {thousands(grant.paid)}" for grant in each.grants],
            [
                f"{word(history_pb2.SegmentEnd.Cause.Name(end.cause), 'CAUSE')} {end.grant_id}".strip()
                for end in each.ends
            ],
        )
        for each in answer.segments
    )
    session.show(
        answer,
        lambda: Group(
            table(["from", "usage", "balance", "overage"], windows),
            table(["from", "to", "usage", "paid", "until"], segments),
        ),
    )


@group.command("list", epilog=root.EPILOG)
def list_(
    ctx: typer.Context,
    customer_key: Annotated[str, typer.Argument(metavar="CUSTOMER")],
    *,
    limit: int = 1000,
) -> None:
    """List the entitlements of a customer: current, future and past."""
    session = session_of(ctx)
    request = pb.ListEntitlementsRequest(customer_key=customer_key, page_size=1000)
    answer = list_all(session.client.entitlements.ListEntitlements, request, "entitlements", limit)
    rows = (
        (
            each.entitlement_id,
            each.feature_key,
            each.WhichOneof("kind"),
            _allowances(each.metered),
            each.subscription_id or "by hand",
            show_time(each.from_time),
            show_time(each.to_time) or "open",
        )
        for each in answer.entitlements
    )
    columns = ["entitlement", "feature", "kind", "allowance", "subscription", "from", "to"]
    session.show(answer, lambda: table(columns, rows))


def _show(session: Session, made: pb.Entitlement) -> None:
    period = made.metered.usage_period
    shown = {
        "entitlement": made.entitlement_id,
        "customer": made.customer_key,
        "feature": made.feature_key,
        "kind": made.WhichOneof("kind"),
        "allowance": _allowances(made.metered),
        "every": f"{period.cadence} from {show_time(period.anchor_time)}" if period.cadence else "",
        "from": show_time(made.from_time),
        "to": show_time(made.to_time) or "open",
    }
    session.show(made, lambda: fields(shown))


def _allowances(metered: pb.MeteredEntitlement) -> str:
    changes = [f"{thousands(one.allowance)} from {show_time(one.from_time)}" for one in metered.changes]
    return ", ".join([thousands(metered.allowance), *changes])


def card(access: pb.Access) -> RenderableType:
    """Draw the yes or no, its reason and what is left."""
    verdict = Text("yes", "bold green") if access.access else Text("no", "bold red")
    verdict.append(f": {word(pb.AccessReason.Name(access.reason), 'ACCESS_REASON')}", "default")
    period = f"{show_time(access.period_start_time)} to {show_time(access.period_end_time)}"
    return Group(
        verdict,
        fields(
            {
                "allowance": thousands(access.allowance),
                "usage": thousands(access.usage),
                "balance": thousands(access.balance),
                "held": thousands(access.held),
                "overage": thousands(access.overage) if access.overage != "0" else "",
                "period": period if access.HasField("period_start_time") else "",
                "without an answer": fail_words(access),
                "": access.message,
            }
        ),
    )
