"""Verbs on features."""

from typing import Annotated

import typer
from google.protobuf.field_mask_pb2 import FieldMask

from ammeter.cli import root
from ammeter.cli.filters import dimension_filter
from ammeter.cli.session import Session, list_all, session_of
from ammeter.cli.view import fields, table, thousands, word
from ammeter.client import new_request_id
from ammeter.v1 import catalog_pb2 as pb
from ammeter.v1.entitlement_pb2 import Access

group = root.group("feature", "What a customer may be allowed to use.")

FeatureKey = Annotated[str, typer.Argument(metavar="FEATURE", help="The feature's key.")]
Fail = Annotated[
    str,
    typer.Option(
        metavar="closed|open|AMOUNT",
        help="What callers of checks say who get no answer: no, yes, or yes up to AMOUNT.",
    ),
]


@group.command("create", epilog=root.EPILOG)
def create(
    ctx: typer.Context,
    feature_key: FeatureKey,
    *,
    meter: Annotated[str, typer.Option(help="Key of the meter that measures it; none: not metered.")] = "",
    where: Annotated[
        list[str] | None, typer.Option(help="Only usage with DIMENSION=A or DIMENSION=A,B. May be repeated.")
    ] = None,
    name: str = "",
    fail: Fail = "",
) -> None:
    """Create a feature."""
    session = session_of(ctx)
    filters = [dimension_filter(text) for text in where or []]
    draft = pb.Feature(feature_key=feature_key, name=name, meter_key=meter, filters=filters)
    _set_fail(draft, fail)
    request = pb.CreateFeatureRequest(feature=draft, request_id=new_request_id())
    _show(session, session.client.catalog.CreateFeature(request).feature)


@group.command("update", epilog=root.EPILOG)
def update(ctx: typer.Context, feature_key: FeatureKey, *, name: str | None = None, fail: Fail = "") -> None:
    """Change a feature's name or fail mode."""
    session = session_of(ctx)
    draft = pb.Feature(feature_key=feature_key, name=name or "")
    _set_fail(draft, fail)
    paths = [path for path, said in (("name", name is not None), ("fail_mode", bool(fail))) if said]
    if not paths:
        raise typer.BadParameter("nothing to change: give --name or --fail")
    request = pb.UpdateFeatureRequest(
        feature=draft, update_mask=FieldMask(paths=paths), request_id=new_request_id()
    )
    _show(session, session.client.catalog.UpdateFeature(request).feature)


@group.command("get", epilog=root.EPILOG)
def get(ctx: typer.Context, feature_key: FeatureKey) -> None:
    """Show one feature."""
    session = session_of(ctx)
    _show(session, session.client.catalog.GetFeature(pb.GetFeatureRequest(feature_key=feature_key)).feature)


@group.command("list", epilog=root.EPILOG)
def list_(ctx: typer.Context, *, limit: int = 1000) -> None:
    """List the features by key."""
    session = session_of(ctx)
    request = pb.ListFeaturesRequest(page_size=1000)
    answer = list_all(session.client.catalog.ListFeatures, request, "features", limit)
    rows = (
        (each.feature_key, each.name, each.meter_key, _conditions(each), fail_words(each))
        for each in answer.features
    )
    session.show(answer, lambda: table(["feature", "name", "meter", "where", "without an answer"], rows))


def _show(session: Session, feature: pb.Feature) -> None:
    session.show(
        feature,
        lambda: fields(
            {
                "feature": feature.feature_key,
                "name": feature.name,
                "meter": feature.meter_key,
                "where": _conditions(feature),
                "without an answer": fail_words(feature),
            }
        ),
    )


def _set_fail(feature: pb.Feature, text: str) -> None:
    """Read closed, open or an amount."""
    modes = {"closed": pb.FAIL_MODE_CLOSED, "open": pb.FAIL_MODE_OPEN}
    if text in modes:
        feature.fail_mode = modes[text]
    elif text:
        feature.fail_mode, feature.fail_allowance = pb.FAIL_MODE_OPEN_WITHIN, text


def fail_words(said: pb.Feature | Access) -> str:
    """Write a fail mode for people."""
    text = word(pb.FailMode.Name(said.fail_mode), "FAIL_MODE")
    return f"{text} {thousands(said.fail_allowance)}" if said.fail_allowance else text


def _conditions(feature: pb.Feature) -> list[str]:
    return [f"{each.dimension}={','.join(each.values)}" for each in feature.filters]
