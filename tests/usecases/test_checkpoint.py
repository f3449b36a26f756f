"""Checkpoints count once, whatever becomes of the answer to their commit."""

import random

from ammeter.store.db import Database
from ammeter.usecases.follow import EngineOptions
from ammeter.usecases.recover import recover
from ammeter.usecases.verify import verify
from ammeter.workers.checkpoint import CheckpointWorker
from tests.usecases.history import EPOCH, NOW_US, put_history


def test_a_checkpoint_written_unheard_is_not_written_again(database_url: str, rng: random.Random) -> None:
    tenant_id = put_history(database_url, rng)
    db = Database(database_url)
    engine = recover(db, EngineOptions(35 * 86_400, 300, 1 << 28, 1), NOW_US + 100).engine
    worker = CheckpointWorker(db, engine, EPOCH, 60, 1_000_000, lambda _error: None)
    frozen = engine.freeze()
    assert frozen.row_count > 0
    assert (tenant_id, 8) in frozen.positions
    for _ in range(2):
        assert worker._write(frozen)
        assert verify(db).faults == []
    db.close()
