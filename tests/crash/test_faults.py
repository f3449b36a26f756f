"""Whatever goes wrong at any point of commits, checkpoints, packing and builds: 0 lost, 0 doubled."""

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import grpc
import psycopg
import pytest

from ammeter import faults
from ammeter.v1 import meter_pb2, usage_pb2
from tests.crash.journal import Sent
from tests.crash.load import METER, Load, all_events, all_windows, is_active, set_up, to_message
from tests.crash.results import publish, time_is_up
from tests.rpc.shop import PEPPER, key_with, new_tenant, stubs_with
from tests.serving import ServerProcess, Stubs

SEEDS = 100
# Reached only when something else went wrong before.
_AFTER = {"lookup.before": "insert.after=lose@3", "lookup.after": "insert.after=lose@3"}
_RARE = ("merge.", "pack.", "build.", "activate.", "lookup.")
# Reached only by reservations: test_reservation_kills.py.
_POINTS = {point: lost for point, lost in faults.POINTS.items() if not point.startswith("decide.")}


@pytest.fixture
def faulty(new_database: Callable[[], str], tmp_path: Path) -> Iterator[ServerProcess]:
    server = ServerProcess(
        new_database(), tmp_path, checkpoint_interval_seconds=0.05, test_faults=True, key_pepper=PEPPER
    )
    try:
        yield server
    finally:
        server.close()


def _start(server: ServerProcess, plan: str | None) -> Stubs:
    server.change(faults=plan)
    server.start()
    return server.stubs()


def _record(stubs: Stubs, *ids: str) -> usage_pb2.RecordUsageResponse:
    minute = int(time.time()) // 60 - 1
    events = [to_message("s", Sent(event_id, "alice", minute, 1)) for event_id in ids]
    return stubs.usage.RecordUsage(usage_pb2.RecordUsageRequest(events=events))


def _counted(stubs: Stubs) -> int:
    return sum(window.events for window in all_windows(stubs))


def test_an_acknowledgement_waits_for_the_commit(faulty: ServerProcess) -> None:
    stubs = _start(faulty, "append.before=delay:300,append.after=delay:300")
    set_up(stubs)
    started = time.monotonic()
    assert _record(stubs, "a").accepted_count == 1
    assert time.monotonic() - started >= 0.6


def test_a_duplicate_waits_for_the_commit_of_its_original(faulty: ServerProcess) -> None:
    stubs = _start(faulty, "append.before=delay:500")
    set_up(stubs)
    minute = int(time.time()) // 60 - 1
    request = usage_pb2.RecordUsageRequest(events=[to_message("s", Sent("a", "alice", minute, 1))])
    original = stubs.usage.RecordUsage.future(request)
    time.sleep(0.2)
    answer = stubs.usage.RecordUsage(request)
    with psycopg.connect(faulty.database_url) as conn:
        assert conn.execute("SELECT count(*) FROM segments").fetchone() == (1,)
    assert (original.result().accepted_count, answer.duplicate_count) == (1, 1)


@pytest.mark.parametrize("point", ["append.before", "insert.before", "insert.after", "append.after"])
def test_a_commit_that_fails_once_is_made_again(faulty: ServerProcess, point: str) -> None:
    """And one that was made, but was not heard of, is not."""
    stubs = _start(faulty, f"{point}=lose@1")
    set_up(stubs)
    assert _record(stubs, "a").accepted_count == 1
    assert _record(stubs, "a", "b").accepted_count == 1
    assert sorted(event.id for event in all_events(stubs)) == ["a", "b"]
    assert _counted(stubs) == 2
    faulty.kill()
    stubs = _start(faulty, None)
    assert _counted(stubs) == 2


@pytest.mark.parametrize("point", ["checkpoint.begun", "checkpoint.inserted", "checkpoint.after"])
def test_what_no_checkpoint_holds_yet_stays_in_memory(faulty: ServerProcess, point: str) -> None:
    stubs = _start(faulty, f"{point}=lose")
    set_up(stubs)
    for number in range(5):
        assert _record(stubs, f"e{number}").accepted_count == 1
        time.sleep(0.1)
        assert _counted(stubs) == number + 1
    faulty.kill()
    assert _counted(_start(faulty, None)) == 5


def _create_meter(stubs: Stubs, key: str) -> None:
    """Or not: the server may die of it."""
    meter = meter_pb2.Meter(
        meter_key=key,
        event_type="used",
        aggregation=meter_pb2.AGGREGATION_SUM,
        value_property="amount",
        dimensions=["model"],
    )
    with suppress(grpc.RpcError):
        stubs.meters.CreateMeter(meter_pb2.CreateMeterRequest(meter=meter), timeout=5)


def _deaths(rng: random.Random) -> list[str]:
    """A plan for each point; some come soon or never."""
    plans = []
    for point in _POINTS:
        when = 1 if point.startswith(_RARE) else rng.randrange(1, 6)
        before = f"{_AFTER[point]}," if point in _AFTER else ""
        plans.append(f"{before}{point}=die@{when}")
    rng.shuffle(plans)
    return plans


def _mishaps(rng: random.Random) -> str:
    """One plan that loses the database, or makes it wait, at every point once."""
    plans = []
    for point, lost in _POINTS.items():
        plans.append(f"{point}=delay:{rng.randrange(5, 300)}@{rng.randrange(1, 3)}")
        if lost is not None:
            plans.append(f"{point}=lose@{rng.randrange(1, 4)}")
    return ",".join(plans)


def _go_wrong_at_every_point(url: str, directory: Path, rng: random.Random) -> dict[str, int]:
    """Two tenants send, so groups have several segments; each life builds a meter and ends at a point."""
    settings = {
        "checkpoint_interval_seconds": 0.05,
        "pack_interval_seconds": 0.1,
        "test_faults": True,
        "key_pepper": PEPPER,
    }
    keys: list[str] = []
    with ServerProcess(url, directory, **settings) as server:
        ours, theirs, secret = _two_tenants(server, url)
        loads = [
            Load(server.address, directory / name, rng, streams=1, unary=1, secret=secret)
            for name, secret in (("ours", ""), ("theirs", secret))
        ]
        with loads[0], loads[1]:
            for plan in [*_deaths(rng), _mishaps(rng)]:
                server.change(faults=plan)
                server.kill()
                _serve_or_end(server)
                keys.append(f"meter-{len(keys)}")
                _create_meter(ours, keys[-1])
                _let_happen(server, plan)
            server.change(faults=None)
            server.restart()
            for load in loads:
                load.settle()
        figures: Counter[str] = Counter()
        for load, stubs in zip(loads, (ours, theirs), strict=True):
            figures.update(load.verdict(stubs))
        _check_meters(ours, keys)
    return figures


def _two_tenants(server: ServerProcess, url: str) -> tuple[Stubs, Stubs, str]:
    ours = server.stubs()
    _, admin = new_tenant(url, "theirs")
    _, secret = key_with(stubs_with(server, admin), "ingest", "read", "admin")
    theirs = stubs_with(server, secret)
    for stubs in (ours, theirs):
        set_up(stubs)
    return ours, theirs, secret


def _serve_or_end(server: ServerProcess) -> None:
    """Start it; the load may let the fault happen before anybody is told that it serves."""
    server.launch()
    with ServerProcess.open_channel(server.address) as channel:
        while server.process.poll() is None and not server.is_serving(channel):
            time.sleep(0.02)


def _let_happen(server: ServerProcess, plan: str) -> None:
    if "die" not in plan:
        time.sleep(3)
        return
    deadline = time.monotonic() + 30
    while server.process.poll() is None:
        assert time.monotonic() < deadline, f"{plan} has not happened: {server.last_words()}"
        time.sleep(0.02)
    assert server.process.returncode == faults.EXIT_CODE, server.last_words()


def _check_meters(stubs: Stubs, keys: list[str]) -> None:
    """Those whose creation was committed count what the first one counts."""
    expected = all_windows(stubs, METER)
    there = {meter.meter_key for meter in stubs.meters.ListMeters(meter_pb2.ListMetersRequest()).meters}
    for key in there.intersection(keys):
        deadline = time.monotonic() + 30
        while not is_active(stubs, key):
            assert time.monotonic() < deadline, f"the build of {key} does not end"
            time.sleep(0.05)
        assert all_windows(stubs, key) == expected, key


@pytest.mark.timeout(900)
def test_whatever_goes_wrong_at_any_point_nothing_is_lost_or_doubled(
    new_database: Callable[[], str], tmp_path: Path, rng: random.Random
) -> None:
    figures = _go_wrong_at_every_point(new_database(), tmp_path, rng)
    print(f"{len(_POINTS)} points: {dict(figures)}; 0 lost, 0 doubled")  # noqa: T201 - to publish


@pytest.mark.long
def test_whatever_goes_wrong_at_any_point_nothing_is_lost_or_doubled_with_a_hundred_seeds(
    new_database: Callable[[], str], tmp_path: Path, rng: random.Random
) -> None:
    end = time_is_up()
    total: Counter[str] = Counter()
    for seed in range(SEEDS):
        if time.monotonic() > end:
            break
        directory = tmp_path / str(seed)
        directory.mkdir()
        figures = _go_wrong_at_every_point(new_database(), directory, rng)
        total.update({"rounds": 1, **figures})
        what = f"{len(_POINTS)} points, each once a round: {dict(total)}; 0 lost, 0 doubled"
        publish("fault-points", what)
