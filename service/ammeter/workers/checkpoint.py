"""Writes partials out of memory every few seconds, and merges what piles up."""

import threading
import time
from collections.abc import Callable

import structlog

from ammeter import faults, metrics
from ammeter.errors import UnavailableError
from ammeter.store import blocks, meters, segments
from ammeter.store.db import Database
from ammeter.usecases.engine import Engine, Frozen, merge_blocks

# Eight runs of a level become one of the next, so a block is rewritten about
# once per power of eight in the number of checkpoints of its day.
_RUNS_PER_LEVEL = 8
_MAX_MERGED_ROWS = 4_000_000
_MERGES_PER_CHECKPOINT = 64
_POLL_SECONDS = 0.1
# A merge computes between its statements.
_MERGE_IDLE_MS = 10_000

_log = structlog.get_logger()


class CheckpointWorker(threading.Thread):
    """Freezes the open partials, writes them with the position they include, then forgets them."""

    def __init__(
        self,
        db: Database,
        engine: Engine,
        epoch: int,
        interval_seconds: float,
        max_rows: int,
        on_fatal: Callable[[Exception], None],
    ) -> None:
        """Checkpoint every `interval_seconds`, or sooner when `max_rows` partials are open."""
        super().__init__(name="checkpoint", daemon=True)
        self._db = db
        self._engine = engine
        self._epoch = epoch
        self._interval = interval_seconds
        self._max_rows = max_rows
        self._on_fatal = on_fatal
        self._stopping = threading.Event()
        self._unwritten: list[Frozen] = []
        self._next = time.monotonic() + interval_seconds

    def stop(self) -> None:
        """Write a last checkpoint, so that the next start has nothing to fold."""
        self._stopping.set()
        if self.is_alive():
            self.join()

    def run(self) -> None:
        """Checkpoint until stopped, and once more then."""
        try:
            while not self._stopping.wait(_POLL_SECONDS):
                if time.monotonic() >= self._next or self._engine.open_rows >= self._max_rows:
                    self._try()
            self._try()
        except Exception as error:  # noqa: BLE001 - a defect here must not stay unseen
            self._on_fatal(error)

    def _try(self) -> None:
        self._next = time.monotonic() + self._interval
        try:
            with metrics.CHECKPOINT_SECONDS.time():
                self._checkpoint()
            self._merge()
        except UnavailableError as error:
            # Nothing is lost: what was frozen stays readable, and goes first next time.
            _log.warning("checkpoint postponed", error=error.message)

    def _checkpoint(self) -> None:
        frozen = self._engine.freeze()
        if frozen.row_count or frozen.positions:
            self._unwritten.append(frozen)
        faults.reach("freeze.after")
        while self._unwritten:
            oldest = self._unwritten[0]
            if not self._write(oldest):
                return
            faults.reach("checkpoint.after")
            self._engine.discard(oldest)
            self._unwritten.pop(0)
            faults.reach("discard.after")
            metrics.CHECKPOINT_ROWS.inc(oldest.row_count)

    def _write(self, frozen: Frozen) -> bool:
        with self._db.engine() as conn:
            if not segments.require_epoch(conn, self._epoch):
                _log.warning("checkpoint left to the new writer")
                return False
            faults.reach("checkpoint.begun")
            # First, because it locks: a former try that still is under way ends before we look.
            moved = blocks.move_checkpoints(conn, frozen.positions)
            faults.reach("checkpoint.moved")
            new = [block for block in frozen.blocks if block.tenant in moved]
            known = meters.existing_revisions(conn, list({block.meter for block in new}))
            run = max((position for _, position in frozen.positions), default=0)
            # A meter deleted meanwhile took its blocks along.
            blocks.insert(conn, [block for block in new if block.meter in known], level=0, run=run)
            faults.reach("checkpoint.inserted")
        return True

    def _merge(self) -> None:
        with self._db.engine() as conn:
            crowds = blocks.crowded(conn, _RUNS_PER_LEVEL, _MAX_MERGED_ROWS, _MERGES_PER_CHECKPOINT)
        for crowd in crowds:
            if self._stopping.is_set():
                return
            with self._db.engine() as conn:
                if not segments.require_epoch(conn, self._epoch, _MERGE_IDLE_MS):
                    return
                if crowd.revision_id not in meters.existing_revisions(conn, [crowd.revision_id]):
                    continue
                payloads = blocks.take(conn, crowd)
                faults.reach("merge.taken")
                merged = merge_blocks(crowd.tenant_id, crowd.revision_id, crowd.day, payloads)
                blocks.insert(conn, merged, level=crowd.level + 1, run=time.time_ns())
                faults.reach("merge.inserted")
            faults.reach("merge.after")
