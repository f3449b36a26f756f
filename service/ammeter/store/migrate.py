"""Brings a database's schema up to date, beside servers that go on working where the migration says so.

docs/operating.md has the rules that migrations follow.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import alembic.command
import psycopg
import sqlalchemy as sa
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import Script, ScriptDirectory
from sqlalchemy.exc import OperationalError

from ammeter.errors import InternalError, UnavailableError
from ammeter.store import schema
from ammeter.store.db import driver_url

# One process migrates at a time: "ammeter" in ASCII.
_LOCK_KEY = 0x616D6D65746572

# Whoever waits for a table's lock holds up all that come after it.
_LOCK_MS = 250
# From the first statement to the commit; a lock once taken is held that long.
_HOLD_MS = 1000
_BUSY_PAUSE_SECONDS = 0.5
_BUSY_ATTEMPTS = 120
_LONG_ATTEMPTS = 3


def migrate(url: str, scripts: Path | None = None) -> list[str]:
    """Apply what is missing, each migration in a transaction of its own; return the revisions applied.

    Safe to run from several processes at once. `url` names a role that may
    create tables and roles. A schema that is newer than this version knows is
    left alone. Raises InternalError when the schema does not serve this version,
    or a migration does not serve one that is running; UnavailableError when the
    tables stay busy: what was applied stays, and another run goes on from there.
    """
    engine = sa.create_engine(driver_url(url), poolclass=sa.NullPool)
    applied = []
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as guard:
        guard.execute(sa.text("SELECT pg_advisory_lock(:key)"), {"key": _LOCK_KEY})
        for step in _pending(engine, scripts):
            _require_alone(guard, step)
            _apply(engine, scripts, step)
            applied.append(step.revision)
    engine.dispose()
    return applied


def pending_migrations(url: str) -> list[str]:
    """Return the revisions that a database lacks, oldest first; raises InternalError as migrate does."""
    engine = sa.create_engine(driver_url(url), poolclass=sa.NullPool)
    pending = _pending(engine, None)
    engine.dispose()
    return [step.revision for step in pending]


def _config(conn: sa.Connection | None, scripts: Path | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(scripts or schema.script_location()))
    config.attributes["connection"] = conn
    return config


def _pending(engine: sa.Engine, scripts: Path | None) -> list[Script]:
    script = ScriptDirectory.from_config(_config(None, scripts))
    with engine.begin() as conn:
        before = MigrationContext.configure(conn).get_current_revision()
        known = int(script.get_current_head() or 0)
        if before is None or int(before) < known:
            return [*script.iterate_revisions("head", before or "base")][::-1]
        if int(before) > known:
            schema.require_served(known, schema.oldest_revision(conn))
        return []


def _oldest(step: Script) -> int:
    """Tell the least that a version must know to serve after a migration; all of it, if it does not say."""
    return int(getattr(step.module, "still_serves", step.revision))


def _require_alone(guard: sa.Connection, step: Script) -> None:
    """Keep out, until we are done, the versions that a migration does not serve."""
    query = sa.text(
        "SELECT known FROM generate_series(CAST(:since AS int), CAST(:last AS int)) AS known "
        "WHERE NOT pg_try_advisory_lock(:lock, known)"
    )
    last = _oldest(step) - 1
    given = {"since": schema.SINCE, "last": last, "lock": schema.KNOWN_LOCK}
    running = guard.execute(query, given).scalars().all()
    if running:
        message = (
            f"a server runs that knows the schema up to {min(running):04}; migration {step.revision} serves "
            f"none that knows less than {_oldest(step):04}: stop it, or start the version between first"
        )
        raise InternalError(message)


def _apply(engine: sa.Engine, scripts: Path | None, step: Script) -> None:
    """Apply one migration; tables that are busy are asked for again, and soon left to others."""
    is_gentle = hasattr(step.module, "still_serves")
    attempt = 0
    while True:
        attempt += 1
        try:
            with engine.connect() as conn:
                if is_gentle:
                    _be_brief(conn, step.revision)
                config = _config(conn, scripts)
                config.attributes["applied"] = _remember(conn, step)
                alembic.command.upgrade(config, step.revision)
        except OperationalError as error:
            busy = isinstance(error.orig, psycopg.errors.LockNotAvailable | psycopg.errors.DeadlockDetected)
            long = is_gentle and isinstance(error.orig, psycopg.errors.QueryCanceled)
            if long and attempt >= _LONG_ATTEMPTS:
                raise _too_long(step.revision) from error
            if busy and attempt >= _BUSY_ATTEMPTS:
                message = f"migration {step.revision} finds its tables busy: try again when less is going on"
                raise UnavailableError(message) from error
            if not busy and not long:
                raise
            time.sleep(_BUSY_PAUSE_SECONDS)
        else:
            return


def _remember(conn: sa.Connection, step: Script) -> Callable[..., None]:
    """Make what writes down, in the transaction of a migration, whom the schema serves after it."""

    def applied(**_: Any) -> None:  # noqa: ANN401 - Alembic tells it more
        if int(step.revision) > schema.SINCE:
            schema.set_oldest_revision(conn, _oldest(step))

    return applied


def _be_brief(conn: sa.Connection, revision: str) -> None:
    """Bound how long a connection's transactions wait for locks, and hold them.

    Outside of transactions (autocommit_block) only waiting is bounded: what is
    done there is small, or locks nobody out.
    """
    deadline = time.monotonic()
    is_bounded = False

    def begin(_: sa.Connection) -> None:
        nonlocal deadline
        deadline = time.monotonic() + _HOLD_MS / 1000

    def before(_conn: sa.Connection, cursor: Any, *_: object) -> None:  # noqa: ANN401 - the driver's
        nonlocal is_bounded
        is_bounded = not cursor.connection.autocommit
        left = max(1, int((deadline - time.monotonic()) * 1000)) if is_bounded else 0
        cursor.execute(f"SET statement_timeout = {left}; SET lock_timeout = {_LOCK_MS}")

    def commit(_: sa.Connection) -> None:
        if is_bounded and time.monotonic() > deadline:
            raise _too_long(revision)

    sa.event.listen(conn, "begin", begin)
    sa.event.listen(conn, "before_cursor_execute", before)
    sa.event.listen(conn, "commit", commit)


def _too_long(revision: str) -> InternalError:
    return InternalError(
        f"migration {revision} would hold its locks for more than {_HOLD_MS} ms and was taken back: cut it"
    )
