"""Verbs on plans."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from google.protobuf.json_format import MessageToJson, Parse, ParseError
from rich.console import Group, RenderableType

from ammeter.cli import root
from ammeter.cli.session import Session, list_all, session_of
from ammeter.cli.view import fields, table, thousands, word
from ammeter.client import new_request_id
from ammeter.v1 import catalog_pb2 as pb
from ammeter.v1 import price_pb2

group = root.group("plan", "What is sold.")


@group.command("create", epilog=root.EPILOG)
def create(
    ctx: typer.Context,
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE.json", help="An ammeter.v1.Plan as JSON; - is stdin.", allow_dash=True),
    ],
) -> None:
    """Create a plan from a file."""
    session = session_of(ctx)
    text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    try:
        draft = Parse(text, pb.Plan())
    except ParseError as error:
        raise typer.BadParameter(f"{file} is not a plan: {error}") from None
    request = pb.CreatePlanRequest(plan=draft, request_id=new_request_id())
    _show(session, session.client.catalog.CreatePlan(request).plan)


@group.command("get", epilog=root.EPILOG)
def get(ctx: typer.Context, plan_key: Annotated[str, typer.Argument(metavar="PLAN")]) -> None:
    """Show one plan and its rate cards."""
    session = session_of(ctx)
    _show(session, session.client.catalog.GetPlan(pb.GetPlanRequest(plan_key=plan_key)).plan)


@group.command("list", epilog=root.EPILOG)
def list_(ctx: typer.Context, *, limit: int = 1000) -> None:
    """List the plans by key."""
    session = session_of(ctx)
    answer = list_all(session.client.catalog.ListPlans, pb.ListPlansRequest(page_size=1000), "plans", limit)
    rows = (
        (each.plan_key, each.name, each.currency, each.billing_cadence, len(each.rate_cards), _state(each))
        for each in answer.plans
    )
    session.show(answer, lambda: table(["plan", "name", "currency", "period", "lines", "state"], rows))


def _show(session: Session, plan: pb.Plan) -> None:
    session.show(plan, lambda: _card(plan))


def _card(plan: pb.Plan) -> RenderableType:
    card = fields(
        {
            "plan": plan.plan_key,
            "name": plan.name,
            "currency": plan.currency,
            "period": plan.billing_cadence,
            "minimum": plan.minimum_amount,
            "state": _state(plan),
        }
    )
    rows = (
        (each.rate_card_key, each.feature_key, price(each), entitlement(each)) for each in plan.rate_cards
    )
    return Group(card, table(["rate card", "feature", "price", "entitlement"], rows))


def price(card: pb.RateCard) -> str:
    """Say what a rate card charges."""
    found = [_price(card.price), *_around(card)]
    return ", ".join(part for part in found if part)


def _price(price: price_pb2.Price) -> str:
    kind = price.WhichOneof("kind")
    return _PRICES[kind](getattr(price, kind)) if kind else ""


def _tiered(name: str) -> Callable[[Any], str]:
    return lambda price: f"{name}: {'; '.join(map(_tier, price.tiers))}"


def _percentage(price: price_pb2.PercentagePrice) -> str:
    return f"{price.percentage} %" + (f" and {price.event_amount} an event" if price.event_amount else "")


def _matrix(price: price_pb2.MatrixPrice) -> str:
    by = " and ".join(price.dimensions)
    return f"{len(price.cells)} prices by {by}, else {price.default_unit_amount} a unit"


def _llm(price: price_pb2.LlmPrice) -> str:
    text = f"{price.token_type} of price list {price.price_list_key}"
    if price.margin_percentage:
        text += f" and {price.margin_percentage} %"
    if price.margin_amount:
        text += f" and {price.margin_amount} a unit"
    if price.overrides:
        text += f", {len(price.overrides)} own prices"
    return text + (f", else {price.default_unit_amount} a unit" if price.default_unit_amount else "")


_PRICES: dict[str, Callable[[Any], str]] = {
    "flat": lambda price: f"{price.amount} a period",
    "unit": lambda price: f"{price.unit_amount} a unit",
    "graduated": _tiered("graduated"),
    "volume": _tiered("volume"),
    "package": lambda price: f"{price.package_amount} for each {thousands(price.package_size)} begun",
    "percentage": _percentage,
    "graduated_percentage": _tiered("graduated"),
    "dynamic": lambda price: f"metered amount times {price.multiplier}",
    "matrix": _matrix,
    "llm": _llm,
}


def _tier(tier: price_pb2.Tier | price_pb2.PercentageTier) -> str:
    bound = f"to {thousands(tier.up_to)}" if tier.up_to else "then"
    per_unit = tier.unit_amount if isinstance(tier, price_pb2.Tier) else f"{tier.percentage or 0} %"
    parts = [per_unit, f"{tier.flat_amount} flat" if tier.flat_amount else ""]
    return f"{bound} {' + '.join(part for part in parts if part)}"


def _around(card: pb.RateCard) -> Iterator[str]:
    conversion, discounts, bounds = card.unit_conversion, card.discounts, card.commitments
    if card.in_advance:
        yield "in advance"
    if conversion.divide_by:
        yield f"in units of {thousands(conversion.divide_by)}"
    if conversion.multiply_by:
        yield f"units times {conversion.multiply_by}"
    if conversion.rounding:
        yield f"rounded {word(price_pb2.UnitConversion.Rounding.Name(conversion.rounding), 'ROUNDING')}"
    if discounts.usage_quantity:
        yield f"{thousands(discounts.usage_quantity)} free"
    if discounts.percentage:
        yield f"{discounts.percentage} % off"
    if bounds.maximum_amount:
        yield f"at most {bounds.maximum_amount}"
    if bounds.minimum_amount:
        yield f"at least {bounds.minimum_amount}"


def entitlement(card: pb.RateCard) -> str:
    """Say what a rate card entitles to."""
    match card.entitlement.WhichOneof("kind"):
        case "boolean":
            return "yes"
        case "static":
            return MessageToJson(card.entitlement.static.config, indent=None)
        case "metered":
            metered = card.entitlement.metered
            return f"{metered.allowance} a period, {'soft' if metered.soft_limit else 'hard'}"
        case _:
            return ""


def _state(plan: pb.Plan) -> str:
    return word(pb.Plan.State.Name(plan.state), "STATE")
