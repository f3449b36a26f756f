"""Which versions of the program and of the schema go together.

A version knows the schema up to a revision. Each connection that outlives a
transaction holds a lock that names it, so a migration that such a version
could not live with finds out that one is running, and keeps it from starting.
"""

import functools
from pathlib import Path

import psycopg
import sqlalchemy as sa

from ammeter.errors import InternalError

# The revision that brought server_state.oldest_revision: the least that a version must know to serve.
SINCE = 18

# One of these for each revision that a running version may know: "amms" in ASCII.
KNOWN_LOCK = 0x616D6D73

_OLDEST = "SELECT oldest_revision FROM server_state"


def script_location() -> Path:
    """Find migrations/: beside service/ in a checkout, beside the package when installed."""
    package = Path(__file__).resolve().parents[1]
    for root in (package.parents[1], package.parent):
        if (root / "migrations" / "env.py").exists():
            return root / "migrations"
    message = "the migrations are missing from this installation: install ammeter again"
    raise InternalError(message)


@functools.cache  # what is installed over a running process is not what runs
def known_revision() -> int:
    """Tell the newest revision that this version knows."""
    versions = script_location() / "versions"
    return max(int(path.name.partition("_")[0]) for path in versions.glob("[0-9]*.py"))


def require_served(known: int, oldest: int) -> None:
    """Refuse a schema that has moved on too far for a version; raises InternalError."""
    if known < oldest:
        message = (
            f"the schema is of a newer version: it serves those that know revision {oldest:04}, and this one "
            f"knows {known:04}: start a newer version"
        )
        raise InternalError(message)


def oldest_revision(conn: sa.Connection) -> int:
    """Read the least that a version must know to serve."""
    return int(conn.execute(sa.text(_OLDEST)).scalar_one())


def set_oldest_revision(conn: sa.Connection, oldest: int) -> None:
    """Say the least that a version must know from here on; it never becomes less."""
    change = "UPDATE server_state SET oldest_revision = greatest(oldest_revision, :oldest)"
    if conn.execute(sa.text(change), {"oldest": oldest}).rowcount != 1:
        message = "the role that migrates does not see server_state: grant it ammeter_engine, inherited"
        raise InternalError(message)


def announce(conn: psycopg.Connection[tuple[object, ...]]) -> None:
    """Say on a connection, for as long as it lasts, what this version knows.

    Waits for a migration under way that it could not live with; raises
    InternalError if the schema does not serve this version.
    """
    known = known_revision()
    conn.execute("SELECT pg_advisory_lock_shared(%s, %s)", [KNOWN_LOCK, known])
    row = conn.execute(_OLDEST.encode()).fetchone()
    require_served(known, int(str(row[0])) if row else 0)
