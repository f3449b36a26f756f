"""Old identities leave memory for files: with them, without them, or damaged, each event counts once."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from ammeter.store import segments
from ammeter.store.db import Database
from ammeter.usecases.engine import Engine
from ammeter.v1 import usage_pb2
from tests.crash.load import set_up
from tests.serving import ServerProcess

_DAY_US = 86_400_000_000
_EVENTS = 12_000
_PER_REQUEST = 2000
_DAYS_AGO = 10


@pytest.fixture
def server(new_database: Callable[[], str], tmp_path: Path) -> Iterator[ServerProcess]:
    """A server that starts on events of ten days ago."""
    url = new_database()
    one = ServerProcess(url, tmp_path)
    try:
        one.start()
        set_up(one.stubs())
        one.stop()
        _record_long_ago(url)
        one.start()
        yield one
    finally:
        one.close()


def _request(first: int, value: str = "1", count: int = _PER_REQUEST) -> usage_pb2.RecordUsageRequest:
    request = usage_pb2.RecordUsageRequest()
    for number in range(first, first + count):
        event = request.events.add(id=f"old-{number}", source="s", type="used", subject="alice")
        event.properties["amount"] = value
        event.properties["model"] = "m"
    return request


def _record_long_ago(url: str) -> None:
    """Append events as a server of ten days ago did."""
    db = Database(url)
    with db.engine() as conn:
        (state,) = segments.tenant_states(conn)
        engine = Engine(
            hash_key=segments.hash_key(conn),
            horizon_past_seconds=35 * 86_400,
            horizon_future_seconds=300,
            max_pending_bytes=1 << 28,
        )
    tenant = state.tenant_id
    engine.open_tenant(tenant, state.head, state.head_digest)
    now_us = time.time_ns() // 1000 - _DAYS_AGO * _DAY_US
    raw = db.raw()
    epoch = segments.current_epoch(raw)
    for first in range(0, _EVENTS, _PER_REQUEST):
        engine.admit(tenant, _request(first).SerializeToString(), now_us)
        group = engine.seal(now_us)
        assert group is not None
        assert segments.append(raw, epoch, group.segments)
        engine.fold(group)
    raw.close()
    db.close()


def _await_moved_out(server: ServerProcess, times: int) -> None:
    deadline = time.monotonic() + 60
    while server.log.read_text().count("old identities left memory") < times:
        assert time.monotonic() < deadline, server.last_words()
        time.sleep(0.05)


def _expect_all_known(server: ServerProcess) -> None:
    usage = server.stubs().usage
    for first in range(0, _EVENTS, _PER_REQUEST):
        answer = usage.RecordUsage(_request(first))
        assert (answer.accepted_count, answer.duplicate_count) == (0, _PER_REQUEST)
    answer = usage.RecordUsage(_request(0, value="2", count=3))
    (conflict, *_) = answer.results
    assert answer.conflict_count == 3
    stored = usage.ListEvents(usage_pb2.ListEventsRequest(id="old-0")).events
    assert conflict.stored_digest == stored[0].content_digest


def _runs(server_log: Path) -> list[Path]:
    return sorted((server_log.parent / "identities").glob("*/*.run"))


def test_duplicates_of_the_oldest_are_found_with_files_without_and_with_damaged_ones(
    server: ServerProcess,
) -> None:
    _await_moved_out(server, 1)
    _expect_all_known(server)
    assert _runs(server.log)

    server.stop()
    server.start()
    last = next(line for line in reversed(server.log.read_text().splitlines()) if '"recovered"' in line)
    assert json.loads(last)["events"] == 0
    _expect_all_known(server)

    server.kill()
    for run in _runs(server.log):
        run.unlink()
    server.start()
    _await_moved_out(server, 2)
    _expect_all_known(server)

    server.kill()
    for run in _runs(server.log):
        whole = bytearray(run.read_bytes())
        whole[-1] ^= 1
        run.write_bytes(whole)
    server.start()
    _await_moved_out(server, 3)
    _expect_all_known(server)


def test_a_file_that_rots_under_a_running_server_is_replaced_before_anybody_gets_an_answer(
    server: ServerProcess,
) -> None:
    _await_moved_out(server, 1)
    (run,) = _runs(server.log)
    with run.open("r+b") as file:
        for block in range(_EVENTS * 24 // 6144):
            file.seek(block * 6144)
            file.write(b"rot")
    with pytest.raises(grpc.RpcError) as refused:
        server.stubs().usage.RecordUsage(_request(0))
    assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
    _await_moved_out(server, 2)
    server.wait_until_serving()
    _expect_all_known(server)


def test_new_events_do_not_wait_for_files_and_count_beside_them(server: ServerProcess) -> None:
    _await_moved_out(server, 1)
    usage = server.stubs().usage
    answer = usage.RecordUsage(_request(_EVENTS))
    assert answer.accepted_count == _PER_REQUEST
    mixed = _request(_EVENTS - 10, count=20)
    answer = usage.RecordUsage(mixed)
    assert answer.duplicate_count == 20


def test_a_database_without_a_directory_keeps_all_in_memory(
    new_database: Callable[[], str], tmp_path: Path
) -> None:
    (tmp_path / "identities").write_text("a file where the directory should be")
    one = ServerProcess(new_database(), tmp_path)
    try:
        one.start()
        set_up(one.stubs())
        assert one.stubs().usage.RecordUsage(_request(0)).accepted_count == _PER_REQUEST
        one.kill()
        one.start()
        assert one.stubs().usage.RecordUsage(_request(0)).duplicate_count == _PER_REQUEST
        assert "identities stay in memory" in one.log.read_text()
    finally:
        one.close()
