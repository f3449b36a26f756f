"""Verbs on features."""

from typing import Annotated

import typer

from ammeter.cli import root
from ammeter.cli.filters import dimension_filter
from ammeter.cli.session import list_all, session_of
from ammeter.cli.view import fields, table
from ammeter.client import new_request_id
from ammeter.v1 import catalog_pb2 as pb

group = root.group("feature", "What a customer may be allowed to use.")


@group.command("create", epilog=root.EPILOG)
def create(
    ctx: typer.Context,
    feature_key: Annotated[str, typer.Argument(metavar="FEATURE", help="The feature's key.")],
    *,
    meter: Annotated[str, typer.Option(help="Key of the meter that measures it; none: not metered.")] = "",
    where: Annotated[
        list[str] | None, typer.Option(help="Only usage with DIMENSION=A or DIMENSION=A,B. May be repeated.")
    ] = None,
    name: str = "",
) -> None:
    """Create a feature."""
    session = session_of(ctx)
    filters = [dimension_filter(text) for text in where or []]
    draft = pb.Feature(feature_key=feature_key, name=name, meter_key=meter, filters=filters)
    request = pb.CreateFeatureRequest(feature=draft, request_id=new_request_id())
    made = session.client.catalog.CreateFeature(request).feature
    session.show(
        made,
        lambda: fields({"feature": made.feature_key, "meter": made.meter_key, "where": _conditions(made)}),
    )


@group.command("list", epilog=root.EPILOG)
def list_(ctx: typer.Context, *, limit: int = 1000) -> None:
    """List the features by key."""
    session = session_of(ctx)
    request = pb.ListFeaturesRequest(page_size=1000)
    answer = list_all(session.client.catalog.ListFeatures, request, "features", limit)
    rows = ((each.feature_key, each.name, each.meter_key, _conditions(each)) for each in answer.features)
    session.show(answer, lambda: table(["feature", "name", "meter", "where"], rows))


def _conditions(feature: pb.Feature) -> list[str]:
    return [f"{each.dimension}={','.join(each.values)}" for each in feature.filters]
