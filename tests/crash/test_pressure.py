"""A slow database and a full disk are back-pressure: bounded memory, no storm of errors, nothing lost."""

import os
import random
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from ammeter.store.embedded import EmbeddedPostgres
from tests.crash.load import Load, set_up
from tests.serving import ServerProcess

CAP_BYTES = 200_000
SLOW_SECONDS = 8
_LARGEST_MESSAGE = 10_000
_TMPFS_MIB = 320


def _metric(server: ServerProcess, name: str) -> float:
    with urllib.request.urlopen(f"http://{server.metrics_address}/metrics", timeout=5) as page:
        for line in page.read().decode().splitlines():
            if line.startswith(name):
                return float(line.rpartition(" ")[2])
    return 0.0


@pytest.fixture
def slow(new_database: Callable[[], str], tmp_path: Path) -> Iterator[ServerProcess]:
    settings = {"test_faults": True, "faults": "append.before=delay:500", "max_pending_bytes": CAP_BYTES}
    with ServerProcess(new_database(), tmp_path, **settings) as server:
        yield server


@pytest.mark.timeout(180)
def test_half_a_second_per_commit_is_slow_and_nothing_else(
    slow: ServerProcess, tmp_path: Path, rng: random.Random
) -> None:
    set_up(slow.stubs())
    pending = []
    with Load(slow.address, tmp_path / "journals", rng, streams=4, unary=8) as load:
        end = time.monotonic() + SLOW_SECONDS
        while time.monotonic() < end:
            pending.append(_metric(slow, 'ammeter_engine{what="pending_bytes"}'))
            time.sleep(0.2)
        load.settle()
    figures = load.verdict(slow.stubs())
    assert max(pending) <= CAP_BYTES + _LARGEST_MESSAGE
    away = [code for client in load.clients for code in client.codes if code is grpc.StatusCode.UNAVAILABLE]
    print(f"500 ms a commit: {figures}; at most {max(pending):.0f} bytes pending, {len(away)} told away")  # noqa: T201
    assert not away, "a database that commits is not away"


@contextmanager
def _small_disk(directory: Path) -> Iterator[Path]:
    """A file system of its own; skips where we may not mount one."""
    directory.mkdir(mode=0o711)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={_TMPFS_MIB}m,mode=0711", "tmpfs", str(directory)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("to fill a disk of its own this test needs to mount one")
    try:
        yield directory
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=True)


def _fill(directory: Path) -> Path:
    """Take all the space there is."""
    ballast = directory / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(65_536))
        except OSError:
            pass
    return ballast


def _wait(condition: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


@pytest.mark.timeout(300)
def test_a_full_disk_refuses_and_resumes_when_there_is_space_again(
    open_directory: Path, tmp_path: Path, rng: random.Random
) -> None:
    options = {"shared_buffers": "32MB", "max_wal_size": "32MB", "min_wal_size": "32MB"}
    with (
        _small_disk(open_directory / "disk") as disk,
        EmbeddedPostgres(disk, options=options) as postgres,
        ServerProcess(postgres.url, tmp_path, checkpoint_interval_seconds=0.2, codec="none") as server,
    ):
        set_up(server.stubs())
        with Load(server.address, tmp_path / "journals", rng) as load:
            time.sleep(1)
            ballast = _fill(disk)
            _wait(
                lambda: load.last_answer() < time.monotonic() - 3, "it does not notice that the disk is full"
            )
            assert server.process.poll() is None, server.last_words()
            ballast.unlink()
            # Postgres ends itself when it cannot write its log; whoever runs it starts it again.
            postgres.start()
            freed = time.monotonic()
            _wait(lambda: load.last_answer() > freed, "no answer since there is space again")
            load.settle()
        server.wait_until_serving()
        figures = load.verdict(server.stubs())
    assert figures["FAILURE"] > 0
    print(f"a full disk: {figures}; 0 lost, 0 doubled")  # noqa: T201
