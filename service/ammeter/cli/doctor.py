"""The verb `doctor`: looks at everything a server needs and says what to do about each."""

import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta

import typer
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from ammeter.cli.demo.child import is_serving
from ammeter.cli.session import session_of
from ammeter.config import ConfigurationError, Settings, load
from ammeter.errors import AmmeterError

_MANY_ROWS = 100_000
_CLOCK_TOLERANCE = timedelta(seconds=5)
_STYLES = {"ok": "green", "note": "yellow", "bad": "bold red"}


@dataclass(frozen=True)
class Finding:
    """One thing looked at. state: ok; note, which is worth knowing; bad, which must be mended by `advice`."""

    name: str
    state: str
    text: str
    advice: str = ""


def doctor(ctx: typer.Context) -> None:
    """Check settings, database, port, clock and the Rust core. Exit code 1 if anything must be mended."""
    session = session_of(ctx)
    findings = list(_examine())
    answer = {"findings": [asdict(each) for each in findings]}
    session.show(answer, lambda: _view(findings))
    if any(each.state == "bad" for each in findings):
        raise typer.Exit(1)


def _examine() -> Iterator[Finding]:
    yield _native()
    try:
        settings = load()
    except ConfigurationError as error:
        yield Finding(
            "settings", "bad", str(error), "mend these variables; docs/configuration.md lists them all"
        )
        return
    yield Finding("settings", "ok", "they agree with each other")
    if settings.database_url is None:
        where = settings.data_dir.resolve()
        state = "is there" if (where / "postgres").exists() else "is made by the first `ammeter serve`"
        yield Finding("database", "ok", f"embedded in {where}: {state}")
    else:
        yield from _database(settings.database_url, settings)
    yield _port(settings)


def _native() -> Finding:
    try:
        from ammeter.usecases.engine import parse_quantity  # noqa: PLC0415 - whether it loads is the question
    except ImportError as error:
        return Finding("rust core", "bad", f"does not load: {error}", "build it with `make build`")
    if parse_quantity("1.5") is None:
        return Finding("rust core", "bad", "does not read 1.5", "build it anew: `make clean build`")
    return Finding("rust core", "ok", "loads")


def _database(url: str, settings: Settings) -> Iterator[Finding]:
    import psycopg  # noqa: PLC0415 - the other verbs start without a driver
    import sqlalchemy.exc  # noqa: PLC0415

    from ammeter.store.db import Database  # noqa: PLC0415
    from ammeter.store.migrate import pending_migrations  # noqa: PLC0415

    with closing(Database(url)) as db:
        shown = db.url.render_as_string()  # hides the password
        answers = list(_try("database", f"{shown} answers, new enough, loses no commit", db.check_server))
    yield from answers
    if answers[0].state == "bad":
        return
    yield _clock(url)
    try:
        pending = pending_migrations(settings.migration_database_url or url)
    except AmmeterError as error:
        yield Finding("schema", "bad", error.message, "")
        return
    except (psycopg.Error, sqlalchemy.exc.SQLAlchemyError) as error:
        why = str(error).splitlines()[0]
        yield Finding("schema", "note", f"cannot be looked at: {why}", "set AMMETER_MIGRATION_DATABASE_URL")
        return
    if pending:
        text = f"lacks {', '.join(pending)}"
        yield Finding("schema", "note", text, "the next `ammeter serve`, or `ammeter migrate`, applies it")
    else:
        yield Finding("schema", "ok", "up to date")
        yield _rows(url, settings)


def _rows(url: str, settings: Settings) -> Finding:
    import sqlalchemy.exc  # noqa: PLC0415

    from ammeter.store import packs  # noqa: PLC0415
    from ammeter.store.db import Database  # noqa: PLC0415

    try:
        with closing(Database(url)) as db, db.engine() as conn:
            found = packs.count(conn)
    except (AmmeterError, sqlalchemy.exc.SQLAlchemyError) as error:
        why = str(error).splitlines()[0]
        return Finding("segments", "note", f"cannot be counted: {why}", "may this account serve?")
    text = f"{found.segments:,} in {found.rows:,} rows, {found.packs:,} of them packs"
    if found.rows - found.packs < _MANY_ROWS or settings.pack_interval_seconds:
        return Finding("segments", "ok", text)
    advice = "small ones are not packed: set AMMETER_PACK_INTERVAL_SECONDS to 60"
    return Finding("segments", "note", text, advice)


def _try(name: str, good: str, examine: Callable[[], None]) -> Iterator[Finding]:
    try:
        examine()
    except AmmeterError as error:
        advice = (
            "is it running? check AMMETER_DATABASE_URL and the network" if "answer" in error.message else ""
        )
        yield Finding(name, "bad", error.message, advice)
    else:
        yield Finding(name, "ok", good)


def _clock(url: str) -> Finding:
    import psycopg  # noqa: PLC0415

    with psycopg.connect(url, connect_timeout=5) as conn:
        before = datetime.now(UTC)
        row = conn.execute("SELECT clock_timestamp()").fetchone()
        after = datetime.now(UTC)
    theirs = row[0] if row else before
    apart = max(before - theirs, theirs - after, timedelta(0))
    if apart > _CLOCK_TOLERANCE:
        text = f"{apart.total_seconds():.0f} s apart from the database's"
        return Finding("clock", "bad", text, "synchronise both by NTP: event times are judged by ours")
    return Finding("clock", "ok", "agrees with the database's")


def _port(settings: Settings) -> Finding:
    host, _, port = settings.listen.rpartition(":")
    host = host.strip("[]")
    if is_serving(settings.listen):
        return Finding("port", "ok", f"a healthy server runs at {settings.listen}")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, int(port)))
        except OSError as error:
            advice = "stop what is there, or set AMMETER_LISTEN to another port"
            return Finding("port", "bad", f"{settings.listen} cannot be used: {error.strerror}", advice)
    return Finding("port", "ok", f"{settings.listen} is free")


def _view(findings: list[Finding]) -> RenderableType:
    drawn = Table.grid(padding=(0, 2))
    for each in findings:
        text = f"{each.text}\n  {each.advice}" if each.advice else each.text
        drawn.add_row(Text(each.state, _STYLES[each.state]), each.name, Text(text))
    return drawn
