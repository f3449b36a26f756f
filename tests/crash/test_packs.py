"""Killed while it packs, at every step: every event counts once, is found once, and the chain verifies."""

import random
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa

from ammeter import faults
from ammeter.domain.pack import plan_packs
from ammeter.store import packs
from ammeter.store.db import Database
from ammeter.store.tables import segments
from ammeter.usecases.verify import verify
from tests.crash.load import Load, set_up
from tests.serving import ServerProcess

POINTS = [point for point in faults.POINTS if point.startswith("pack.")]
_SECONDS = 60
_HEADS = sa.select(segments.c.tenant_id, sa.func.max(segments.c.position).label("head")).group_by(
    segments.c.tenant_id
)


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
        with closing(Database(url)) as db:
            counted = _wait_until_packed(db)
            assert counted.packs
            assert load.verdict(server.stubs()) == figures
            report = verify(db)
            assert report.faults == []
            assert report.events == figures["stored"]
    print(f"4 deaths: {figures}; {counted}")  # noqa: T201 - to publish


def _wait_until_packed(db: Database) -> packs.Count:
    """Wait until a checkpoint holds everything and no rows are left that would become one."""
    deadline = time.monotonic() + _SECONDS
    while True:
        with db.engine() as conn:
            heads = {row.tenant_id: row.head for row in conn.execute(_HEADS)}
            bounds = packs.bounds(conn)
            rows = {
                tenant: packs.rows_between(conn, tenant, 0, head, 10_000) for tenant, head in heads.items()
            }
            counted = packs.count(conn)
        if bounds == heads and not any(plan_packs(each) for each in rows.values()):
            return counted
        assert time.monotonic() < deadline, counted
        time.sleep(0.1)
