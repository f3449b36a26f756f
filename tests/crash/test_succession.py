"""One writer at a time: another one takes over, and the one before acknowledges nothing any more."""

import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import psycopg
import pytest
from google.rpc import error_details_pb2, status_pb2

from ammeter.v1 import usage_pb2
from tests.crash.journal import Sent
from tests.crash.load import Load, all_windows, set_up, to_message
from tests.serving import ServerProcess, Stubs

Pair = tuple[ServerProcess, ServerProcess]


@pytest.fixture
def url(new_database: Callable[[], str]) -> str:
    return new_database()


@pytest.fixture
def pair(url: str, tmp_path: Path) -> Iterator[Pair]:
    """A writer and one that stands by, on the same database."""
    first, second = (ServerProcess(url, tmp_path, checkpoint_interval_seconds=0.5) for _ in range(2))
    try:
        first.start()
        second.launch()
        _wait_for_log(second, "standing by")
        yield first, second
    finally:
        for one in (first, second):
            one.close()


def _wait_for_log(server: ServerProcess, words: str, times: int = 1) -> None:
    deadline = time.monotonic() + 30
    while server.log.read_text().count(words) < times:
        assert time.monotonic() < deadline, server.last_words()
        time.sleep(0.02)


def _request(*ids: str) -> usage_pb2.RecordUsageRequest:
    minute = int(time.time()) // 60 - 1
    events = [to_message("s", Sent(event_id, "alice", minute, 1)) for event_id in ids]
    return usage_pb2.RecordUsageRequest(events=events)


def _counted(stubs: Stubs) -> int:
    return sum(window.events for window in all_windows(stubs))


def reasons(error: grpc.RpcError) -> tuple[str, float]:
    """The ErrorInfo's reason and the RetryInfo's delay in seconds."""
    (details,) = [pair.value for pair in error.trailing_metadata() if pair.key == "grpc-status-details-bin"]
    assert isinstance(details, bytes)
    status = status_pb2.Status.FromString(details)
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    for detail in status.details:
        for message in (info, retry):
            detail.Unpack(message)
    return info.reason, retry.retry_delay.ToMilliseconds() / 1000


def test_one_that_stands_by_says_so_and_takes_over_when_the_writer_dies(pair: Pair) -> None:
    first, second = pair
    set_up(first.stubs())
    assert first.stubs().usage.RecordUsage(_request("a", "b")).accepted_count == 2
    waiting = second.stubs()
    with pytest.raises(grpc.RpcError) as refused:
        waiting.usage.RecordUsage(_request("c"))
    assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
    assert reasons(refused.value) == ("NOT_SERVING", 0.5)
    first.kill()
    second.wait_until_serving()
    answer = waiting.usage.RecordUsage(_request("a", "b", "c"))
    assert (answer.duplicate_count, answer.accepted_count) == (2, 1)
    assert _counted(waiting) == 3


def test_a_writer_that_slept_through_its_replacement_acknowledges_and_tells_nothing(
    pair: Pair, url: str
) -> None:
    first, second = pair
    stubs = first.stubs()
    set_up(stubs)
    assert stubs.usage.RecordUsage(_request("before")).accepted_count == 1
    first.signal(signal.SIGSTOP)
    # Every thread of it stands still before anything is sent.
    time.sleep(0.3)
    # It has these in its socket, and will find them there when it wakes.
    asleep = [stubs.usage.RecordUsage.future(_request(f"asleep-{number}"), timeout=30) for number in range(5)]
    stale = stubs.usage.ListEvents.future(usage_pb2.ListEventsRequest(), timeout=30)
    time.sleep(1.2)
    _cut_the_writers_connection(url)
    second.wait_until_serving()
    there = second.stubs()
    assert there.usage.RecordUsage(_request("there")).accepted_count == 1
    first.signal(signal.SIGCONT)
    for call in asleep:
        assert call.exception() is not None, "acknowledged by a writer that was replaced"
        assert call.code() == grpc.StatusCode.UNAVAILABLE
    # Nor does it tell from memory what is no longer so.
    assert stale.exception() is not None
    assert stale.code() == grpc.StatusCode.UNAVAILABLE
    with pytest.raises(grpc.RpcError) as refused:
        stubs.usage.RecordUsage(_request("late"))
    assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
    _wait_for_log(first, "standing by")
    assert _counted(there) == 2
    everything = ("before", "there", "late", *(f"asleep-{number}" for number in range(5)))
    answer = there.usage.RecordUsage(_request(*everything))
    assert (answer.duplicate_count, answer.accepted_count) == (2, 6)
    # And back again: the former writer recovers what the other one wrote.
    second.kill()
    first.wait_until_serving()
    assert stubs.usage.RecordUsage(_request(*everything)).duplicate_count == 8
    assert _counted(stubs) == 8


def _cut_the_writers_connection(url: str) -> None:
    """What a network does to a machine that has gone: the database notices that the connection is dead."""
    with psycopg.connect(url, autocommit=True) as conn:
        cut = conn.execute(
            "SELECT pg_terminate_backend(a.pid) FROM pg_stat_activity a JOIN pg_locks l ON l.pid = a.pid"
            " WHERE l.locktype = 'advisory' AND l.mode = 'ExclusiveLock' AND l.granted"
            " AND a.datname = current_database()"
        ).fetchall()
    assert cut == [(True,)]


@pytest.mark.timeout(180)
def test_handing_the_writers_place_to_and_fro_under_load_loses_nothing(
    pair: Pair, url: str, tmp_path: Path, rng: random.Random
) -> None:
    """The clients' address is always that of the one; the other kills, so to say, by taking its place."""
    first, second = pair
    set_up(first.stubs())
    with Load(first.address, tmp_path / "journals", rng, streams=2, unary=2) as load:
        for number in range(2):
            time.sleep(0.3)
            first.signal(signal.SIGSTOP)
            _cut_the_writers_connection(url)
            second.wait_until_serving()
            first.signal(signal.SIGCONT)
            time.sleep(0.5 * rng.random())
            second.kill()
            first.wait_until_serving()
            second.launch()
            _wait_for_log(second, "standing by", number + 2)
        time.sleep(0.3)
        load.settle()
    figures = load.verdict(first.stubs())
    assert figures["FAILURE"] > 0


@pytest.mark.timeout(120)
def test_sigterm_under_load_ends_in_order_and_loses_no_answer(
    url: str, tmp_path: Path, rng: random.Random
) -> None:
    with ServerProcess(url, tmp_path) as server:
        set_up(server.stubs())
        with Load(server.address, tmp_path / "journals", rng) as load:
            for _ in range(3):
                time.sleep(0.5)
                assert server.stop() == 0, server.last_words()
                server.start()
            load.settle()
        load.verdict(server.stubs())
