"""Verbs on meters."""

import time
from enum import StrEnum
from typing import Annotated

import typer
from google.protobuf.field_mask_pb2 import FieldMask
from rich.console import RenderableType
from rich.progress import BarColumn, Progress, TextColumn

from ammeter.cli import root
from ammeter.cli.filters import property_filter
from ammeter.cli.session import Session, list_all, messages, session_of
from ammeter.cli.times import show_time
from ammeter.cli.view import fields, table, word
from ammeter.client import Client, new_request_id
from ammeter.v1 import meter_pb2 as pb

group = root.group("meter", "How events become quantities.")

MeterKey = Annotated[str, typer.Argument(metavar="METER", help="The meter's key.")]


class Aggregation(StrEnum):
    """The words of ammeter.v1.Aggregation."""

    COUNT = "count"
    SUM = "sum"
    MIN = "min"
    MAX = "max"
    AVG = "avg"
    UNIQUE_COUNT = "unique_count"
    LATEST = "latest"


@group.command("create", epilog=root.EPILOG)
def create(  # noqa: PLR0913 - one option per field
    ctx: typer.Context,
    meter_key: MeterKey,
    *,
    event_type: Annotated[str, typer.Option("--type", help="Events of this type are looked at.")],
    aggregation: Annotated[Aggregation, typer.Option("--aggregation", help="How values become one.")],
    value: Annotated[str, typer.Option(help="Property that holds the value; not for count.")] = "",
    dimension: Annotated[
        list[str] | None, typer.Option(help="Property to group by. May be repeated.")
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(help="Only events with NAME=A, NAME=A,B, NAME!=A or NAME. May be repeated."),
    ] = None,
    name: str = "",
    description: str = "",
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Do not wait until it is built.")] = False,
) -> None:
    """Create a meter, and wait until it is built from the events already stored."""
    session = session_of(ctx)
    draft = pb.Meter(
        meter_key=meter_key,
        name=name,
        description=description,
        event_type=event_type,
        aggregation=pb.Aggregation.Value(f"AGGREGATION_{aggregation.name}"),
        value_property=value,
        dimensions=dimension or [],
        filters=[property_filter(text) for text in where or []],
    )
    request = pb.CreateMeterRequest(meter=draft, request_id=new_request_id())
    made = session.client.meters.CreateMeter(request).meter
    _show(session, made if no_wait else wait_until_built(session.client, made))


@group.command("get", epilog=root.EPILOG)
def get(ctx: typer.Context, meter_key: MeterKey) -> None:
    """Show one meter."""
    session = session_of(ctx)
    _show(session, session.client.meters.GetMeter(pb.GetMeterRequest(meter_key=meter_key)).meter)


@group.command("list", epilog=root.EPILOG)
def list_(ctx: typer.Context, *, limit: int = 1000) -> None:
    """List the meters by key."""
    session = session_of(ctx)
    answer = list_all(session.client.meters.ListMeters, pb.ListMetersRequest(page_size=1000), "meters", limit)
    rows = (
        (each.meter_key, each.event_type, _formula(each), each.dimensions, _state(each))
        for each in answer.meters
    )
    session.show(answer, lambda: table(["meter", "type", "aggregation", "dimensions", "state"], rows))


@group.command("update", epilog=root.EPILOG)
def update(
    ctx: typer.Context,
    meter_key: MeterKey,
    *,
    name: str | None = None,
    description: str | None = None,
    add_dimension: Annotated[
        list[str] | None, typer.Option(help="Append a property to group by. May be repeated.")
    ] = None,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Do not wait until it is built.")] = False,
) -> None:
    """Rename or describe a meter, or append dimensions, which are built from history."""
    session = session_of(ctx)
    meter = session.client.meters.GetMeter(pb.GetMeterRequest(meter_key=meter_key)).meter
    mask = FieldMask()
    if name is not None:
        meter.name = name
        mask.paths.append("name")
    if description is not None:
        meter.description = description
        mask.paths.append("description")
    if add_dimension:
        meter.dimensions.extend(add_dimension)
        mask.paths.append("dimensions")
    if not mask.paths:
        raise typer.BadParameter("nothing to change: give --name, --description or --add-dimension")
    request = pb.UpdateMeterRequest(meter=meter, update_mask=mask, request_id=new_request_id())
    changed = session.client.meters.UpdateMeter(request).meter
    _show(session, changed if no_wait else wait_until_built(session.client, changed))


@group.command("delete", epilog=root.EPILOG)
def delete(
    ctx: typer.Context,
    meter_key: MeterKey,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete a meter and its windows; the events stay, so it can be built again."""
    session = session_of(ctx)
    if not yes:
        typer.confirm(f"Delete the meter {meter_key} and its windows?", abort=True, err=True)
    session.client.meters.DeleteMeter(pb.DeleteMeterRequest(meter_key=meter_key, request_id=new_request_id()))
    session.show({"deleted": meter_key}, lambda: f"deleted the meter {meter_key}")


def wait_until_built(client: Client, meter: pb.Meter) -> pb.Meter:
    """Show a bar until the meter is ACTIVE; Ctrl-C leaves the build going on."""
    if meter.state != pb.Meter.STATE_BUILDING:
        return meter
    columns = (
        TextColumn("building {task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total} segments"),
    )
    screen = messages()
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as progress:
        bar = progress.add_task(meter.meter_key, total=None)
        while meter.state == pb.Meter.STATE_BUILDING:
            time.sleep(0.05)
            meter = client.meters.GetMeter(pb.GetMeterRequest(meter_key=meter.meter_key)).meter
            progress.update(bar, completed=meter.build_done, total=meter.build_total or None)
    if meter.skipped_count:
        first = ", ".join(meter.skipped_events)
        text = f"{meter.skipped_count} stored events are not counted, as their value is no number: {first}"
        messages().print(text, markup=False)
    return meter


def _show(session: Session, meter: pb.Meter) -> None:
    session.show(meter, lambda: _card(meter))


def _card(meter: pb.Meter) -> RenderableType:
    return fields(
        {
            "meter": meter.meter_key,
            "name": meter.name,
            "description": meter.description,
            "type": meter.event_type,
            "aggregation": _formula(meter),
            "dimensions": meter.dimensions,
            "where": [_condition(each) for each in meter.filters],
            "state": _state(meter),
            "skipped": meter.skipped_count or "",
            "created": show_time(meter.create_time),
            "etag": meter.etag,
        }
    )


def _formula(meter: pb.Meter) -> str:
    name = word(pb.Aggregation.Name(meter.aggregation), "AGGREGATION")
    return f"{name} of {meter.value_property}" if meter.value_property else name


def _state(meter: pb.Meter) -> str:
    name = word(pb.Meter.State.Name(meter.state), "STATE")
    return f"{name} {meter.build_done}/{meter.build_total}" if name == "building" else name


def _condition(each: pb.PropertyFilter) -> str:
    if each.operator == pb.PropertyFilter.OPERATOR_EXISTS:
        return each.property
    sign = "!=" if each.operator == pb.PropertyFilter.OPERATOR_NOT_EQUALS else "="
    return f"{each.property}{sign}{','.join(each.values)}"
