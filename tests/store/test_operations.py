"""What is kept of operations, and what never is forgotten."""

from datetime import timedelta

from ammeter.domain.operation import Operation, OperationKind, OperationState, end
from ammeter.store import operations
from ammeter.store.db import Database
from tests.usecases.billing_world import World

DAY = timedelta(days=1)


def test_what_has_not_ended_is_never_forgotten_however_old(database_url: str) -> None:
    db = Database(database_url)
    world = World(db)
    made = [
        Operation(f"op_{n}", OperationKind.GENERATE_INVOICES, "", False, world.now, world.now, state)  # noqa: FBT003
        for n, state in enumerate((OperationState.WAITING, OperationState.RUNNING, OperationState.RUNNING))
    ]
    made[2] = end(made[2], world.now)
    with db.tenant(world.tenant_id) as tx:
        for one in made:
            operations.insert(tx, one)
    with db.engine() as engine:
        assert operations.expire(engine, world.now) == 0
        assert operations.expire(engine, world.now + DAY) == 1
    with db.tenant(world.tenant_id) as tx:
        assert operations.page(tx, None, "", 10) == [made[1], made[0]]
    db.close()
