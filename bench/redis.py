"""Deduplication by Redis: a key per event, set if it is new, with an expiry, many in flight."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

_PIPELINE = 1000
_DEDUP_SECONDS = 35 * 86_400


def program(packages: Path) -> str | None:
    """Find redis-server: the system's, or the one of the wheel that was installed."""
    found = shutil.which("redis-server")
    if found is not None:
        return found
    ours = sorted(path for path in packages.rglob("redis-server*") if path.is_file())
    for path in ours:
        path.chmod(0o755)  # pip leaves a package's data unexecutable
        return str(path)
    return None


class Redis:
    """A running server without persistence, over a Unix socket."""

    def __init__(self, process: psutil.Process, conn: socket.socket) -> None:
        """Talk to it over a connection."""
        self._process = process
        self._conn = conn
        self._reader = conn.makefile("rb")

    def version(self) -> str:
        """Say which one it is."""
        self._conn.sendall(b"INFO server\r\n")
        length = int(self._reader.readline()[1:])
        lines = self._reader.read(length + 2).decode().splitlines()
        return next(line.partition(":")[2] for line in lines if line.startswith("redis_version:"))

    def set_all(self, keys: Sequence[str]) -> dict[str, float]:
        """Set every key, each new; returns rates, and memory per key."""
        commands = [_command(key.encode()) for key in keys]
        assert self._call(b"FLUSHALL\r\n", 1) == [b"+OK\r\n"]
        before, used = self._process.memory_info().rss, sum(self._process.cpu_times()[:2])
        started = time.perf_counter()
        for at in range(0, len(commands), _PIPELINE):
            several = commands[at : at + _PIPELINE]
            assert set(self._call(b"".join(several), len(several))) == {b"+OK\r\n"}
        seconds = time.perf_counter() - started
        used = sum(self._process.cpu_times()[:2]) - used
        grown = self._process.memory_info().rss - before
        # What is sent again is found: no rate without the right answer.
        again = commands[:_PIPELINE]
        assert set(self._call(b"".join(again), len(again))) == {b"$-1\r\n"}
        return {
            "keys": len(keys),
            "keys_per_second": len(keys) / seconds,
            "keys_per_cpu_second": len(keys) / used,
            "resident_bytes_per_key": grown / len(keys),
        }

    def _call(self, commands: bytes, answers: int) -> list[bytes]:
        self._conn.sendall(commands)
        return [self._reader.readline() for _ in range(answers)]


@contextmanager
def redis(path: str, directory: Path) -> Iterator[Redis]:
    """Run the program."""
    place = directory / "redis.sock"
    options = ("--port", "0", "--unixsocket", str(place), "--save", "", "--appendonly", "no")
    server = subprocess.Popen([path, *options], stdout=subprocess.DEVNULL, cwd=directory)  # noqa: S603 - found above
    try:
        while not place.exists():
            assert server.poll() is None, "redis-server ended at once"
            time.sleep(0.02)
        with socket.socket(socket.AF_UNIX) as conn:
            conn.connect(str(place))
            yield Redis(psutil.Process(server.pid), conn)
    finally:
        server.terminate()
        server.wait()


def _command(key: bytes) -> bytes:
    seconds = str(_DEDUP_SECONDS).encode()
    words = (b"SET", key, b"1", b"NX", b"EX", seconds)
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)
