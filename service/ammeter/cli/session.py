"""What every verb works with: the connection, and where its answers go."""

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import typer
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from rich.console import Console, RenderableType

from ammeter.client import Client

_PIPE_WIDTH = 200  # a table in a pipe or a file is for grep: do not fold it at 80

M = TypeVar("M", bound=Message)


def console() -> Console:
    """Open stdout for people."""
    return Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH, highlight=False)


def messages() -> Console:
    """Open stderr, where everything goes that is not an answer."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


@dataclass
class Session:
    """The global options, and what they open."""

    address: str
    secret: str
    tls: bool
    ca: Path | None
    json: bool

    @cached_property
    def client(self) -> Client:
        """The connection, made on first use."""
        ca = self.ca.read_bytes() if self.ca else None
        return Client(self.address, secret=self.secret, tls=self.tls, ca=ca)

    def close(self) -> None:
        """Close the connection if there is one."""
        if "client" in self.__dict__:
            self.client.close()

    def show(self, answer: Message | Mapping[str, Any], view: Callable[[], RenderableType]) -> None:
        """Print an answer: one JSON document with --json, otherwise what `view` draws."""
        if self.json:
            typer.echo(json.dumps(plain(answer), ensure_ascii=False))
        else:
            console().print(view())


def session_of(ctx: typer.Context) -> Session:
    """Find the session that the root command made."""
    session = ctx.obj
    if not isinstance(session, Session):
        raise TypeError("the root command has not run")
    return session


def plain(answer: Message | Mapping[str, Any]) -> Any:  # noqa: ANN401 - JSON
    """Turn a message into protobuf's JSON, with the names of the .proto files."""
    if isinstance(answer, Message):
        return MessageToDict(
            answer, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        )
    return answer


def list_all(call: Callable[[Any], M], request: Any, field: str, limit: int) -> M:  # noqa: ANN401 - any List request
    """Follow the pages of a List method up to `limit` entries of `field`, as one response."""
    answer = call(request)
    entries = getattr(answer, field)
    while answer.next_page_token and len(entries) < limit:  # type: ignore[attr-defined] # every List response has it
        request.page_token = answer.next_page_token  # type: ignore[attr-defined]
        answer.ClearField("next_page_token")
        answer.MergeFrom(call(request))
    if answer.next_page_token or len(entries) > limit:  # type: ignore[attr-defined]
        del entries[limit:]
        messages().print(f"There are more: shown are the first {limit}; ask for more with --limit.")
    return answer
