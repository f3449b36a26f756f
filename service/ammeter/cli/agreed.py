"""What was agreed on with one customer beside the plan, as a table."""

from rich.console import Group, RenderableType

from ammeter.cli import plan, price_override
from ammeter.cli.times import show_time
from ammeter.cli.view import table
from ammeter.v1 import catalog_pb2, entitlement_pb2
from ammeter.v1 import subscription_pb2 as pb


def overrides(made: pb.Subscription) -> RenderableType:
    """Show what was agreed on beside the plan."""
    if not made.overrides:
        return Group()
    columns = ["agreed on", "instead", "of", "from", "until"]
    return table(columns, map(_override, made.overrides))


def _override(one: pb.SubscriptionOverride) -> tuple[str, ...]:
    if one.HasField("price_override"):
        mine = one.price_override
        key, text, replaced = mine.rate_card_key, price_override.instead(mine), plan.price(one.rate_card)
        span = mine.from_time, mine.to_time
    else:
        given = one.entitlement
        as_card = catalog_pb2.RateCard(entitlement=_template(given))
        key, text, replaced = given.feature_key, plan.entitlement(as_card), plan.entitlement(one.rate_card)
        span = given.from_time, given.to_time
    whose = f"{replaced} ({one.plan_key} version {one.plan_version})" if one.plan_key else ""
    return key, text, whose, show_time(span[0]), show_time(span[1])


def _template(given: entitlement_pb2.Entitlement) -> catalog_pb2.EntitlementTemplate:
    """Show an entitlement as one that a plan would give."""
    found = catalog_pb2.EntitlementTemplate()
    match given.WhichOneof("kind"):
        case "metered":
            found.metered.allowance = given.metered.allowance or "0"
            found.metered.soft_limit = given.metered.soft_limit
        case "static":
            found.static.config.CopyFrom(given.static.config)
        case _:
            found.boolean.SetInParent()
    return found
