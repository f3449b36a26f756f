"""Kill anything at any moment under load: what was acknowledged counts once, and nothing else does."""

import math
import random
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import psutil
import pytest

from ammeter.store.embedded import EmbeddedPostgres
from tests.crash.load import Load, set_up
from tests.crash.results import publish, time_is_up
from tests.serving import ServerProcess

KILLS = 20
POSTGRES_KILLS = 5


def _kill_under_load(
    server: ServerProcess, directory: Path, rng: random.Random, most: int
) -> tuple[int, dict[str, int]]:
    """Returns how many kills there were, fewer than `most` if time was up, and the figures."""
    end = time_is_up()
    kills = 0
    set_up(server.stubs())
    with Load(server.address, directory / "journals", rng) as load:
        while kills < most and time.monotonic() < end:
            time.sleep(rng.random() * 0.6)
            server.kill()
            server.start()
            kills += 1
        _wait_for_answers(load)
        load.settle()
    figures = load.verdict(server.stubs())
    assert figures["FAILURE"] >= kills
    return kills, figures


def _wait_for_answers(load: Load) -> None:
    started = time.monotonic()
    while load.last_answer() < started + 0.2:
        assert time.monotonic() < started + 60, "no answer since the last kill"
        time.sleep(0.02)


@pytest.mark.timeout(300)
def test_twenty_kills_of_the_server_lose_nothing_and_double_nothing(
    server: ServerProcess, tmp_path: Path, rng: random.Random
) -> None:
    kills, figures = _kill_under_load(server, tmp_path, rng, KILLS)
    publish("server-kills", f"{kills} kills of the server: {figures}; 0 lost, 0 doubled")


@pytest.mark.long
def test_a_thousand_kills_of_the_server_lose_nothing_and_double_nothing(
    server: ServerProcess, tmp_path: Path, rng: random.Random
) -> None:
    kills, figures = _kill_under_load(server, tmp_path, rng, 1000)
    publish("server-kills", f"{kills} kills of the server: {figures}; 0 lost, 0 doubled")


@pytest.fixture
def on_mortal_postgres(mortal_postgres: EmbeddedPostgres, tmp_path: Path) -> Iterator[ServerProcess]:
    with ServerProcess(mortal_postgres.url, tmp_path, checkpoint_interval_seconds=0.5) as process:
        yield process


def _kill_postgres_under_load(
    server: ServerProcess, postgres: EmbeddedPostgres, directory: Path, rng: random.Random, most: int
) -> None:
    end = time_is_up()
    after_start: list[float] = []
    after_kill: list[float] = []
    set_up(server.stubs())
    with Load(server.address, directory / "journals", rng) as load:
        while len(after_kill) < most and time.monotonic() < end:
            time.sleep(0.3 + rng.random())
            assert postgres.pid is not None
            killed = time.monotonic()
            psutil.Process(postgres.pid).kill()
            time.sleep(rng.choice((0, 2 * rng.random())))
            started = time.monotonic()
            postgres.start()
            server.wait_until_serving()
            _wait_for_answers(load)
            again = load.end_of_silence(killed)
            after_start.append(again - started)
            after_kill.append(again - killed)
        load.settle()
    figures = load.verdict(server.stubs())
    publish(
        "postgres-kills",
        f"{len(after_kill)} kills of Postgres: {figures}; 0 lost, 0 doubled\n"
        f"acknowledging again after the start of Postgres: {_spread(after_start)}\n"
        f"acknowledging again after the kill, which is up to 2 s earlier: {_spread(after_kill)}",
    )


def _spread(seconds: list[float]) -> str:
    ordered = sorted(seconds)
    p99 = ordered[math.ceil(0.99 * len(ordered)) - 1]
    return f"median {median(ordered):.2f} s, p99 {p99:.2f} s, greatest {ordered[-1]:.2f} s"


@pytest.mark.timeout(300)
def test_five_kills_of_postgres_lose_nothing_and_double_nothing(
    on_mortal_postgres: ServerProcess, mortal_postgres: EmbeddedPostgres, tmp_path: Path, rng: random.Random
) -> None:
    _kill_postgres_under_load(on_mortal_postgres, mortal_postgres, tmp_path, rng, POSTGRES_KILLS)


@pytest.mark.long
def test_two_hundred_kills_of_postgres_lose_nothing_and_double_nothing(
    on_mortal_postgres: ServerProcess, mortal_postgres: EmbeddedPostgres, tmp_path: Path, rng: random.Random
) -> None:
    _kill_postgres_under_load(on_mortal_postgres, mortal_postgres, tmp_path, rng, 200)
