"""A meter that is being built, or was just built, when its server dies counts every event once."""

import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ammeter.v1 import meter_pb2, usage_pb2
from tests.crash.journal import Sent
from tests.crash.load import METER, Load, all_windows, is_active, set_up, to_message
from tests.serving import ServerProcess, Stubs

_NEVER = 3600


def _create(stubs: Stubs, meter_key: str) -> None:
    meter = meter_pb2.Meter(
        meter_key=meter_key,
        event_type="used",
        aggregation=meter_pb2.AGGREGATION_SUM,
        value_property="amount",
        dimensions=["model"],
    )
    stubs.meters.CreateMeter(meter_pb2.CreateMeterRequest(meter=meter))


def _wait(stubs: Stubs, meter_keys: list[str]) -> None:
    deadline = time.monotonic() + 30
    while not all(is_active(stubs, key) for key in meter_keys):
        assert time.monotonic() < deadline, "the build does not end"
        time.sleep(0.01)


def _record(stubs: Stubs, count: int, prefix: str) -> None:
    minute = int(time.time()) // 60 - 2
    events = [to_message("s", Sent(f"{prefix}{n}", "alice", minute, n)) for n in range(count)]
    assert stubs.usage.RecordUsage(usage_pb2.RecordUsageRequest(events=events)).accepted_count == count


@pytest.fixture
def without_checkpoints(new_database: Callable[[], str], tmp_path: Path) -> Iterator[ServerProcess]:
    with ServerProcess(new_database(), tmp_path, checkpoint_interval_seconds=_NEVER) as process:
        yield process


@pytest.fixture
def with_many_checkpoints(new_database: Callable[[], str], tmp_path: Path) -> Iterator[ServerProcess]:
    with ServerProcess(new_database(), tmp_path, checkpoint_interval_seconds=0.01) as process:
        yield process


def test_a_meter_built_before_a_kill_and_after_the_last_checkpoint_counts_once(
    without_checkpoints: ServerProcess,
) -> None:
    server = without_checkpoints
    stubs = server.stubs()
    set_up(stubs)
    _record(stubs, 100, "before")
    _create(stubs, "second")
    _wait(stubs, ["second"])
    _record(stubs, 50, "after")
    expected = all_windows(stubs)
    assert sum(window.events for window in expected) == 150
    assert all_windows(stubs, "second") == expected
    for _ in range(2):
        server.restart()
        stubs = server.stubs()
        assert all_windows(stubs) == expected
        assert all_windows(stubs, "second") == expected


def test_meters_created_while_checkpoints_are_written_all_count_the_same(
    with_many_checkpoints: ServerProcess, tmp_path: Path, rng: random.Random
) -> None:
    stubs = with_many_checkpoints.stubs()
    set_up(stubs)
    keys = [f"later-{number}" for number in range(12)]
    with Load(with_many_checkpoints.address, tmp_path / "journals", rng, streams=1, unary=2) as load:
        time.sleep(1)
        for key in keys:
            _create(stubs, key)
        _wait(stubs, keys)
        time.sleep(0.3)
        load.settle()
    load.verdict(stubs)
    expected = all_windows(stubs, METER)
    for key in keys:
        assert all_windows(stubs, key) == expected, key


@pytest.mark.timeout(180)
def test_kills_while_meters_are_being_built_change_no_number(
    server: ServerProcess, tmp_path: Path, rng: random.Random
) -> None:
    stubs = server.stubs()
    set_up(stubs)
    keys = []
    with Load(server.address, tmp_path / "journals", rng, streams=1, unary=2) as load:
        for round_number in range(4):
            time.sleep(0.2)
            for number in range(3):
                keys.append(f"meter-{round_number}-{number}")
                _create(stubs, keys[-1])
            time.sleep(rng.random() * 0.05)
            server.restart()
            stubs = server.stubs()
        _wait(stubs, keys)
        load.settle()
    load.verdict(stubs)
    expected = all_windows(stubs, METER)
    for key in keys:
        assert all_windows(stubs, key) == expected, key
