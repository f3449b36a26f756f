"""Verbs that work beside the API: the server itself, its schema, its tenants, its version."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Annotated

import typer

from ammeter.cli import root
from ammeter.cli.session import messages, session_of
from ammeter.cli.view import fields
from ammeter.config import Settings, load, load_pepper

tenant = root.group("tenant", "Isolated operators on one server. Works on the database itself.")


def serve(
    *,
    listen: Annotated[str | None, typer.Option(help="Where gRPC is served, as host:port.")] = None,
    database_url: Annotated[
        str | None, typer.Option(help="A Postgres, 15 or newer; without it one of our own is started.")
    ] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Where the embedded Postgres lives.")] = None,
) -> None:
    """Run the server until Ctrl-C. All settings are AMMETER_* variables: docs/configuration.md lists them."""
    from ammeter.server import serve as run  # noqa: PLC0415 - the other verbs start without the server's imports

    run(load(listen=listen, database_url=database_url, data_dir=data_dir))


def migrate(ctx: typer.Context) -> None:
    """Bring the database's schema up to date. `ammeter serve` does so itself with an embedded one."""
    session = session_of(ctx)
    with _migrated(load()) as (_, applied):
        text = f"applied {', '.join(applied)}" if applied else "the schema is up to date"
        session.show({"applied": applied}, lambda: text)


@tenant.command("create", epilog=root.EPILOG)
def create_tenant(
    ctx: typer.Context, name: Annotated[str, typer.Argument(help="1-64 of a-z, 0-9, _ and -.")]
) -> None:
    """Make a tenant and its first key, which may administer and read. The secret is shown once, here."""
    from ammeter.store.db import Database  # noqa: PLC0415
    from ammeter.usecases.keys import create_tenant as run  # noqa: PLC0415

    session, settings = session_of(ctx), load()
    with _migrated(settings) as (url, _), closing(Database(url)) as db:
        tenant_id, secret = run(db, load_pepper(settings), name, datetime.now(UTC))
    answer = {"tenant_key": name, "tenant_id": tenant_id, "secret": secret}
    session.show(answer, lambda: fields({"tenant": name, "id": tenant_id, "secret": secret}))
    messages().print("Keep the secret now: it is shown this once and stored nowhere.")


@contextmanager
def _migrated(settings: Settings) -> Iterator[tuple[str, list[str]]]:
    """Open the configured or the embedded database and migrate it; yield its URL and what was applied."""
    from ammeter.store.embedded import EmbeddedPostgres  # noqa: PLC0415
    from ammeter.store.migrate import migrate as run  # noqa: PLC0415

    if settings.database_url:
        yield settings.database_url, run(settings.migration_database_url or settings.database_url)
        return
    with EmbeddedPostgres(settings.data_dir) as postgres:
        yield postgres.url, run(postgres.url)


def version(ctx: typer.Context) -> None:
    """Show the version."""
    number = installed_version("ammeter")
    session_of(ctx).show({"version": number}, lambda: f"ammeter {number}")
