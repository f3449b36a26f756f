"""What a checkpoint could not write stays in memory, and goes with the next one."""

import random
from contextlib import closing

import pytest

from ammeter import faults
from ammeter.errors import UnavailableError
from ammeter.store.db import Database
from ammeter.usecases.follow import EngineOptions
from ammeter.usecases.recover import recover
from ammeter.usecases.verify import verify
from ammeter.workers.checkpoint import CheckpointWorker
from tests.usecases.history import EPOCH, NOW_US, put_history


@pytest.mark.parametrize(
    "point", ["checkpoint.begun", "checkpoint.moved", "checkpoint.inserted", "checkpoint.after"]
)
def test_partials_leave_memory_after_their_checkpoint_is_durable(
    database_url: str, rng: random.Random, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    put_history(database_url, rng)
    monkeypatch.setattr(faults, "reach", faults.reach)  # to be put back
    faults.arm(f"{point}=lose@1")
    with closing(Database(database_url)) as db:
        engine = recover(db, EngineOptions(35 * 86_400, 300, 1 << 28, 1), NOW_US + 100).engine
        worker = CheckpointWorker(db, engine, EPOCH, 60, 1_000_000, lambda _error: None)
        rows = engine.open_rows
        assert rows > 0
        with pytest.raises(UnavailableError):
            worker._checkpoint()
        assert (engine.open_rows, engine.stats()["frozen_rows"]) == (0, rows)
        worker._checkpoint()
        assert engine.stats()["frozen_rows"] == 0
        assert verify(db).faults == []
