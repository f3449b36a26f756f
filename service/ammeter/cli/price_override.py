"""Verbs on prices that were agreed on with one customer."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer
from google.protobuf.json_format import Parse, ParseError
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import RenderableType

from ammeter.cli import root
from ammeter.cli.plan import price
from ammeter.cli.session import list_all, session_of
from ammeter.cli.times import FORMS, parse_time, show_time
from ammeter.cli.view import table
from ammeter.client import new_request_id
from ammeter.v1 import catalog_pb2
from ammeter.v1 import price_override_pb2 as pb

group = root.group("price-override", "Other prices for one subscription, without another plan.")


@group.command("create", epilog=root.EPILOG)
def create(
    ctx: typer.Context,
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE.json", help="An ammeter.v1.PriceOverride as JSON; - is stdin.", allow_dash=True
        ),
    ],
) -> None:
    """Put a price, or what is around one, in the place of a rate card's."""
    session = session_of(ctx)
    text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    try:
        draft = Parse(text, pb.PriceOverride())
    except ParseError as error:
        raise typer.BadParameter(f"{file} is not a price override: {error}") from None
    request = pb.CreatePriceOverrideRequest(price_override=draft, request_id=new_request_id())
    made = session.client.price_overrides.CreatePriceOverride(request).price_override
    session.show(made, lambda: _rows([made]))


@group.command("end", epilog=root.EPILOG)
def end(
    ctx: typer.Context,
    price_override_id: Annotated[str, typer.Argument(metavar="ID", help='"pov_...".')],
    *,
    to_time: Annotated[
        Timestamp | None,
        typer.Option("--at", parser=parse_time, metavar="TIME", help=f"Else now: {FORMS}."),
    ] = None,
) -> None:
    """Let the rate card hold again."""
    session = session_of(ctx)
    request = pb.EndPriceOverrideRequest(
        price_override_id=price_override_id, to_time=to_time, request_id=new_request_id()
    )
    ended = session.client.price_overrides.EndPriceOverride(request).price_override
    session.show(ended, lambda: _rows([ended]))


@group.command("list", epilog=root.EPILOG)
def list_(
    ctx: typer.Context,
    subscription_id: Annotated[str, typer.Argument(metavar="SUBSCRIPTION")],
    *,
    limit: int = 1000,
) -> None:
    """List what was agreed on for a subscription."""
    session = session_of(ctx)
    request = pb.ListPriceOverridesRequest(subscription_id=subscription_id, page_size=1000)
    answer = list_all(session.client.price_overrides.ListPriceOverrides, request, "price_overrides", limit)
    session.show(answer, lambda: _rows(answer.price_overrides))


def _rows(found: Iterable[pb.PriceOverride]) -> RenderableType:
    rows = (
        (
            each.price_override_id,
            each.rate_card_key,
            instead(each),
            show_time(each.from_time),
            show_time(each.to_time),
            each.reason,
        )
        for each in found
    )
    return table(["id", "rate card", "instead", "from", "until", "reason"], rows)


def instead(one: pb.PriceOverride) -> str:
    """Say what an override charges."""
    card = catalog_pb2.RateCard(
        price=one.price,
        unit_conversion=one.unit_conversion,
        discounts=one.discounts,
        commitments=one.commitments,
    )
    return price(card) or "nothing around the price"
