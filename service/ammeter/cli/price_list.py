"""Verbs on price lists: what a unit of each model costs, from when on."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import RenderableType

from ammeter.cli import root
from ammeter.cli.price_file import PriceFileError, read_prices
from ammeter.cli.session import Session, console, list_all, messages, session_of
from ammeter.cli.times import FORMS, parse_time, show_time
from ammeter.cli.view import table, word
from ammeter.client import new_request_id
from ammeter.v1 import price_list_pb2 as pb

group = root.group("price-list", "What a unit of each model costs, from when on.")

Key = Annotated[str, typer.Argument(metavar="LIST")]
File = Annotated[
    Path,
    typer.Argument(
        metavar="FILE",
        help="CSV with a header (model,token_type,unit_amount and, if wanted, per,effective_time), or JSON: "
        "a list of objects with these names. - is stdin, as CSV or JSON.",
        allow_dash=True,
    ),
]
From = Annotated[
    Timestamp | None,
    typer.Option(
        "--from", parser=parse_time, metavar="TIME", help=f"Of rows without a time; else now. {FORMS}."
    ),
]
Missing = Annotated[
    bool, typer.Option("--withdraw-missing", help="What the file does not name has no price from then on.")
]
Above = Annotated[
    bool, typer.Option("--override", help="Above the list: it wins over whatever is imported there.")
]


@group.command("create", epilog=root.EPILOG)
def create(
    ctx: typer.Context,
    price_list_key: Key,
    *,
    name: Annotated[str, typer.Option()] = "",
    currency: Annotated[str, typer.Option(help="ISO 4217.")] = "USD",
) -> None:
    """Add an empty price list."""
    session = session_of(ctx)
    draft = pb.PriceList(price_list_key=price_list_key, name=name, currency=currency)
    request = pb.CreatePriceListRequest(price_list=draft, request_id=new_request_id())
    made = session.client.price_lists.CreatePriceList(request).price_list
    session.show(made, lambda: _lists([made]))


@group.command("list", epilog=root.EPILOG)
def list_(ctx: typer.Context, *, limit: int = 1000) -> None:
    """List the price lists by key."""
    session = session_of(ctx)
    request = pb.ListPriceListsRequest(page_size=1000)
    answer = list_all(session.client.price_lists.ListPriceLists, request, "price_lists", limit)
    session.show(answer, lambda: _lists(answer.price_lists))


@group.command("show", epilog=root.EPILOG)
def show(
    ctx: typer.Context,
    price_list_key: Key,
    *,
    at: Annotated[
        Timestamp | None,
        typer.Option(parser=parse_time, metavar="TIME", help=f"What holds then; else all entries. {FORMS}."),
    ] = None,
    model: Annotated[str, typer.Option(help="Only of this model.")] = "",
    limit: int = 10_000,
) -> None:
    """Show the entries of a price list."""
    session = session_of(ctx)
    request = pb.ListPricesRequest(price_list_key=price_list_key, at_time=at, model=model, page_size=1000)
    answer = list_all(session.client.price_lists.ListPrices, request, "entries", limit)
    session.show(answer, lambda: _entries(answer.entries))


@group.command("diff", epilog=root.EPILOG)
def diff(
    ctx: typer.Context,
    price_list_key: Key,
    file: File,
    *,
    effective: From = None,
    withdraw_missing: Missing = False,
    override: Above = False,
) -> None:
    """Show what an import would change. Writes nothing."""
    session = session_of(ctx)
    request = _request(price_list_key, file, effective, withdraw_missing=withdraw_missing, override=override)
    request.dry_run = True
    answer = session.client.price_lists.ImportPrices(request)
    session.show(answer, lambda: _diff(answer))


@group.command("import", epilog=root.EPILOG)
def import_(
    ctx: typer.Context,
    price_list_key: Key,
    file: File,
    *,
    effective: From = None,
    withdraw_missing: Missing = False,
    override: Above = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Take prices in from a file: shows what it would change, asks, and changes just that."""
    session = session_of(ctx)
    request = _request(price_list_key, file, effective, withdraw_missing=withdraw_missing, override=override)
    if not yes:
        _confirm(session, request)
    request.request_id = new_request_id()
    answer = session.client.price_lists.ImportPrices(request)
    session.show(answer, lambda: _diff(answer) if yes else f"{answer.change_count} prices changed")


def _confirm(session: Session, request: pb.ImportPricesRequest) -> None:
    """Show the changes and ask; what is applied after that is what was shown, or nothing."""
    dry = pb.ImportPricesRequest()
    dry.CopyFrom(request)
    dry.dry_run = True
    answer = session.client.price_lists.ImportPrices(dry)
    (messages() if session.json else console()).print(_diff(answer))
    if answer.change_count:
        typer.confirm("Import?", abort=True, err=True)
    request.etag = answer.price_list.etag


@group.command("override", epilog=root.EPILOG)
def override_(
    ctx: typer.Context,
    price_list_key: Key,
    model: Annotated[str, typer.Argument(metavar="MODEL")],
    token_type: Annotated[str, typer.Argument(metavar="TOKEN_TYPE")],
    unit_amount: Annotated[
        str, typer.Argument(metavar="AMOUNT", help='Money per unit; "none": the list\'s price again.')
    ],
    *,
    effective: From = None,
) -> None:
    """Set one price above the list, or take it away."""
    session = session_of(ctx)
    entry = pb.PriceEntry(
        model=model, token_type=token_type, unit_amount="" if unit_amount == "none" else unit_amount
    )
    request = pb.ImportPricesRequest(
        price_list_key=price_list_key,
        entries=[entry],
        effective_time=effective,
        override=True,
        request_id=new_request_id(),
    )
    answer = session.client.price_lists.ImportPrices(request)
    session.show(answer, lambda: _diff(answer))


def _request(
    price_list_key: str, file: Path, effective: Timestamp | None, *, withdraw_missing: bool, override: bool
) -> pb.ImportPricesRequest:
    text = typer.get_text_stream("stdin").read() if str(file) == "-" else file.read_text(encoding="utf-8-sig")
    try:
        entries = read_prices(text)
    except PriceFileError as error:
        raise typer.BadParameter(f"{file}: {error}") from None
    return pb.ImportPricesRequest(
        price_list_key=price_list_key,
        entries=entries,
        # Said once, so that what is shown and what is imported are of one time.
        effective_time=effective or parse_time("now"),
        withdraw_missing=withdraw_missing,
        override=override,
    )


def _lists(lists: Iterable[pb.PriceList]) -> RenderableType:
    rows = ((each.price_list_key, each.name, each.currency, show_time(each.update_time)) for each in lists)
    return table(["price list", "name", "currency", "changed"], rows)


def _entries(entries: Iterable[pb.PriceEntry]) -> RenderableType:
    rows = (
        (
            each.model,
            each.token_type,
            each.unit_amount or "withdrawn",
            show_time(each.effective_time),
            "override" if each.layer == pb.PriceEntry.LAYER_OVERRIDE else "",
        )
        for each in entries
    )
    return table(["model", "tokens", "unit amount", "from", "layer"], rows)


def _diff(answer: pb.ImportPricesResponse) -> RenderableType:
    if not answer.change_count:
        return f"nothing changes: {answer.unchanged_count} prices are as the list has them"
    rows = (
        (
            word(pb.PriceChange.Kind.Name(each.kind), "KIND"),
            each.entry.model,
            each.entry.token_type,
            each.before_unit_amount,
            each.entry.unit_amount,
            show_time(each.entry.effective_time) + (" (past)" if each.in_past else ""),
            show_time(each.until_time) if each.HasField("until_time") else "",
        )
        for each in answer.changes
    )
    title = f"{answer.change_count} change, {answer.unchanged_count} stay"
    columns = ["", "model", "tokens", "unit amount before", "unit amount", "from", "until"]
    return table(columns, rows, title=title)
