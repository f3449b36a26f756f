"""Connections and transactions.

Two ways in, by role: `tenant()` for everything done on behalf of a caller,
where row-level security shows one tenant only, and `engine()` for what the
process does for all of them (commits, checkpoints, recovery, key look-up).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import psycopg
import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from ammeter.errors import InternalError, UnavailableError
from ammeter.store import schema

APP_ROLE = "ammeter_app"
ENGINE_ROLE = "ammeter_engine"

_SET_TENANT = sa.text("SELECT set_config('role', :role, true), set_config('ammeter.tenant', :tenant, true)")
_UNSAFE_SETTINGS = ("fsync", "full_page_writes", "synchronous_commit")
_MINIMUM_VERSION = 150000
# A host that vanished says no goodbye: left alone, TCP waits a quarter of an hour for it, or for ever.
_GIVE_UP = {
    "tcp_user_timeout": "10000",  # milliseconds that what was sent may stay unacknowledged
    "keepalives_idle": "10",
    "keepalives_interval": "3",
    "keepalives_count": "3",
}


@dataclass
class Tx:
    """A transaction on one tenant's rows.

    `after_commit` actions run in order once the transaction is durable; they
    refresh what memory knows.
    """

    conn: Connection
    tenant_id: int
    after_commit: list[Callable[[], None]] = field(default_factory=list)


def driver_url(url: str) -> sa.URL:
    """Accept any Postgres URL and make it name the driver that we use; what it says of time-outs stands."""
    given = sa.make_url(url).set(drivername="postgresql+psycopg")
    return given.set(query={**_GIVE_UP, **given.query})


class Database:
    """A pool of connections to one database."""

    def __init__(self, url: str, *, pool_size: int = 8) -> None:
        """Connect lazily; `url` is any libpq-style Postgres URL."""
        self.url = driver_url(url)
        self._pool = sa.create_engine(
            self.url,
            pool_size=pool_size,
            max_overflow=pool_size,
            pool_timeout=5,
            pool_pre_ping=True,
            hide_parameters=True,  # they are what callers sent: not for logs
            connect_args={"connect_timeout": 5, "application_name": "ammeter"},
        )

    def close(self) -> None:
        """Close every pooled connection."""
        self._pool.dispose()

    @contextmanager
    def tenant(self, tenant_id: int, *, snapshot: bool = False) -> Iterator[Tx]:
        """Run a transaction as the application role, on one tenant's rows.

        `snapshot` gives one consistent, read-only view to all statements.
        Raises UnavailableError when the database does not answer.
        """
        with self._begin(APP_ROLE, str(tenant_id), snapshot=snapshot) as conn:
            tx = Tx(conn, tenant_id)
            yield tx
        for action in tx.after_commit:
            action()

    @contextmanager
    def engine(self, *, snapshot: bool = False) -> Iterator[Connection]:
        """Run a transaction as the engine role, over all tenants."""
        with self._begin(ENGINE_ROLE, "", snapshot=snapshot) as conn:
            yield conn

    @contextmanager
    def _begin(self, role: str, tenant: str, *, snapshot: bool) -> Iterator[Connection]:
        with unavailable_if_away(), self._pool.connect() as conn:
            if snapshot:
                conn = conn.execution_options(  # noqa: PLW2901 - the options make a new face of the same connection
                    isolation_level="REPEATABLE READ", postgresql_readonly=True
                )
            with conn.begin():
                conn.execute(_SET_TENANT, {"role": role, "tenant": tenant})
                yield conn

    def raw(self) -> psycopg.Connection[tuple[object, ...]]:
        """Open a connection of its own as the engine role, in autocommit.

        For the writer, which keeps one for its lifetime. Raises InternalError
        when the schema does not serve this version.
        """
        url = self.url.set(drivername="postgresql").render_as_string(hide_password=False)
        conn = psycopg.connect(url, autocommit=True, connect_timeout=5, application_name="ammeter writer")
        try:
            conn.execute(f"SET ROLE {ENGINE_ROLE}".encode())
            schema.announce(conn)
        except BaseException:
            conn.close()
            raise
        return conn

    def check_server(self) -> None:
        """Refuse a server that is too old or that would lose commits."""
        with unavailable_if_away(), self._pool.connect() as conn:
            version = int(conn.execute(sa.text("SHOW server_version_num")).scalar_one())
            if version < _MINIMUM_VERSION:
                message = f"PostgreSQL {version // 10000} is too old: 15 or newer is needed"
                raise InternalError(message)
            for name in _UNSAFE_SETTINGS:
                value = conn.execute(sa.text(f"SHOW {name}")).scalar_one()
                if value == "off":
                    message = f"{name} is off, so an acknowledged event could be lost: turn it on"
                    raise InternalError(message)


@contextmanager
def unavailable_if_away() -> Iterator[None]:
    """Turn the driver's ways of saying "no database" into UnavailableError."""
    try:
        yield
    except (OperationalError, InterfaceError, PoolTimeoutError, psycopg.OperationalError) as error:
        message = "the database does not answer: try again"
        raise UnavailableError(message) from error
    except DBAPIError as error:
        if error.connection_invalidated:
            message = "the database connection was lost: try again"
            raise UnavailableError(message) from error
        raise
