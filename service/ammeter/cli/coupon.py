"""Verbs on coupons."""

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
from ammeter.v1 import coupon_pb2 as pb

group = root.group("coupon", "What takes something off the periods of customers and subscriptions.")

Key = Annotated[str, typer.Argument(metavar="COUPON")]


@group.command("create", epilog=root.EPILOG)
def create(
    ctx: typer.Context,
    coupon_key: Key,
    *,
    percent: Annotated[str, typer.Option(help="Off each period, such as 10.")] = "",
    amount: Annotated[str, typer.Option(help="Money off each period; with --currency.")] = "",
    currency: Annotated[str, typer.Option(help="ISO 4217.")] = "",
    periods: Annotated[int, typer.Option(help="For so many periods: 1 is once, 0 for ever.")] = 0,
    name: Annotated[str, typer.Option(help="As printed on invoices.")] = "",
) -> None:
    """Create a coupon. It never changes."""
    session = session_of(ctx)
    if percent and amount:
        raise typer.BadParameter("give --percent or --amount, not both")
    draft = pb.Coupon(coupon_key=coupon_key, name=name, currency=currency, period_count=periods)
    if percent:
        draft.percentage = percent
    if amount:
        draft.amount = amount
    request = pb.CreateCouponRequest(coupon=draft, request_id=new_request_id())
    made = session.client.coupons.CreateCoupon(request).coupon
    session.show(made, lambda: _coupons([made]))


@group.command("get", epilog=root.EPILOG)
def get(ctx: typer.Context, coupon_key: Key) -> None:
    """Show one coupon."""
    session = session_of(ctx)
    found = session.client.coupons.GetCoupon(pb.GetCouponRequest(coupon_key=coupon_key)).coupon
    session.show(found, lambda: _coupons([found]))


@group.command("list", epilog=root.EPILOG)
def list_(ctx: typer.Context, *, limit: int = 1000) -> None:
    """List the coupons by key."""
    session = session_of(ctx)
    answer = list_all(
        session.client.coupons.ListCoupons, pb.ListCouponsRequest(page_size=1000), "coupons", limit
    )
    session.show(answer, lambda: _coupons(answer.coupons))


@group.command("archive", epilog=root.EPILOG)
def archive(ctx: typer.Context, coupon_key: Key) -> None:
    """Keep a coupon from being attached any more."""
    session = session_of(ctx)
    request = pb.ArchiveCouponRequest(coupon_key=coupon_key, request_id=new_request_id())
    closed = session.client.coupons.ArchiveCoupon(request).coupon
    session.show(closed, lambda: _coupons([closed]))


@group.command("attach", epilog=root.EPILOG)
def attach(
    ctx: typer.Context,
    coupon_key: Key,
    *,
    customer: Annotated[str, typer.Option(help="To all subscriptions of this customer.")] = "",
    subscription: Annotated[str, typer.Option(help="To this one.")] = "",
    from_time: Annotated[
        Timestamp | None,
        typer.Option("--from", parser=parse_time, metavar="TIME", help=f"Else now. {FORMS}."),
    ] = None,
) -> None:
    """Attach a coupon to a customer or to a subscription."""
    session = session_of(ctx)
    request = pb.AttachCouponRequest(
        coupon_key=coupon_key,
        customer_key=customer,
        subscription_id=subscription,
        from_time=from_time,
        request_id=new_request_id(),
    )
    attached = session.client.coupons.AttachCoupon(request).attached_coupon
    session.show(attached, lambda: _attached([attached]))


@group.command("detach", epilog=root.EPILOG)
def detach(
    ctx: typer.Context,
    attached_coupon_id: Annotated[str, typer.Argument(metavar="ID", help='Of the attachment, "cpn_...".')],
    *,
    to_time: Annotated[
        Timestamp | None, typer.Option("--at", parser=parse_time, metavar="TIME", help=f"Else now. {FORMS}.")
    ] = None,
) -> None:
    """End an attachment: periods that end later get nothing from it."""
    session = session_of(ctx)
    request = pb.DetachCouponRequest(
        attached_coupon_id=attached_coupon_id, to_time=to_time, request_id=new_request_id()
    )
    ended = session.client.coupons.DetachCoupon(request).attached_coupon
    session.show(ended, lambda: _attached([ended]))


@group.command("attached", epilog=root.EPILOG)
def attached_(
    ctx: typer.Context,
    *,
    customer: Annotated[str, typer.Option(help="Only this customer's.")] = "",
    limit: int = 1000,
) -> None:
    """List where coupons are attached."""
    session = session_of(ctx)
    request = pb.ListAttachedCouponsRequest(customer_key=customer, page_size=1000)
    answer = list_all(session.client.coupons.ListAttachedCoupons, request, "attached_coupons", limit)
    session.show(answer, lambda: _attached(answer.attached_coupons))


def _coupons(coupons: Iterable[pb.Coupon]) -> RenderableType:
    rows = (
        (
            each.coupon_key,
            each.name,
            f"{each.percentage} %" if each.percentage else f"{each.amount} {each.currency}",
            {0: "for ever", 1: "once"}.get(each.period_count, f"{each.period_count} periods"),
            show_time(each.archive_time),
        )
        for each in coupons
    )
    return table(["coupon", "name", "off", "for", "archived"], rows)


def _attached(found: Iterable[pb.AttachedCoupon]) -> RenderableType:
    rows = (
        (
            each.attached_coupon_id,
            each.coupon_key,
            each.customer_key,
            each.subscription_id or "all",
            show_time(each.from_time),
            show_time(each.to_time),
        )
        for each in found
    )
    return table(["id", "coupon", "customer", "subscription", "from", "until"], rows)
