"""The verbs that ask many checks over one stream, and watch answers change."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from ammeter.cli.session import plain, session_of
from ammeter.cli.view import thousands, word
from ammeter.v1 import access_pb2
from ammeter.v1 import entitlement_pb2 as pb

_FIELDS = 3


def checks(
    ctx: typer.Context,
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="A line is CUSTOMER FEATURE [AMOUNT]; - is stdin.", allow_dash=True
        ),
    ],
) -> None:
    """Ask many checks over one stream, and print a line for each. Exit code 1: some were at fault."""
    session = session_of(ctx)
    lines: list[str] = []

    def requests() -> Iterator[access_pb2.StreamChecksRequest]:
        with sys.stdin if str(file) == "-" else file.open(encoding="utf-8") as source:
            for number, line in enumerate(source, start=1):
                lines.append(line.rstrip("\n"))
                yield access_pb2.StreamChecksRequest(sequence=number, check=_check(line))

    faults = 0
    for answer in session.client.access.StreamChecks(requests()):
        faults += answer.HasField("fault")
        line = lines[answer.sequence - 1]
        lines[answer.sequence - 1] = ""
        typer.echo(json.dumps(plain(answer), ensure_ascii=False) if session.json else _words(line, answer))
    if faults:
        raise typer.Exit(1)


def watch(
    ctx: typer.Context,
    customer_keys: Annotated[list[str], typer.Argument(metavar="CUSTOMER...")],
    *,
    feature: Annotated[list[str] | None, typer.Option(help="Only this one. May be repeated.")] = None,
    decisions: Annotated[
        bool, typer.Option("--decisions", help="Leave out changes of nothing but use and balance.")
    ] = False,
) -> None:
    """Print what customers may use, and each change of it, a line each, until Ctrl-C."""
    session = session_of(ctx)
    request = access_pb2.WatchAccessRequest(
        customer_keys=customer_keys, feature_keys=feature or [], decisions_only=decisions
    )
    for answer in session.client.access.WatchAccess(request):
        if session.json:
            typer.echo(json.dumps(plain(answer), ensure_ascii=False))
        elif answer.HasField("state"):
            state = answer.state
            typer.echo(_verdict(f"{state.customer_key} {state.feature_key}", state.access))
        sys.stdout.flush()


def _check(line: str) -> pb.EntitlementCheck:
    """Read a line; what is missing the server will say."""
    words = (line.split(maxsplit=_FIELDS) + [""] * _FIELDS)[:_FIELDS]
    return pb.EntitlementCheck(customer_key=words[0], feature_key=words[1], amount=words[2])


def _words(line: str, answer: access_pb2.StreamChecksResponse) -> str:
    if answer.HasField("fault"):
        return f"{line}: line {answer.sequence} is at fault: {answer.fault.message}"
    return _verdict(line, answer.access)


def _verdict(line: str, access: pb.Access) -> str:
    verdict = "yes" if access.access else "no"
    left = f", {thousands(access.balance)} left" if access.balance else ""
    return f"{line}: {verdict}, {word(pb.AccessReason.Name(access.reason), 'ACCESS_REASON')}{left}"
