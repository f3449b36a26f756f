"""The straightforward service of bench.plain as a child, on the same Postgres, with its own gate."""

import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import grpc
import psycopg

from ammeter.client import Client
from bench.ingest import Case, Ingest, Target
from bench.machine import free_port
from bench.plain import SUMS

CASE = Case("unary", 1000, 16, 50_000)
_START_SECONDS = 30.0


class PlainService:
    """A running service."""

    def __init__(self, url: str, directory: Path) -> None:
        """Start it, and wait until it serves."""
        self.address = f"127.0.0.1:{free_port()}"
        self._url = url
        self._log = directory / "plain.log"
        with self._log.open("wb") as output:
            self._child = subprocess.Popen(  # noqa: S603 - our own program
                [sys.executable, "-m", "bench.plain", url, self.address],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=Path(__file__).parents[1],
            )
        deadline = time.monotonic() + _START_SECONDS
        while not self._serves():
            assert self._child.poll() is None, self._log.read_text()
            assert time.monotonic() < deadline, self._log.read_text()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._child.pid

    def target(self, client: Client, postmaster_pid: int) -> Target:
        """Be what events are sent to."""
        return Target(self, client, postmaster_pid)

    def require(self, ingest: Ingest, target: Target) -> None:
        """Stop unless its sums and its rows are what was sent."""
        ((name, times),) = target.sent.items()
        expected = ingest.expected[name]
        wanted: Counter[str] = Counter()
        for (meter, _, model), value in expected.sums.items():
            wanted[f"{meter}/{model}"] += value * times
        found = self._sums()
        assert found == wanted, "the plain service's sums differ"
        with psycopg.connect(self._url) as conn:
            row = conn.execute("SELECT count(*) FROM plain_events").fetchone()
        assert row == (expected.accepted * times,), row

    def stop(self) -> None:
        """End it."""
        self._child.kill()
        self._child.wait()

    def _serves(self) -> bool:
        try:
            self._sums()
        except grpc.RpcError:
            return False
        return True

    def _sums(self) -> dict[str, int]:
        with grpc.insecure_channel(self.address) as channel:
            call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(SUMS)
            found: dict[str, int] = json.loads(call(b"", timeout=5, wait_for_ready=True))
        return found
