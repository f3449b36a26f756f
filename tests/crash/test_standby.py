"""A process that stands by knows the chain, and is soon back in service when the writer is gone."""

import contextlib
import itertools
import random
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from ammeter.v1 import meter_pb2, usage_pb2
from tests.crash.journal import Sent
from tests.crash.load import Load, all_windows, is_active, set_up, to_message
from tests.serving import ServerProcess, Stubs

_BUFFER_BYTES = 65_536

Pair = tuple[ServerProcess, ServerProcess]


@pytest.fixture
def url(new_database: Callable[[], str]) -> str:
    return new_database()


@pytest.fixture
def pair(url: str, tmp_path: Path) -> Iterator[Pair]:
    """A writer that has not written a checkpoint for long, and one that has stood by from the beginning."""
    first, second = (ServerProcess(url, tmp_path, checkpoint_interval_seconds=2) for _ in range(2))
    try:
        first.start()
        second.launch()
        _wait_for_log(second, "identities are known")
        yield first, second
    finally:
        for one in (first, second):
            one.close()


def _wait_for_log(server: ServerProcess, words: str, times: int = 1) -> None:
    deadline = time.monotonic() + 30
    while server.log.read_text().count(words) < times:
        assert time.monotonic() < deadline, server.last_words()
        time.sleep(0.02)


def _cut_the_writers_connection(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted"
            " AND mode = 'ExclusiveLock'"
        )


class FloatingAddress:
    """One address for clients, wherever the writer is; a move cuts what was connected."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def move(self, target: str) -> None:
        self._target = target
        for one in self._open:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for one in self._open:
            one.close()
        self._open.clear()
        self._threads.clear()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join()
        self._listener.close()
        self.move("")

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                host, _, port = self._target.rpartition(":")
                try:
                    far = socket.create_connection((host, int(port)))
                except OSError:
                    near.close()
                    continue
                self._open += [near, far]
                for ends in ((near, far), (far, near)):
                    self._threads.append(threading.Thread(target=self._forward, args=ends, daemon=True))
                    self._threads[-1].start()

    @staticmethod
    def _forward(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(_BUFFER_BYTES):
                target.sendall(data)
            target.shutdown(socket.SHUT_RDWR)


def _record(stubs: Stubs, ids: range) -> usage_pb2.RecordUsageResponse:
    minute = int(time.time()) // 60 - 1
    events = [to_message("s", Sent(f"e{number}", f"user-{number % 7}", minute, number)) for number in ids]
    return stubs.usage.RecordUsage(usage_pb2.RecordUsageRequest(events=events))


def _counted(stubs: Stubs) -> int:
    return sum(window.events for window in all_windows(stubs))


def _create_meter(stubs: Stubs, key: str) -> None:
    meter = meter_pb2.Meter(meter_key=key, event_type="used", aggregation=meter_pb2.AGGREGATION_COUNT)
    stubs.meters.CreateMeter(meter_pb2.CreateMeterRequest(meter=meter))
    while not is_active(stubs, key):
        time.sleep(0.02)


def _count_of(stubs: Stubs, key: str) -> str:
    request = usage_pb2.QueryUsageRequest(meter_key=key)
    minute = int(time.time()) // 60
    request.from_time.FromSeconds((minute - 1000) * 60)
    request.to_time.FromSeconds((minute + 10) * 60)
    (row,) = stubs.usage.QueryUsage(request).rows
    return row.value


def test_what_happened_while_it_stood_by_is_right(pair: Pair) -> None:
    first, second = pair
    stubs = first.stubs()
    set_up(stubs)
    _record(stubs, range(500))
    _create_meter(stubs, "half-way")
    _record(stubs, range(500, 1000))
    _create_meter(stubs, "late")
    time.sleep(0.5)
    _record(stubs, range(1000, 1100))
    first.kill()
    killed = time.monotonic()
    second.wait_until_serving()
    seconds = time.monotonic() - killed
    print(f"in service {seconds:.2f} s after the writer's death")  # noqa: T201 - the figure to publish
    there = second.stubs()
    assert _record(there, range(1100)).duplicate_count == 1100
    assert _counted(there) == 1100
    for key in ("half-way", "late"):
        assert _count_of(there, key) == "1100"
    assert _record(there, range(1100, 1150)).accepted_count == 50
    for key in ("half-way", "late"):
        assert _count_of(there, key) == "1150"


@pytest.mark.timeout(300)
def test_writers_relieve_each_other_under_load(
    pair: Pair, url: str, tmp_path: Path, rng: random.Random
) -> None:
    """Killed, or stalled and cut off, by turns; clients follow whoever serves."""
    gaps: list[float] = []
    set_up(pair[0].stubs())
    writer, other = pair
    floating = FloatingAddress(writer.address)
    with contextlib.closing(floating), Load(floating.address, tmp_path / "journals", rng) as load:
        for round_ in itertools.count():
            time.sleep(0.5 + rng.random())
            if round_ == 4:
                break
            started = time.monotonic()
            known = writer.log.read_text().count("identities are known")
            if round_ % 2:
                # Awake, it would be the first to take its lock again.
                writer.signal(signal.SIGSTOP)
                _cut_the_writers_connection(url)
            else:
                writer.kill()
            other.wait_until_serving()
            gaps.append(time.monotonic() - started)
            if round_ % 2:
                writer.signal(signal.SIGCONT)
            else:
                writer.launch()
            _wait_for_log(writer, "identities are known", known + 1)
            writer, other = other, writer
            floating.move(writer.address)
        load.settle()
    figures = load.verdict(writer.stubs())
    print(f"4 changes of the writer: {figures}; longest gap {max(gaps):.2f} s; 0 lost, 0 doubled")  # noqa: T201
