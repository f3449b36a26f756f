"""Killed while it packs, at every step: every event counts once, is found once, and the chain verifies."""

import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ammeter import faults
from ammeter.store import packs
from ammeter.store.db import Database
from ammeter.usecases.verify import verify
from tests.crash.load import Load, set_up
from tests.serving import ServerProcess

POINTS = [point for point in faults.POINTS if point.startswith("pack.")]
_SECONDS = 60


@pytest.mark.timeout(300)
def test_a_server_that_dies_while_it_packs_loses_and_doubles_nothing(
    new_database: Callable[[], str], tmp_path: Path, rng: random.Random
) -> None:
    url = new_database()
    settings = {"checkpoint_interval_seconds": 0.05, "pack_interval_seconds": 0.05, "test_faults": True}
    with ServerProcess(url, tmp_path, **settings) as server:
        set_up(server.stubs())
        with Load(server.address, tmp_path / "journals", rng, streams=1, unary=1) as load:
            for point in rng.sample(POINTS, len(POINTS)):
                server.change(faults=f"{point}=die@{rng.randrange(1, 4)}")
                server.kill()
                server.launch()
                assert server.process.wait(_SECONDS) == faults.EXIT_CODE, server.last_words()
            server.change(faults=None)
            server.restart()
            load.settle()
        figures = load.verdict(server.stubs())
        db = Database(url)
        counted = _wait_until_packed(db)
        assert load.verdict(server.stubs()) == figures
        report = verify(db)
        assert report.faults == []
        assert report.events == figures["stored"]
        db.close()
    print(f"4 deaths: {figures}; {counted}")  # noqa: T201 - to publish


def _wait_until_packed(db: Database) -> packs.Count:
    deadline = time.monotonic() + _SECONDS
    while True:
        with db.engine() as conn:
            found = packs.count(conn)
        if found.packs and found.rows < found.segments // 4:
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.1)
