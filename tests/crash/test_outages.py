"""Postgres that does not answer is back-pressure: nothing is acknowledged, and nothing is lost."""

import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import grpc
import psutil
import psycopg
import pytest

from ammeter.store.embedded import EmbeddedPostgres
from ammeter.v1 import entitlement_pb2, usage_pb2
from tests.crash.journal import Sent
from tests.crash.load import Load, all_windows, set_up, to_message
from tests.crash.results import publish
from tests.crash.test_succession import reasons
from tests.serving import ServerProcess

FROZEN_SECONDS = 5


@pytest.fixture
def on_mortal_postgres(
    mortal_postgres: EmbeddedPostgres, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[ServerProcess]:
    """On a database of one test."""
    name = f"outage_{abs(hash(request.node.name))}"
    with psycopg.connect(mortal_postgres.url, autocommit=True) as conn:
        conn.execute(f"CREATE DATABASE {name}".encode())
    with ServerProcess(mortal_postgres.url.replace("/ammeter?", f"/{name}?"), tmp_path) as process:
        yield process


@contextmanager
def frozen(postgres: EmbeddedPostgres) -> Iterator[None]:
    """Stop the postmaster first, so that it makes no children meanwhile, then all of them."""
    assert postgres.pid is not None
    postmaster = psutil.Process(postgres.pid)
    os.kill(postmaster.pid, signal.SIGSTOP)
    pids = [postmaster.pid, *(child.pid for child in postmaster.children(recursive=True))]
    try:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        yield
    finally:
        for pid in reversed(pids):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def _ask_until_refused(server: ServerProcess) -> float:
    """Send single events until one is refused; returns the seconds it took to be told."""
    stubs = server.stubs()
    minute = int(time.time()) // 60 - 1
    started = time.monotonic()
    event = to_message("probe", Sent(f"probe-{started}", "probe", minute, 1))
    with pytest.raises(grpc.RpcError) as refused:
        stubs.usage.RecordUsage(usage_pb2.RecordUsageRequest(events=[event]), timeout=30)
    assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
    reason, delay = reasons(refused.value)
    assert reason == "DATABASE_UNAVAILABLE"
    assert 0 < delay <= 5
    return time.monotonic() - started


@pytest.mark.timeout(180)
def test_a_frozen_postgres_is_unavailable_within_seconds_and_costs_nothing(
    on_mortal_postgres: ServerProcess, mortal_postgres: EmbeddedPostgres, tmp_path: Path, rng: random.Random
) -> None:
    _freeze_under_load(on_mortal_postgres, mortal_postgres, tmp_path, rng, FROZEN_SECONDS)


@pytest.mark.long
def test_a_minute_without_postgres_costs_nothing_and_no_memory(
    on_mortal_postgres: ServerProcess, mortal_postgres: EmbeddedPostgres, tmp_path: Path, rng: random.Random
) -> None:
    grown = _freeze_under_load(on_mortal_postgres, mortal_postgres, tmp_path, rng, 60)
    publish("a-minute-away", f"60 s without Postgres: the server grew by {grown / 2**20:.1f} MiB")
    assert grown < 50 * 2**20


def _freeze_under_load(
    server: ServerProcess, mortal_postgres: EmbeddedPostgres, tmp_path: Path, rng: random.Random, seconds: int
) -> int:
    """Returns by how many bytes the server's memory grew meanwhile."""
    process = psutil.Process(server.process.pid)
    set_up(server.stubs())
    with Load(server.address, tmp_path / "journals", rng) as load:
        time.sleep(1)
        before = process.memory_info().rss
        with frozen(mortal_postgres):
            time.sleep(0.3)  # for what was on its way back
            begin = time.monotonic()
            assert _ask_until_refused(server) < 3
            assert _ask_until_refused(server) < 1
            _check_from_memory(server)
            time.sleep(max(0.0, begin + seconds - time.monotonic()))
            assert load.last_answer() < begin, "acknowledged while the database was frozen"
            grown: int = process.memory_info().rss - before
        thawed = time.monotonic()
        while load.last_answer() < thawed:
            assert time.monotonic() < thawed + 30, "no answer since Postgres is back"
            time.sleep(0.02)
        load.settle()
    # The probes are in no journal: they may have become durable all the same.
    load.verdict(server.stubs(), ignore="probe")
    assert server.process.poll() is None
    return grown


def _check_from_memory(server: ServerProcess) -> None:
    """It is answered all the same; on a busy machine the server may say that it stood still, and why not."""
    check = entitlement_pb2.EntitlementCheck(customer_key="nobody", feature_key="nothing")
    request = entitlement_pb2.CheckEntitlementRequest(check=check)
    try:
        assert not server.stubs().entitlements.CheckEntitlement(request, timeout=5).access.access
    except grpc.RpcError as error:
        assert "stood still" in (error.details() or ""), error  # noqa: PT017 - only this one is an answer


def test_a_server_killed_right_after_its_answers_knows_them_all(
    server: ServerProcess, rng: random.Random
) -> None:
    stubs = server.stubs()
    set_up(stubs)
    minute = int(time.time()) // 60 - 1
    count = 0
    for _ in range(3):
        for _ in range(rng.randrange(1, 20)):
            event = to_message("s", Sent(f"{count}", "alice", minute, 1))
            answer = stubs.usage.RecordUsage(usage_pb2.RecordUsageRequest(events=[event]))
            assert answer.accepted_count == 1
            count += 1
        server.restart()
        stubs = server.stubs()
        assert sum(window.events for window in all_windows(stubs)) == count
