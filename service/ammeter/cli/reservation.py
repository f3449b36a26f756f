"""Verbs on reservations."""

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ammeter.cli import root
from ammeter.cli.entitlement import card
from ammeter.cli.lines import read_lines
from ammeter.cli.session import Session, list_all, session_of
from ammeter.cli.times import show_time
from ammeter.cli.view import fields, table, thousands, word
from ammeter.client import new_request_id
from ammeter.v1 import reservation_pb2 as pb
from ammeter.v1.usage_pb2 import UsageEvent

group = root.group("reservation", "What is held of balances for work in flight, and gateways' leases.")

_DENIED = 3
_LIFETIME = re.compile(r"(\d{1,8})(ms|s|m|h)")
_UNITS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000}
_ID = typer.Argument(metavar="RESERVATION", help='Its id, "rsv_...".')


class State(StrEnum):
    """The words of Reservation.State."""

    HELD = "held"
    SETTLED = "settled"
    RELEASED = "released"
    EXPIRED = "expired"


def _lifetime(text: str) -> int:
    found = _LIFETIME.fullmatch(text.strip())
    if found is None:
        raise typer.BadParameter(f"{text!r} is no lifetime: write 500ms, 30s, 5m or 24h")
    return int(found[1]) * _UNITS[found[2]]


Lifetime = Annotated[str, typer.Option("--for", metavar="TIME", help="500ms, 30s, 5m, up to 24h.")]


@group.command("reserve", epilog=root.EPILOG)
def reserve(  # noqa: PLR0913 - the options of one verb
    ctx: typer.Context,
    who: Annotated[
        str, typer.Argument(metavar="CUSTOMER", help="The customer's key, or with --subject a subject.")
    ],
    feature_key: Annotated[str, typer.Argument(metavar="FEATURE")],
    amount: Annotated[str, typer.Argument(metavar="AMOUNT")],
    *,
    minimum: Annotated[str, typer.Option(help="Take less than AMOUNT, if at least this much.")] = "",
    lifetime: Lifetime = "1m",
    subject: Annotated[bool, typer.Option("--subject", help="CUSTOMER is a subject.")] = False,
    lease: Annotated[bool, typer.Option("--lease", help="A gateway's, to be renewed.")] = False,
    request_id: Annotated[str, typer.Option(help="The same again gives the same reservation.")] = "",
) -> None:
    """Hold an amount of a customer's balance. Exit code 0: held; 3: not."""
    session = session_of(ctx)
    request = pb.ReserveRequest(
        feature_key=feature_key,
        amount=amount,
        minimum_amount=minimum,
        lifetime_ms=_lifetime(lifetime),
        lease=lease,
        request_id=request_id or new_request_id(),
    )
    if subject:
        request.subject = who
    else:
        request.customer_key = who
    answer = session.client.reservations.Reserve(request)
    held = answer.HasField("reservation")
    session.show(answer, lambda: fields(_facts(answer.reservation)) if held else card(answer.access))
    if not held:
        raise typer.Exit(_DENIED)


@group.command("extend", epilog=root.EPILOG)
def extend(
    ctx: typer.Context,
    reservation_id: Annotated[str, _ID],
    *,
    lifetime: Lifetime = "1m",
) -> None:
    """Let a reservation expire later: so long from now."""
    session = session_of(ctx)
    request = pb.ExtendReservationRequest(
        reservation_id=reservation_id, lifetime_ms=_lifetime(lifetime), request_id=new_request_id()
    )
    _show(session, session.client.reservations.ExtendReservation(request).reservation)


@group.command("settle", epilog=root.EPILOG)
def settle(
    ctx: typer.Context,
    reservation_id: Annotated[str, _ID],
    amount: Annotated[str, typer.Argument(metavar="AMOUNT", help="What was used.")],
    *,
    events: Annotated[
        Path | None,
        typer.Option(help="The usage itself, events as JSON lines: it takes the hold's place in one commit."),
    ] = None,
    request_id: Annotated[str, typer.Option(help="The same again is done once.")] = "",
) -> None:
    """End a reservation with what was used of it."""
    session = session_of(ctx)
    request = pb.SettleReservationRequest(
        reservation_id=reservation_id,
        amount=amount,
        events=[] if events is None else _read_events(events),
        request_id=request_id or new_request_id(),
    )
    answer = session.client.reservations.SettleReservation(request)
    session.show(answer, lambda: fields(_facts(answer.reservation)))


@group.command("release", epilog=root.EPILOG)
def release(ctx: typer.Context, reservation_id: Annotated[str, _ID]) -> None:
    """Give a reservation back unused; a lease whose gateway is gone, too."""
    session = session_of(ctx)
    request = pb.ReleaseReservationRequest(reservation_id=reservation_id, request_id=new_request_id())
    _show(session, session.client.reservations.ReleaseReservation(request).reservation)


@group.command("get", epilog=root.EPILOG)
def get(ctx: typer.Context, reservation_id: Annotated[str, _ID]) -> None:
    """Show a reservation."""
    session = session_of(ctx)
    request = pb.GetReservationRequest(reservation_id=reservation_id)
    _show(session, session.client.reservations.GetReservation(request).reservation)


@group.command("list", epilog=root.EPILOG)
def list_(
    ctx: typer.Context,
    *,
    customer: Annotated[str, typer.Option(metavar="CUSTOMER", help="Only this customer's.")] = "",
    state: Annotated[State | None, typer.Option(help="Only those in this state.")] = None,
    limit: int = 1000,
) -> None:
    """List reservations by creation, ended ones, too."""
    session = session_of(ctx)
    request = pb.ListReservationsRequest(customer_key=customer, page_size=1000)
    if state is not None:
        request.state = pb.Reservation.State.Value(f"STATE_{state.name}")
    answer = list_all(session.client.reservations.ListReservations, request, "reservations", limit)
    rows = (
        (
            each.reservation_id,
            each.customer_key,
            each.feature_key,
            _state(each),
            thousands(each.granted_amount),
            thousands(each.held_amount),
            thousands(each.settled_amount),
            show_time(each.expire_time),
        )
        for each in answer.reservations
    )
    columns = ["reservation", "customer", "feature", "state", "granted", "held", "settled", "expires"]
    session.show(answer, lambda: table(columns, rows))


def _read_events(file: Path) -> list[UsageEvent]:
    found = []
    with file.open("rb") as raw:
        for line in read_lines(raw, None):
            if line is None or line.event is None:
                why = line.error if line is not None else "nothing"
                raise typer.BadParameter(f"{file}, line {line.number if line else 0}: {why}")
            found.append(line.event)
    return found


def _state(each: pb.Reservation) -> str:
    text = word(pb.Reservation.State.Name(each.state), "STATE")
    if each.lease:
        text += f", lease {each.generation}"
    return f"{text}, late" if each.settled_late else text


def _facts(made: pb.Reservation) -> dict[str, str]:
    return {
        "reservation": made.reservation_id,
        "customer": made.customer_key,
        "feature": made.feature_key,
        "subject": made.subject,
        "state": _state(made),
        "asked for": thousands(made.amount),
        "granted": thousands(made.granted_amount),
        "held": thousands(made.held_amount),
        "settled": thousands(made.settled_amount),
        "created": show_time(made.create_time),
        "expires": show_time(made.expire_time),
        "ended": show_time(made.end_time),
    }


def _show(session: Session, made: pb.Reservation) -> None:
    session.show(made, lambda: fields(_facts(made)))
