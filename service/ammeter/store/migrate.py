"""Brings a database's schema up to date."""

from pathlib import Path

import alembic.command
import sqlalchemy as sa
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from ammeter.errors import InternalError
from ammeter.store.db import driver_url

# One migration at a time, whoever starts it: "ammeter" in ASCII.
_LOCK_KEY = 0x616D6D65746572


def _script_location() -> Path:
    """Find migrations/: beside service/ in a checkout, beside the package when installed."""
    package = Path(__file__).resolve().parents[1]
    for root in (package.parents[1], package.parent):
        if (root / "migrations" / "env.py").exists():
            return root / "migrations"
    message = "the migrations are missing from this installation: install ammeter again"
    raise InternalError(message)


def _config(conn: sa.Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(_script_location()))
    config.attributes["connection"] = conn
    return config


def migrate(url: str) -> list[str]:
    """Apply what is missing, in one transaction; return the revisions applied.

    Safe to run from several processes at once. `url` names a role that may
    create tables and roles.
    """
    engine = sa.create_engine(driver_url(url), poolclass=sa.NullPool)
    with engine.begin() as conn:
        conn.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK_KEY})
        config = _config(conn)
        script = ScriptDirectory.from_config(config)
        before = MigrationContext.configure(conn).get_current_revision()
        pending = [step.revision for step in script.iterate_revisions("head", before or "base")]
        if pending:
            alembic.command.upgrade(config, "head")
    engine.dispose()
    return pending[::-1]


def pending_migrations(url: str) -> list[str]:
    """Return the revisions that a database lacks, oldest first."""
    engine = sa.create_engine(driver_url(url), poolclass=sa.NullPool)
    with engine.connect() as conn:
        script = ScriptDirectory.from_config(_config(conn))
        before = MigrationContext.configure(conn).get_current_revision()
        pending = [step.revision for step in script.iterate_revisions("head", before or "base")]
    engine.dispose()
    return pending[::-1]
