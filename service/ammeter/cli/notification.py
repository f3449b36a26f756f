"""Verbs on thresholds, and on what they told."""

from typing import Annotated

import typer

from ammeter.cli import root
from ammeter.cli.session import Session, list_all, session_of
from ammeter.cli.times import show_time
from ammeter.cli.view import fields, table, thousands, word
from ammeter.client import new_request_id
from ammeter.v1 import notification_pb2 as pb

thresholds = root.group("threshold", "What you want to be told about use and balances.")
group = root.group("notification", "What was told.")

_KINDS = {word(name, "THRESHOLD_KIND").replace(" ", "-"): number for name, number in pb.ThresholdKind.items()}
_TOLD = {
    word(name, "NOTIFICATION_KIND").replace(" ", "-"): number for name, number in pb.NotificationKind.items()
}
Customer = Annotated[str, typer.Option("--customer", help="Only this one.")]
Feature = Annotated[str, typer.Option("--feature", help="Only this one.")]
Kind = Annotated[str, typer.Option("--kind", help=f"Only this kind: {', '.join([*_TOLD][1:])}.")]


@thresholds.command("create", epilog=root.EPILOG)
def create(
    ctx: typer.Context,
    kind: Annotated[str, typer.Argument(help="usage, balance, low-balance, exhausted or reset.")],
    level: Annotated[str, typer.Argument(help="An amount, or with % a share: 1000, 80%.")] = "",
    *,
    customer: Customer = "",
    feature: Feature = "",
) -> None:
    """Be told once in each usage period of every entitlement that it is about."""
    if kind not in _KINDS or not _KINDS[kind]:
        raise typer.BadParameter("KIND is usage, balance, low-balance, exhausted or reset")
    session = session_of(ctx)
    share = level.endswith("%")
    draft = pb.Threshold(
        customer_key=customer,
        feature_key=feature,
        kind=_KINDS[kind],
        amount="" if share else level,
        percent=level[:-1] if share else "",
    )
    request = pb.CreateThresholdRequest(threshold=draft, request_id=new_request_id())
    _show(session, session.client.notifications.CreateThreshold(request).threshold)


@thresholds.command("get", epilog=root.EPILOG)
def get(ctx: typer.Context, threshold_id: Annotated[str, typer.Argument(metavar="THRESHOLD")]) -> None:
    """Show one."""
    session = session_of(ctx)
    request = pb.GetThresholdRequest(threshold_id=threshold_id)
    _show(session, session.client.notifications.GetThreshold(request).threshold)


@thresholds.command("delete", epilog=root.EPILOG)
def delete(ctx: typer.Context, threshold_id: Annotated[str, typer.Argument(metavar="THRESHOLD")]) -> None:
    """Forget one. What it told stays."""
    session = session_of(ctx)
    request = pb.DeleteThresholdRequest(threshold_id=threshold_id, request_id=new_request_id())
    answer = session.client.notifications.DeleteThreshold(request)
    session.show(answer, lambda: fields({"deleted": threshold_id}))


@thresholds.command("list", epilog=root.EPILOG)
def list_(ctx: typer.Context, *, limit: int = 1000) -> None:
    """List them by creation."""
    session = session_of(ctx)
    request = pb.ListThresholdsRequest(page_size=1000)
    answer = list_all(session.client.notifications.ListThresholds, request, "thresholds", limit)
    rows = (
        (one.threshold_id, _kind(one), _level(one), one.customer_key, one.feature_key)
        for one in answer.thresholds
    )
    session.show(answer, lambda: table(["threshold", "kind", "level", "customer", "feature"], rows))


@group.command("list", epilog=root.EPILOG)
def list_notifications(
    ctx: typer.Context,
    *,
    after: Annotated[int, typer.Option(help="Only those after this sequence.")] = 0,
    customer: Customer = "",
    feature: Feature = "",
    kind: Kind = "",
    limit: int = 1000,
) -> None:
    """List what was told, the oldest first."""
    session = session_of(ctx)
    request = pb.ListNotificationsRequest(
        after_sequence=after, customer_key=customer, feature_key=feature, kind=_told(kind), page_size=1000
    )
    answer = list_all(session.client.notifications.ListNotifications, request, "notifications", limit)
    columns = ["sequence", "time", "kind", "level", "customer", "feature", "usage", "balance"]
    rows = map(_row, answer.notifications)
    session.show(answer, lambda: table(columns, rows))


@group.command("watch", epilog=root.EPILOG)
def watch(
    ctx: typer.Context,
    *,
    after: Annotated[int, typer.Option(help="The last sequence that you have; 0: from the beginning.")] = 0,
    customer: Customer = "",
    feature: Feature = "",
    kind: Kind = "",
) -> None:
    """Print what is told as it comes, a line each, until Ctrl-C."""
    session = session_of(ctx)
    request = pb.WatchNotificationsRequest(
        after_sequence=after, customer_key=customer, feature_key=feature, kind=_told(kind)
    )
    for answer in session.client.notifications.WatchNotifications(request):
        one = answer.notification
        session.show(one, lambda one=one: "  ".join(_row(one)))  # type: ignore[misc]  # one each


def _told(kind: str) -> pb.NotificationKind.ValueType:
    if kind and (kind not in _TOLD or not _TOLD[kind]):
        raise typer.BadParameter(f"--kind is one of {', '.join([*_TOLD][1:])}")
    return _TOLD.get(kind, pb.NOTIFICATION_KIND_UNSPECIFIED)


def _row(one: pb.Notification) -> tuple[str, ...]:
    needed = one.top_up
    level = f"{needed.threshold} {needed.currency}" if one.HasField("top_up") else _level(one.threshold)
    return (
        str(one.sequence),
        show_time(one.create_time),
        word(pb.NotificationKind.Name(one.kind), "NOTIFICATION_KIND"),
        level,
        one.customer_key,
        one.feature_key,
        thousands(one.usage),
        thousands(one.balance or needed.available),
    )


def _kind(rule: pb.Threshold) -> str:
    return word(pb.ThresholdKind.Name(rule.kind), "THRESHOLD_KIND")


def _level(rule: pb.Threshold) -> str:
    return f"{rule.percent}%" if rule.percent else thousands(rule.amount)


def _show(session: Session, rule: pb.Threshold) -> None:
    session.show(
        rule,
        lambda: fields(
            {
                "threshold": rule.threshold_id,
                "kind": _kind(rule),
                "level": _level(rule),
                "customer": rule.customer_key,
                "feature": rule.feature_key,
            }
        ),
    )
