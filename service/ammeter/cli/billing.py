"""Verbs on billing profiles and tax rates."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from google.protobuf.json_format import Parse, ParseError
from rich.console import RenderableType

from ammeter.cli import root
from ammeter.cli.session import list_all, plain, session_of
from ammeter.cli.times import show_time
from ammeter.cli.view import fields, table
from ammeter.client import new_request_id
from ammeter.v1 import billing_pb2 as pb

group = root.group("billing", "Who sells, when invoices are issued, what taxes are due.")
tax_rates = root.group("tax-rate", "The tax rates that billing profiles may name.")


@group.command("set", epilog=root.EPILOG)
def set_(
    ctx: typer.Context,
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE.json", help="An ammeter.v1.BillingProfile as JSON; - is stdin.", allow_dash=True
        ),
    ],
) -> None:
    """Put a profile in the place of the tenant's, or of the customer's that it names."""
    session = session_of(ctx)
    text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    try:
        profile = Parse(text, pb.BillingProfile())
    except ParseError as error:
        raise typer.BadParameter(f"{file} is not a billing profile: {error}") from None
    request = pb.SetBillingProfileRequest(profile=profile, request_id=new_request_id())
    stored = session.client.billing.SetBillingProfile(request).profile
    session.show(stored, lambda: _card(stored))


@group.command("get", epilog=root.EPILOG)
def get(
    ctx: typer.Context,
    customer_key: Annotated[
        str, typer.Argument(metavar="[CUSTOMER]", help="Left out: the tenant's own.")
    ] = "",
) -> None:
    """Show what holds: what was set, the tenant's where nothing was, or the default."""
    session = session_of(ctx)
    request = pb.GetBillingProfileRequest(customer_key=customer_key)
    answer = session.client.billing.GetBillingProfile(request)
    session.show(answer, lambda: _card(answer.effective))


@tax_rates.command("create", epilog=root.EPILOG)
def create_rate(
    ctx: typer.Context,
    tax_rate_key: Annotated[str, typer.Argument(metavar="RATE")],
    percentage: Annotated[str, typer.Argument(help="Such as 19 or 8.875.")],
    *,
    name: Annotated[str, typer.Option(help="As printed, such as 'VAT 19%'.")],
    inclusive: Annotated[bool, typer.Option("--inclusive", help="Prices contain it.")] = False,
    note: Annotated[str, typer.Option(help="What the law wants to be said beside it.")] = "",
) -> None:
    """Add a tax rate. It never changes."""
    session = session_of(ctx)
    draft = pb.TaxRate(
        tax_rate_key=tax_rate_key, percentage=percentage, name=name, inclusive=inclusive, note=note
    )
    request = pb.CreateTaxRateRequest(tax_rate=draft, request_id=new_request_id())
    made = session.client.billing.CreateTaxRate(request).tax_rate
    session.show(made, lambda: _rates([made]))


@tax_rates.command("archive", epilog=root.EPILOG)
def archive_rate(ctx: typer.Context, tax_rate_key: Annotated[str, typer.Argument(metavar="RATE")]) -> None:
    """Keep a rate out of profiles from now on."""
    session = session_of(ctx)
    request = pb.ArchiveTaxRateRequest(tax_rate_key=tax_rate_key, request_id=new_request_id())
    rate = session.client.billing.ArchiveTaxRate(request).tax_rate
    session.show(rate, lambda: _rates([rate]))


@tax_rates.command("list", epilog=root.EPILOG)
def list_rates(ctx: typer.Context, *, limit: int = 1000) -> None:
    """List the tax rates by key."""
    session = session_of(ctx)
    request = pb.ListTaxRatesRequest(page_size=1000)
    answer = list_all(session.client.billing.ListTaxRates, request, "tax_rates", limit)
    session.show(answer, lambda: _rates(list(answer.tax_rates)))


def _rates(rates: list[pb.TaxRate]) -> RenderableType:
    rows = (
        (
            each.tax_rate_key,
            each.name,
            f"{each.percentage} %",
            "included" if each.inclusive else "on top",
            show_time(each.archive_time) if each.HasField("archive_time") else "",
        )
        for each in rates
    )
    return table(["tax rate", "name", "percentage", "prices", "archived"], rows)


def _card(profile: pb.BillingProfile) -> RenderableType:
    shown = {name.replace("_", " "): value for name, value in plain(profile).items() if name != "tax_rules"}
    rules = [
        f"{rule.feature_key or 'all other lines'}: {' and '.join(rule.tax_rate_keys) or 'no tax'}"
        for rule in profile.tax_rules.rules
    ]
    return fields(shown | {"tax rules": rules})
