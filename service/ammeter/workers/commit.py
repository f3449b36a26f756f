"""Makes events durable: one commit in flight, the next group fills meanwhile."""

import threading
import time
from collections.abc import Callable, Sequence

import psycopg
import structlog
from tenacity import RetryCallState, Retrying, retry_if_exception_type, wait_exponential_jitter

from ammeter import faults, metrics
from ammeter.store import reservations, segments
from ammeter.store.db import Database
from ammeter.store.reservations import Answer
from ammeter.usecases.desk import Desk, Waiting, answers_of
from ammeter.usecases.engine import Engine, SealedGroup
from ammeter.usecases.record import Intake

# How often it looks whether it is to stop.
_WAIT_SECONDS = 0.1
# How long commits may fail before a worker that was asked to stop gives up.
_PATIENCE_SECONDS = 1.0

_log = structlog.get_logger()


class FencedError(Exception):
    """Another process is the writer now."""


class CommitFailedError(Exception):
    """A commit that cannot succeed: memory and database disagree."""


class CommitWorker(threading.Thread):
    """The only thread that appends to the chain.

    It holds the connection that holds the writer's lock. `on_fatal` is called,
    once, with the reason when it cannot go on; what was admitted and is not
    durable then was never acknowledged.
    """

    def __init__(
        self,
        db: Database,
        engine: Engine,
        intake: Intake,
        desk: Desk,
        work: threading.Event,
        raw: segments.RawConnection,
        epoch: int,
        on_fatal: Callable[[Exception], None],
    ) -> None:
        """Take over the writer's connection and epoch; `work` is set when there is something to commit."""
        super().__init__(name="commit", daemon=True)
        self._db = db
        self._engine = engine
        self._intake = intake
        self._desk = desk
        self._work = work
        self._raw = raw
        self._epoch = epoch
        self._on_fatal = on_fatal
        self._stopping = threading.Event()
        self._failing_since: float | None = None
        self._retrying = Retrying(
            retry=retry_if_exception_type(psycopg.OperationalError),
            wait=wait_exponential_jitter(initial=0.02, max=1.0, jitter=0.02),
            before_sleep=self._before_sleep,
            reraise=True,
        )

    def stop(self) -> None:
        """End after everything admitted is durable, or at once while the database is away."""
        self._stopping.set()
        if self.is_alive():
            self.join()
        self._raw.close()

    def run(self) -> None:
        """Seal, append, fold, release; again and again."""
        try:
            while True:
                self._work.wait(_WAIT_SECONDS)
                self._work.clear()
                stopping = self._stopping.is_set()
                while self._engine.wait(0) or self._desk.has_waiting:
                    self._step()
                if stopping:
                    return
        except _StoppedError:
            _log.warning(
                "stopped while the database was away: what was not acknowledged is for clients to resend"
            )
        except Exception as error:  # noqa: BLE001 - whatever it is, ingest must stop and recover
            self._intake.stop(
                "the server is recovering, nothing was acknowledged: send the same events again"
            )
            self._desk.stop("the server is recovering: ask again with the same request_id")
            self._on_fatal(error)

    def _step(self) -> None:
        group = self._engine.seal(time.time_ns() // 1000)
        if group is not None:
            faults.reach("seal.after")
        decided = self._desk.take(group)
        if group is None and not decided:
            return
        with metrics.COMMIT_SECONDS.time():
            self._retrying(self._attempt, group, decided, answers_of(decided))
            self._failing_since = None
        if group is not None:
            self._desk.begin_swaps(decided)
            faults.reach("fold.before")
            self._engine.fold(group)
            faults.reach("fold.after")
            self._intake.committed(group.number)
        self._desk.committed(decided)
        if group is not None:
            faults.reach("release.after")
            metrics.COMMITTED_EVENTS.inc(group.event_count)
            metrics.SEGMENT_BYTES.inc(sum(len(segment.payload) for segment in group.segments))

    def _attempt(
        self, group: SealedGroup | None, decided: Sequence[Waiting], answers: Sequence[Answer]
    ) -> None:
        first = not self._raw.closed
        if not first:
            self._reconnect()
        changed = [one.made.change.after for one in decided]

        def write_decisions() -> bool:
            return reservations.write(self._raw, self._epoch, changed, answers)

        if group is None:
            if not write_decisions():
                self._require_epoch()
            return
        new, also = group.segments, write_decisions if decided else None
        if first and self._failing_since is None and segments.append(self._raw, self._epoch, new, also):
            return
        # Either the outcome of an attempt is unknown, or nothing was appended:
        # the chain itself tells which.
        if segments.is_durable(self._raw, new[-1]):
            return
        if segments.append(self._raw, self._epoch, new, also) or segments.is_durable(self._raw, new[-1]):
            return
        self._require_epoch()
        message = f"tenant {new[0].tenant}: position {new[0].position} is not what follows the head"
        raise CommitFailedError(message)

    def _require_epoch(self) -> None:
        current = segments.current_epoch(self._raw)
        if current != self._epoch:
            message = f"fenced: the writer's epoch is {current}, this process had {self._epoch}"
            raise FencedError(message)

    def _reconnect(self) -> None:
        raw = self._db.raw()
        if not segments.hold_writer_lock(raw):
            epoch = segments.current_epoch(raw)
            raw.close()
            if epoch != self._epoch:
                message = f"fenced: the writer's epoch is {epoch}, this process had {self._epoch}"
                raise FencedError(message)
            # The lock is still with our own dead connection, or another
            # process waits its turn: the epoch decides, not the lock.
            message = "the writer's lock is not free yet"
            raise psycopg.OperationalError(message)
        self._raw = raw

    def _before_sleep(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        now = time.monotonic()
        if self._failing_since is None:
            self._failing_since = now
            _log.warning("commit failed, trying again", error=str(error))
        metrics.COMMIT_RETRIES.labels(type(error).__name__).inc()
        if self._stopping.is_set() and now - self._failing_since >= _PATIENCE_SECONDS:
            raise _StoppedError
        self._raw.close()


class _StoppedError(Exception):
    """Asked to stop while the database is away."""
