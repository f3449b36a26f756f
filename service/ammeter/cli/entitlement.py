"""The verb that asks whether a customer may use a feature."""

from typing import Annotated

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from ammeter.cli.session import session_of
from ammeter.cli.times import show_time
from ammeter.cli.view import fields, thousands, word
from ammeter.v1 import entitlement_pb2 as pb

_DENIED = 3


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


def card(access: pb.Access) -> RenderableType:
    """Draw the yes or no, its reason and what is left."""
    verdict = Text("yes", "bold green") if access.access else Text("no", "bold red")
    verdict.append(f": {word(pb.AccessReason.Name(access.reason), 'ACCESS_REASON')}", "default")
    period = f"{show_time(access.period_start_time)} to {show_time(access.period_end_time)}"
    if access.message and not access.access:
        verdict.append(f"\n{access.message}", "default")
    facts = {
        "allowance": thousands(access.allowance),
        "usage": thousands(access.usage),
        "balance": thousands(access.balance),
        "overage": thousands(access.overage) if access.overage != "0" else "",
        "period": period if access.HasField("period_start_time") else "",
    }
    return Group(verdict, fields(facts)) if access.allowance else verdict
