"""Make packs of small neighbouring segments, so that quiet times leave few rows."""

import threading

from ammeter import faults
from ammeter.domain.pack import Row, plan_packs, settled_before
from ammeter.store import packs, segments
from ammeter.store.db import Database
from ammeter.usecases.engine import EngineError, pack_segments

# Rows that are looked at together.
_LOOK_ROWS = 10_000


class OldVersionError(Exception):
    """A version runs that knows no packs."""


class Packer:
    """Packs the rows of all tenants; remembers which will stay as they are.

    Only for the holder of the writer's epoch: every pack is made in a
    transaction that requires it.
    """

    def __init__(self, db: Database, epoch: int) -> None:
        """Have looked at nothing yet."""
        self._db = db
        self._epoch = epoch
        self._settled: dict[int, int] = {}
        # By tenant: why its rows are left alone, for as long as this process is the writer.
        self.refused: dict[int, str] = {}

    def pack(self, stopping: threading.Event) -> int:
        """Pack what there is to pack; returns how many rows are gone.

        Raises OldVersionError; UnavailableError, and what was packed stays so.
        """
        with self._db.engine() as conn:
            bounds = packs.bounds(conn)
        gone = 0
        for tenant_id, upto in bounds.items():
            while tenant_id not in self.refused and not stopping.is_set():
                less = self._pack_some(tenant_id, upto, stopping)
                if less is None:
                    break
                gone += less
        return gone

    def _pack_some(self, tenant_id: int, upto: int, stopping: threading.Event) -> int | None:
        """Pack some rows of a tenant; returns how many are gone, None if there is no more to do."""
        after = self._settled.get(tenant_id, 0)
        with self._db.engine() as conn:
            rows = packs.rows_between(conn, tenant_id, after, upto, _LOOK_ROWS)
        groups = plan_packs(rows)
        if not groups:
            settled = settled_before(rows)
            if len(rows) < _LOOK_ROWS or not settled:
                self._settled[tenant_id] = max(after, settled)
                return None
            self._settled[tenant_id] = settled
        gone = 0
        for group in groups:
            if stopping.is_set() or not self._replace(tenant_id, group):
                return None
            gone += len(group) - 1
        return gone

    def _replace(self, tenant_id: int, group: list[Row]) -> bool:
        """Put a pack in the place of rows; False if that is not for us to do."""
        first, last = group[0].first, group[-1].last
        try:
            with self._db.engine() as conn:
                if not segments.require_epoch(conn, self._epoch):
                    return False
                if not packs.serve_who_knows(conn):
                    raise OldVersionError
                faults.reach("pack.begun")
                before = segments.digest_at(conn, tenant_id, first - 1)
                taken = packs.take(conn, tenant_id, first, last)
                faults.reach("pack.taken")
                pack = pack_segments(before, tenant_id, taken.rows)
                packs.put(conn, tenant_id, first, taken, pack)
                faults.reach("pack.put")
        except EngineError as error:
            # What does not verify stays as evidence.
            self.refused[tenant_id] = error.message
            return False
        faults.reach("pack.after")
        return True
