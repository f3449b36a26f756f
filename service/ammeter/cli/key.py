"""Verbs on API keys."""

from enum import StrEnum
from typing import Annotated

import typer
from google.protobuf.timestamp_pb2 import Timestamp

from ammeter.cli import root
from ammeter.cli.session import list_all, messages, session_of
from ammeter.cli.times import FORMS, parse_time, show_time
from ammeter.cli.view import fields, table, word
from ammeter.v1 import key_pb2 as pb

group = root.group("key", "API keys of this tenant.")


class Scope(StrEnum):
    """The words of ammeter.v1.Scope."""

    INGEST = "ingest"
    CHECK = "check"
    READ = "read"
    ADMIN = "admin"


@group.command("create", epilog=root.EPILOG)
def create(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="For people, for example the gateway that holds it.")],
    *,
    scope: Annotated[list[Scope], typer.Option(help="What it may do. May be repeated.")],
    expires: Annotated[
        Timestamp | None, typer.Option(parser=parse_time, metavar="TIME", help=f"When it expires: {FORMS}.")
    ] = None,
) -> None:
    """Make a key. Its secret is shown once, here."""
    session = session_of(ctx)
    scopes = [pb.Scope.Value(f"SCOPE_{each.name}") for each in scope]
    answer = session.client.keys.CreateKey(pb.CreateKeyRequest(name=name, scopes=scopes, expire_time=expires))
    session.show(answer, lambda: fields({**_card(answer.key), "secret": answer.secret}))
    messages().print("Keep the secret now: it is shown this once and stored nowhere.")


@group.command("list", epilog=root.EPILOG)
def list_(ctx: typer.Context, *, limit: int = 1000) -> None:
    """List the keys, newest first, without secrets."""
    session = session_of(ctx)
    answer = list_all(session.client.keys.ListKeys, pb.ListKeysRequest(page_size=1000), "keys", limit)
    rows = (tuple(_card(each).values()) for each in answer.keys)
    session.show(answer, lambda: table(["key", "name", "scopes", "created", "expires", "revoked"], rows))


@group.command("revoke", epilog=root.EPILOG)
def revoke(
    ctx: typer.Context, key_id: Annotated[str, typer.Argument(metavar="KEY", help="Its id, not its secret.")]
) -> None:
    """Revoke a key: refused everywhere within 5 seconds."""
    session = session_of(ctx)
    key = session.client.keys.RevokeKey(pb.RevokeKeyRequest(key_id=key_id)).key
    session.show(key, lambda: fields(_card(key)))


def _card(key: pb.Key) -> dict[str, object]:
    return {
        "key": key.key_id,
        "name": key.name,
        "scopes": [word(pb.Scope.Name(each), "SCOPE") for each in key.scopes],
        "created": show_time(key.create_time),
        "expires": show_time(key.expire_time),
        "revoked": show_time(key.revoke_time),
    }
