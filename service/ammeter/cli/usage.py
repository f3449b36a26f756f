"""Verbs on usage: record it, query it, list its events."""

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from google.protobuf.timestamp_pb2 import Timestamp

from ammeter.cli import root
from ammeter.cli.filters import dimension_filter
from ammeter.cli.record import record_file
from ammeter.cli.session import console, list_all, plain, session_of
from ammeter.cli.times import FORMS, minute_from_now, parse_time, show_time
from ammeter.cli.view import table, thousands
from ammeter.v1 import usage_pb2 as pb

group = root.group("usage", "What was used.")

From = Annotated[
    Timestamp | None, typer.Option("--from", parser=parse_time, metavar="TIME", help=f"Inclusive: {FORMS}.")
]
To = Annotated[
    Timestamp | None,
    typer.Option("--to", parser=parse_time, metavar="TIME", help="Exclusive; now if left out."),
]


class Window(StrEnum):
    """The words of ammeter.v1.WindowSize."""

    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"


@group.command("record", epilog=root.EPILOG)
def record(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="JSON lines; - is stdin.", allow_dash=True)],
    *,
    assign_ids: Annotated[
        bool, typer.Option("--assign-ids", help="Where an id is missing make one from file name and line.")
    ] = False,
) -> None:
    """Record events. Run it again after any failure: what was counted comes back as a duplicate.

    A line is {"id", "source", "type", "subject", "time", "properties": {}}. Exit code 1 if any event was
    rejected or in conflict with an earlier one.
    """
    if assign_ids and str(file) == "-":
        raise typer.BadParameter("--assign-ids needs a file: stdin has no name to make ids from")
    session = session_of(ctx)
    summary = record_file(session.client, file, id_prefix=file.name if assign_ids else None)
    session.show(summary.as_json(), summary.view)
    if summary.conflict_count or summary.rejected_count:
        raise typer.Exit(1)


@group.command("query", epilog=root.EPILOG)
def query(  # noqa: PLR0913 - one option per field
    ctx: typer.Context,
    meter_key: Annotated[str, typer.Argument(metavar="METER")],
    *,
    start: From = None,
    end: To = None,
    window: Annotated[Window | None, typer.Option(help="Slices; one total if left out.")] = None,
    zone: Annotated[str, typer.Option(help="IANA zone that days, weeks and months follow.")] = "UTC",
    group_by: Annotated[
        list[str] | None, typer.Option(help="subject, customer or a dimension. May be repeated.")
    ] = None,
    subject: Annotated[list[str] | None, typer.Option(help="Only this subject. May be repeated.")] = None,
    customer: Annotated[list[str] | None, typer.Option(help="Only this customer. May be repeated.")] = None,
    where: Annotated[
        list[str] | None, typer.Option(help="Only DIMENSION=A or DIMENSION=A,B. May be repeated.")
    ] = None,
    fill: Annotated[bool, typer.Option("--fill", help="Show empty windows, too.")] = False,
) -> None:
    """Aggregate a meter over a span: the last 24 hours, unless told otherwise."""
    session = session_of(ctx)
    request = pb.QueryUsageRequest(
        meter_key=meter_key,
        from_time=start or minute_from_now(-24 * 60),
        to_time=end or minute_from_now(1),
        window_size=pb.WindowSize.Value(f"WINDOW_SIZE_{window.name}")
        if window
        else pb.WINDOW_SIZE_UNSPECIFIED,
        time_zone=zone,
        group_by=group_by or [],
        subjects=subject or [],
        customer_keys=customer or [],
        filters=[dimension_filter(text) for text in where or []],
        fill=fill,
        page_size=10_000,
    )
    answer = list_all(session.client.usage.QueryUsage, request, "rows", limit=10_000_000)
    rows = (
        (
            show_time(row.from_time),
            show_time(row.to_time),
            *row.group_values,
            thousands(row.value),
            row.event_count,
        )
        for row in answer.rows
    )
    columns = ["from", "to", *request.group_by, "value", "events"]
    session.show(answer, lambda: table(columns, rows, title=f"{meter_key} as of position {answer.position}"))


def events(
    ctx: typer.Context,
    *,
    start: From = None,
    end: To = None,
    type_: Annotated[str, typer.Option("--type", help="Only this type.")] = "",
    subject: Annotated[str, typer.Option(help="Only this subject.")] = "",
    event_id: Annotated[str, typer.Option("--id", help="Only this id.")] = "",
    source: Annotated[str, typer.Option(help="Only this source.")] = "",
    limit: int = 20,
) -> None:
    """List stored events, newest first, with what counts them."""
    session = session_of(ctx)
    request = pb.ListEventsRequest(
        from_time=start, to_time=end, type=type_, subject=subject, id=event_id, source=source,
        page_size=min(limit, 1000),
    )  # fmt: skip
    answer = list_all(session.client.usage.ListEvents, request, "events", limit)
    if session.json:
        for stored in answer.events:
            typer.echo(json.dumps(plain(stored), ensure_ascii=False))
        return
    columns = ["time", "type", "subject", "source/id", "properties", "customer", "counted by", "position"]
    console().print(table(columns, [_event_row(stored) for stored in answer.events]))


def _event_row(stored: pb.StoredEvent) -> tuple[object, ...]:
    event = stored.event
    return (
        show_time(event.time if event.HasField("time") else event.received_time),
        event.type,
        event.subject,
        f"{event.source}/{event.id}",
        " ".join(f"{name}={value}" for name, value in sorted(event.properties.items())),
        stored.customer_key,
        stored.meter_keys,
        stored.position,
    )
