"""The verb that asks many checks over one stream."""

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


def _check(line: str) -> pb.EntitlementCheck:
    """Read a line; what is missing the server will say."""
    words = (line.split(maxsplit=_FIELDS) + [""] * _FIELDS)[:_FIELDS]
    return pb.EntitlementCheck(customer_key=words[0], feature_key=words[1], amount=words[2])


def _words(line: str, answer: access_pb2.StreamChecksResponse) -> str:
    if answer.HasField("fault"):
        return f"{line}: line {answer.sequence} is at fault: {answer.fault.message}"
    access = answer.access
    verdict = "yes" if access.access else "no"
    left = f", {thousands(access.balance)} left" if access.balance else ""
    return f"{line}: {verdict}, {word(pb.AccessReason.Name(access.reason), 'ACCESS_REASON')}{left}"
