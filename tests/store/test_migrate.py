"""Migrations run beside those who work on the same tables, and know whom they would break."""

import threading
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import count
from pathlib import Path

import psycopg
import pytest

from ammeter.errors import InternalError
from ammeter.store import migrate as store_migrate
from ammeter.store import schema
from ammeter.store.db import Database
from ammeter.store.embedded import EmbeddedPostgres
from ammeter.store.migrate import migrate, pending_migrations
from tests.schema_versions import add_migration, copy_migrations

_NUMBERS = count(1)
ADD_NOTE = 'op.execute("ALTER TABLE heads ADD COLUMN IF NOT EXISTS note text")'


@pytest.fixture
def url(postgres: EmbeddedPostgres) -> Iterator[str]:
    """An empty database."""
    base, _, rest = postgres.url.partition("/ammeter?")
    name = f"migrations_{next(_NUMBERS)}"
    with psycopg.connect(f"{base}/postgres?{rest}", autocommit=True) as conn:
        conn.execute(f"CREATE DATABASE {name}".encode())
    yield f"{base}/{name}?{rest}"
    with psycopg.connect(f"{base}/postgres?{rest}", autocommit=True) as conn:
        conn.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def test_a_schema_that_is_newer_by_what_it_allows_is_left_alone(url: str, tmp_path: Path) -> None:
    migrate(url)
    newer = copy_migrations(tmp_path / "newer")
    revision = add_migration(newer, "expand", ADD_NOTE, still_serves=schema.known_revision())
    assert migrate(url, newer) == [revision]
    assert pending_migrations(url) == []
    assert migrate(url) == []
    with closing(Database(url)) as db:
        db.raw().close()


def test_a_schema_that_serves_only_newer_versions_is_refused(url: str, tmp_path: Path) -> None:
    migrate(url)
    newer = copy_migrations(tmp_path / "newer")
    revision = add_migration(newer, "contract", ADD_NOTE)
    assert migrate(url, newer) == [revision]
    for refused in (migrate, pending_migrations):
        with pytest.raises(InternalError, match=f"serves those that know revision {revision}, and this one"):
            refused(url)
    with closing(Database(url)) as db, pytest.raises(InternalError, match="start a newer version"):
        db.raw()


def test_a_migration_that_does_not_serve_a_running_version_waits_for_nobody(url: str, tmp_path: Path) -> None:
    migrate(url)
    newer = copy_migrations(tmp_path / "newer")
    gentle = add_migration(newer, "expand", ADD_NOTE, still_serves=schema.known_revision())
    harsh = add_migration(newer, "contract", 'op.execute("ALTER TABLE heads DROP COLUMN note")')
    with closing(Database(url)) as db:
        with closing(db.raw()):
            with pytest.raises(InternalError, match=f"knows the schema up to {schema.known_revision():04}"):
                migrate(url, newer)
            assert pending_migrations(url) == [], "what could be applied was"
        assert migrate(url, newer) == [harsh] != [gentle]


def test_a_version_that_starts_during_a_migration_that_breaks_it_is_refused(url: str, tmp_path: Path) -> None:
    """The race between looking whether somebody runs and being done."""
    migrate(url)
    newer = copy_migrations(tmp_path / "newer")
    add_migration(newer, "contract", 'op.execute("LOCK heads"); ' + ADD_NOTE)
    refusals: list[str] = []

    def start() -> None:
        with closing(Database(url)) as db:
            try:
                db.raw().close()
            except InternalError as error:
                refusals.append(error.message)

    with psycopg.connect(url) as busy, psycopg.connect(url, autocommit=True) as watch:
        busy.execute("SELECT FROM heads")
        migrating = threading.Thread(target=migrate, args=(url, newer))
        migrating.start()
        _wait_for_lock(watch, "relation")
        starting = threading.Thread(target=start)
        starting.start()
        _wait_for_lock(watch, "advisory")
        busy.rollback()
        migrating.join()
        starting.join()
    (refusal,) = refusals
    assert "start a newer version" in refusal


def test_a_busy_table_is_left_to_others_and_asked_for_again(url: str, tmp_path: Path) -> None:
    migrate(url)
    newer = copy_migrations(tmp_path / "newer")
    revision = add_migration(newer, "expand", ADD_NOTE, still_serves=schema.known_revision())
    applied: list[list[str]] = []
    with psycopg.connect(url) as busy, psycopg.connect(url, autocommit=True) as other:
        busy.execute("SELECT FROM heads")
        migrating = threading.Thread(target=lambda: applied.append(migrate(url, newer)))
        migrating.start()
        _wait_for_lock(other, "relation")
        other.execute("SELECT FROM heads")  # waits behind it, until it gives up
        assert migrating.is_alive()
        busy.rollback()
        migrating.join()
    assert applied == [[revision]]


def test_a_migration_that_holds_its_locks_too_long_is_taken_back(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_migrate, "_BUSY_PAUSE_SECONDS", 0.01)
    migrate(url)
    known = schema.known_revision()
    for number, slow in enumerate(
        (
            'op.execute("SELECT pg_sleep(60)")',
            "import time; time.sleep(1.1)",
            "\n    ".join(['op.execute("SELECT pg_sleep(0.4)")'] * 3),
        )
    ):
        newer = copy_migrations(tmp_path / f"newer-{number}")
        add_migration(newer, "expand", f"{ADD_NOTE}\n    {slow}", still_serves=known)
        with pytest.raises(InternalError, match="hold its locks for more than 1000 ms"):
            migrate(url, newer)
    with psycopg.connect(url) as conn, pytest.raises(psycopg.errors.UndefinedColumn):
        conn.execute("SELECT note FROM heads")


def test_one_that_fails_keeps_what_came_before(url: str, tmp_path: Path) -> None:
    migrate(url)
    newer = copy_migrations(tmp_path / "newer")
    known = schema.known_revision()
    first = add_migration(newer, "expand", ADD_NOTE, still_serves=known)
    second = add_migration(
        newer, "wrong", 'op.execute("ALTER TABLE nothing ADD COLUMN note text")', still_serves=known
    )
    with pytest.raises(Exception, match='relation "nothing" does not exist'):
        migrate(url, newer)
    next((newer / "versions").glob(f"{second}_*")).unlink()
    assert add_migration(newer, "right", "pass", still_serves=known) == second
    assert migrate(url, newer) == [second] != [first]


def _wait_for_lock(conn: psycopg.Connection[tuple[object, ...]], kind: str) -> None:
    """Wait until somebody waits for a lock of a kind."""
    query = "SELECT FROM pg_locks WHERE NOT granted AND locktype = %s"
    deadline = time.monotonic() + 60
    while conn.execute(query, [kind]).fetchone() is None:
        assert time.monotonic() < deadline, f"nobody waits for a lock of kind {kind}"
        time.sleep(0.01)
