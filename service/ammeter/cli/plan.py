"""Verbs on plans."""

import sys
from collections.abc import Callable, Iterable, Iterator
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
    """Create a plan from a file, open for subscription at once."""
    session = session_of(ctx)
    request = pb.CreatePlanRequest(plan=_read(file), request_id=new_request_id())
    _show(session, session.client.catalog.CreatePlan(request).plan)


@group.command("draft", epilog=root.EPILOG)
def draft(
    ctx: typer.Context,
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE.json", help="An ammeter.v1.Plan as JSON; - is stdin.", allow_dash=True),
    ],
    *,
    update: Annotated[
        bool, typer.Option("--update", help="Put it in the place of the draft there is.")
    ] = False,
) -> None:
    """Draft a plan's next version from a file; shows what keeps it from being published."""
    session = session_of(ctx)
    wanted = _read(file)
    if update:
        changed = pb.UpdatePlanRequest(plan=wanted, request_id=new_request_id())
        _show(session, session.client.catalog.UpdatePlan(changed).plan)
        return
    request = pb.DraftPlanRequest(plan=wanted, request_id=new_request_id())
    _show(session, session.client.catalog.DraftPlan(request).plan)


def _read(file: Path) -> pb.Plan:
    text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    try:
        return Parse(text, pb.Plan())
    except ParseError as error:
        raise typer.BadParameter(f"{file} is not a plan: {error}") from None


@group.command("publish", epilog=root.EPILOG)
def publish(
    ctx: typer.Context,
    plan_key: Annotated[str, typer.Argument(metavar="PLAN")],
    *,
    etag: Annotated[str, typer.Option(help="Only if the draft still has it.")] = "",
) -> None:
    """Open a plan's draft for subscription in the place of the version that is open."""
    session = session_of(ctx)
    request = pb.PublishPlanRequest(plan_key=plan_key, etag=etag, request_id=new_request_id())
    _show(session, session.client.catalog.PublishPlan(request).plan)


@group.command("archive", epilog=root.EPILOG)
def archive(
    ctx: typer.Context,
    plan_key: Annotated[str, typer.Argument(metavar="PLAN")],
    *,
    version: Annotated[int, typer.Option(help="The active one if left out; a draft is given up.")] = 0,
) -> None:
    """Close a version of a plan for new subscriptions."""
    session = session_of(ctx)
    request = pb.ArchivePlanRequest(plan_key=plan_key, version=version, request_id=new_request_id())
    _show(session, session.client.catalog.ArchivePlan(request).plan)


@group.command("get", epilog=root.EPILOG)
def get(
    ctx: typer.Context,
    plan_key: Annotated[str, typer.Argument(metavar="PLAN")],
    *,
    version: Annotated[int, typer.Option(help="The active one if left out.")] = 0,
) -> None:
    """Show one version of a plan and its rate cards."""
    session = session_of(ctx)
    request = pb.GetPlanRequest(plan_key=plan_key, version=version)
    _show(session, session.client.catalog.GetPlan(request).plan)


@group.command("list", epilog=root.EPILOG)
def list_(
    ctx: typer.Context,
    *,
    versions: Annotated[str, typer.Option(metavar="PLAN", help="All versions of this plan.")] = "",
    limit: int = 1000,
) -> None:
    """List the plans by key, or the versions of one."""
    session = session_of(ctx)
    request = pb.ListPlansRequest(page_size=1000, plan_key=versions)
    answer = list_all(session.client.catalog.ListPlans, request, "plans", limit)
    rows = (
        (
            each.plan_key,
            each.version,
            each.name,
            each.currency,
            each.billing_cadence,
            len(each.rate_cards) + sum(len(phase.rate_cards) for phase in each.phases),
            _state(each),
        )
        for each in answer.plans
    )
    titles = ["plan", "version", "name", "currency", "period", "lines", "state"]
    session.show(answer, lambda: table(titles, rows))


def _show(session: Session, plan: pb.Plan) -> None:
    session.show(plan, lambda: _card(plan))


def _card(plan: pb.Plan) -> RenderableType:
    card = fields(
        {
            "plan": plan.plan_key,
            "version": plan.version,
            "name": plan.name,
            "currency": plan.currency,
            "period": plan.billing_cadence,
            "minimum": plan.minimum_amount,
            "state": _state(plan),
            "etag": plan.etag,
        }
    )
    parts: list[RenderableType] = [card]
    if plan.rate_cards or not plan.phases:
        parts.append(_rate_cards("rate card", plan.rate_cards))
    parts += [_rate_cards(_phase(each), each.rate_cards) for each in plan.phases]
    if plan.issues:
        issues = ((each.field, each.description) for each in plan.issues)
        parts.append(table(["keeps it from being published", "why"], issues))
    return Group(*parts)


def _phase(phase: pb.Phase) -> str:
    return f"{phase.phase_key}, {phase.duration or 'open'}"


def _rate_cards(title: str, cards: Iterable[pb.RateCard]) -> RenderableType:
    rows = ((each.rate_card_key, each.feature_key, price(each), entitlement(each)) for each in cards)
    return table([title, "feature", "price", "entitlement"], rows)


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
    "flat": lambda price: f"{price.amount} a {'seat and ' if price.per_seat else ''}period",
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
    timing = ("once" if card.one_time else "", card.billing_cadence and f"each {card.billing_cadence}")
    yield from filter(None, (*timing, "in advance" if card.in_advance else ""))
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
