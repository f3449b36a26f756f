"""Where a benchmark runs: an embedded Postgres, the server, and what CPU each of them took."""

import os
import platform
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import psutil
import psycopg
from grpc_health.v1 import health_pb2, health_pb2_grpc

from ammeter.store.embedded import EmbeddedPostgres

_ROOT = Path(__file__).resolve().parents[1]
_POLL_SECONDS = 0.02
_START_SECONDS = 300.0


@dataclass(frozen=True)
class Cpu:
    """CPU-seconds since the process began."""

    client: float
    server: float
    postgres: float

    def __sub__(self, other: "Cpu") -> "Cpu":
        return Cpu(self.client - other.client, self.server - other.server, self.postgres - other.postgres)

    def per_million(self, events: int) -> dict[str, float]:
        """Spread over so many events."""
        return {name: value * 1e6 / events for name, value in vars(self).items()}


class Server:
    """`bench.serve` as a child, over one database."""

    def __init__(
        self,
        url: str,
        directory: Path,
        arguments: tuple[str, ...] = (),
        *,
        source: Path | None = None,
        **settings: object,
    ) -> None:
        """Name the database and where the log goes; `settings` are fields of ammeter.config.Settings.

        `arguments` are bench.serve's; `source` is another checkout whose server to run.
        """
        self.address = f"127.0.0.1:{free_port()}"
        self.identities = directory / "identities"
        self._metrics = f"127.0.0.1:{free_port()}"
        self.log = directory / "server.log"
        self._arguments = arguments
        given = {
            "database_url": url,
            "listen": self.address,
            "metrics_listen": self._metrics,
            "data_dir": directory,
            "identity_dir": self.identities,
            **settings,
        }
        clean = {name: value for name, value in os.environ.items() if not name.startswith("AMMETER_")}
        self._environment = clean | {f"AMMETER_{name.upper()}": str(value) for name, value in given.items()}
        if source is not None:
            self._environment["PYTHONPATH"] = str(source / "service")
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> float:
        """Start it, wait until it serves; returns the seconds that took."""
        started = time.monotonic()
        with self.log.open("ab") as output:
            self._child = subprocess.Popen(  # noqa: S603 - our own program
                [sys.executable, "-m", "bench.serve", *self._arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self._environment,
                cwd=_ROOT,
            )
        with grpc.insecure_channel(self.address, options=[("grpc.max_reconnect_backoff_ms", 100)]) as channel:
            check = health_pb2_grpc.HealthStub(channel).Check  # type: ignore[attr-defined]  # made at run time
            while not _serves(check):
                assert self._child.poll() is None, self.log.read_text()
                assert time.monotonic() < started + _START_SECONDS, self.log.read_text()
                time.sleep(_POLL_SECONDS)
        return time.monotonic() - started

    def stop(self) -> None:
        """Ask it to stop, and wait."""
        if self._child is not None and self._child.poll() is None:
            self._child.terminate()
            self._child.wait(60)

    def kill(self) -> None:
        """Do not ask."""
        if self._child is not None and self._child.poll() is None:
            self._child.kill()
            self._child.wait()

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._child is not None
        return self._child.pid

    def stats(self) -> dict[str, float]:
        """Read Engine.stats as of the last second."""
        return {
            name.removeprefix('ammeter_engine{what="').removesuffix('"}'): value
            for name, value in self._read_metrics().items()
            if name.startswith("ammeter_engine{")
        }

    def recovered(self) -> tuple[float, float]:
        """Tell how many events were read back at the start, and in how many seconds."""
        found = self._read_metrics()
        return found["ammeter_recovered_events"], found["ammeter_recovery_seconds"]

    def _read_metrics(self) -> dict[str, float]:
        with urllib.request.urlopen(f"http://{self._metrics}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        pairs = (line.rsplit(" ", 1) for line in lines if line and not line.startswith("#"))
        return {name: float(value) for name, value in pairs}

    def resident_bytes(self) -> int:
        """Memory it holds."""
        return int(psutil.Process(self.pid).memory_info().rss)


def _serves(
    check: "grpc.UnaryUnaryMultiCallable[health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse]",
) -> bool:
    try:
        answer = check(health_pb2.HealthCheckRequest(), timeout=2)
    except grpc.RpcError:
        return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def cpu(client_pid: int, server_pid: int, postmaster_pid: int) -> Cpu:
    """Read what each has taken; Postgres with all its processes, past ones included."""
    postmaster = psutil.Process(postmaster_pid)
    times = postmaster.cpu_times()
    postgres = times.user + times.system + times.children_user + times.children_system
    for one in postmaster.children():
        try:
            postgres += sum(one.cpu_times()[:2])
        except psutil.NoSuchProcess:
            continue  # the postmaster has waited for it, or will have next time
    return Cpu(
        sum(psutil.Process(client_pid).cpu_times()[:2]),
        sum(psutil.Process(server_pid).cpu_times()[:2]),
        postgres,
    )


@contextmanager
def postgres(directory: Path) -> Iterator[EmbeddedPostgres]:
    """Run an embedded Postgres as safe as in production."""
    with EmbeddedPostgres(directory / "postgres-data") as running:
        yield running


def new_database(url: str, name: str) -> str:
    """Make an empty database beside the one of `url`; returns its URL."""
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(f"CREATE DATABASE {name}".encode())
    return url.replace("/ammeter?", f"/{name}?")


def describe() -> dict[str, object]:
    """Tell which machine and which commit this is."""
    models = [
        line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")
    ]
    commit = _git("rev-parse", "--short", "HEAD")
    changed = _git("status", "--porcelain", "--untracked-files=no", "service", "native", "migrations")
    return {
        "commit": commit + ("+" if changed else ""),
        "processor": models[0].partition(":")[2].strip() if models else platform.processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "python": platform.python_version(),
        "grpcio": grpc.__version__,
    }


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(_ROOT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()  # noqa: S603 - ours


def load_average() -> float:
    """Other work on the machine, over the last minute."""
    return os.getloadavg()[0]


def free_port() -> int:
    """Find a port of this machine that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
