"""What else runs without being asked: meter builds, rolling periods, forgetting."""

import queue
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import structlog

from ammeter import metrics
from ammeter.errors import UnavailableError
from ammeter.store import operations, requests, reservations
from ammeter.store.db import Database
from ammeter.usecases.engine import Engine
from ammeter.usecases.meters import BuildJob, build_meter

_ROLL_SECONDS = 20.0
_EXPIRE_SECONDS = 3600.0
_RETRY_SECONDS = 1.0
_POLL_SECONDS = 0.2

_log = structlog.get_logger()


class BuildWorker(threading.Thread):
    """Builds meters from history, one after the other."""

    def __init__(
        self, db: Database, engine: Engine, hash_key: bytes, on_built: Callable[[int, int], None]
    ) -> None:
        """`on_built` is called with (tenant_id, meter_id) when a revision is served."""
        super().__init__(name="build", daemon=True)
        self._db = db
        self._engine = engine
        self._hash_key = hash_key
        self._on_built = on_built
        self._jobs: queue.SimpleQueue[BuildJob] = queue.SimpleQueue()
        self._stopping = threading.Event()

    def enqueue(self, job: BuildJob) -> None:
        """Queue a build; callable from any thread."""
        self._jobs.put(job)

    def stop(self) -> None:
        """Leave the rest to the next start, which finds it in the database."""
        self._stopping.set()
        if self.is_alive():
            self.join()

    def run(self) -> None:
        """Build until stopped."""
        while not self._stopping.is_set():
            try:
                job = self._jobs.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                continue
            try:
                if build_meter(self._db, self._engine, self._hash_key, job, self._stopping):
                    self._on_built(job.tenant_id, job.meter_id)
            except UnavailableError as error:
                _log.warning("build postponed", revision_id=job.revision_id, error=error.message)
                self._stopping.wait(_RETRY_SECONDS)
                self._jobs.put(job)
            except Exception:  # noqa: BLE001 - one meter's failure must not end the others' builds
                _log.exception("build failed", revision_id=job.revision_id)


class Keep(NamedTuple):
    """For how many days what is kept.

    Answers by request_id; reservations after their end, as long as their
    events may come; operations after their end.
    """

    request_days: int
    event_days: int
    operation_days: int


class ChoreWorker(threading.Thread):
    """Rolls counters into their next periods; forgets old answers and identities."""

    def __init__(self, db: Database, engine: Engine, recheck: Callable[[], None], keep: Keep) -> None:
        """`recheck` extends the counters' periods, and makes memory follow what it missed."""
        super().__init__(name="chores", daemon=True)
        self._db = db
        self._engine = engine
        self._recheck = recheck
        self._keep = keep
        self._stopping = threading.Event()

    def stop(self) -> None:
        """End after the chore in hand."""
        self._stopping.set()
        if self.is_alive():
            self.join()

    def run(self) -> None:
        """Do what is due until stopped."""
        next_roll = next_expiry = time.monotonic() + _ROLL_SECONDS
        while not self._stopping.wait(1.0):
            try:
                self._report()
                if time.monotonic() >= next_roll:
                    self._recheck()
                    next_roll = time.monotonic() + _ROLL_SECONDS
                if time.monotonic() >= next_expiry:
                    self._expire()
                    next_expiry = time.monotonic() + _EXPIRE_SECONDS
            except UnavailableError as error:
                _log.warning("chores postponed", error=error.message)
            except Exception:  # noqa: BLE001 - the next chore may succeed
                _log.exception("a chore failed")

    def _report(self) -> None:
        for name, value in self._engine.stats().items():
            metrics.ENGINE.labels(name).set(value)

    def _expire(self) -> None:
        forgotten = self._engine.expire_identities(time.time_ns() // 1000)
        with self._db.engine() as conn:
            now = datetime.now(UTC)
            answers = requests.expire(conn, now - timedelta(days=self._keep.request_days))
            ended = reservations.expire(conn, now - timedelta(days=self._keep.event_days))
            done = operations.expire(conn, now - timedelta(days=self._keep.operation_days))
        counts = {"identities": forgotten, "answers": answers, "reservations": ended, "operations": done}
        _log.info("forgot what is old", **counts)
