"""Follow the chain: an engine that knows the identities of all that is durable."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from sqlalchemy.engine import Connection

from ammeter.errors import InternalError
from ammeter.store import segments
from ammeter.store.db import Database, unavailable_if_away
from ammeter.store.segments import StoredSegment, TenantState
from ammeter.usecases.engine import Engine, EngineError, Runs
from ammeter.usecases.identities import move_out, save_identities

# Clocks of writers before this one may have been a little ahead.
_CLOCK_SLACK = timedelta(days=1)
# Fewer identities are sooner read from segments than a file is worth.
_LEAST_SAVED = 10_000


@dataclass(frozen=True)
class EngineOptions:
    """What an engine is made with; see Engine."""

    horizon_past_seconds: int
    horizon_future_seconds: int
    max_pending_bytes: int
    codec: int
    run_directory: Path | None = None
    hot_seconds: int = 0


@dataclass(frozen=True)
class Reading:
    """Segments to take back: those in (after, upto].

    fold: their usage, too, not only identities. `stopping` may interrupt.
    """

    tenant_id: int
    after: int
    upto: int
    fold: bool
    now_us: int
    stopping: threading.Event | None = None


class Follower:
    """An engine behind the chain's heads, and how far behind; its windows are empty.

    One thread at a time. After an exception it is of no use any more.
    """

    def __init__(self, db: Database, options: EngineOptions) -> None:
        """Make an engine that knows nothing."""
        self._db = db
        with db.engine() as conn:
            self.hash_key = segments.hash_key(conn)
        self.engine = Engine(
            hash_key=self.hash_key,
            horizon_past_seconds=options.horizon_past_seconds,
            horizon_future_seconds=options.horizon_future_seconds,
            max_pending_bytes=options.max_pending_bytes,
            codec=options.codec,
            run_directory=None if options.run_directory is None else str(options.run_directory),
            hot_seconds=options.hot_seconds,
        )
        self._runs = None if options.run_directory is None else Runs(self.engine)
        self._remembered = timedelta(seconds=options.horizon_past_seconds + options.horizon_future_seconds)
        self._raw: segments.RawConnection | None = None
        # By tenant: the last position whose identities are known.
        self._known: dict[int, int] = {}

    def close(self) -> None:
        """Close the connection; the engine lives on."""
        if self._raw is not None:
            self._raw.close()
            self._raw = None

    def catch_up(self, now_us: int, stopping: threading.Event) -> int:
        """Take in the identities of what was appended since, until interrupted; returns how many events."""
        with self._db.engine() as conn:
            states = segments.tenant_states(conn)
        return sum(self.follow(state, state.head, now_us, stopping) for state in states)

    def tidy(self, now_us: int, stopping: threading.Event) -> None:
        """Let old identities leave memory; what is known need not be read again after a restart."""
        if self._runs is not None:
            save_identities(self._runs, self._known, _LEAST_SAVED, now_us, stopping)
            move_out(self._runs, self._known, now_us)

    def follow(
        self, state: TenantState, upto: int, now_us: int, stopping: threading.Event | None = None
    ) -> int:
        """Take in a tenant's identities up to a position; returns how many events were read."""
        if state.tenant_id not in self._known:
            self._open(state, now_us)
        after = self._known[state.tenant_id]
        if after >= upto:
            return 0
        return self.read(Reading(state.tenant_id, after, upto, fold=False, now_us=now_us, stopping=stopping))

    def _open(self, state: TenantState, now_us: int) -> None:
        """Open a tenant just before the first segment whose identities matter."""
        since_us = now_us - (self._remembered + _CLOCK_SLACK) // timedelta(microseconds=1)
        with self._db.engine() as conn:
            first = segments.first_recorded_since(conn, state.tenant_id, since_us)
            after = state.head if first is None else first - 1
            self.engine.open_tenant(state.tenant_id, after, segments.digest_at(conn, state.tenant_id, after))
            if self._runs is not None:
                after = self._load_runs(conn, self._runs, state, after, now_us)
        self._known[state.tenant_id] = after

    def _load_runs(self, conn: Connection, runs: Runs, state: TenantState, after: int, now_us: int) -> int:
        """Take identities from files that the chain bears out; returns up to where all are known."""
        trusted = 0
        for _, position, digest in runs.stored(state.tenant_id):
            if position > state.head or segments.digest_at(conn, state.tenant_id, position) != digest:
                break
            trusted += 1
        known = runs.load(state.tenant_id, trusted, after, now_us)
        if known > after:
            self.engine.rewind(state.tenant_id, known, segments.digest_at(conn, state.tenant_id, known))
        return known

    def read(self, reading: Reading) -> int:
        """Take segments back, database and core working side by side; returns how many events.

        Raises InternalError when the chain does not verify or ends early.
        """
        count = 0
        last = reading.after
        for rows in self._batches(reading):
            count += self._replay(reading, rows)
            last = min(rows[-1].position, reading.upto)
        if last != reading.upto and not (reading.stopping and reading.stopping.is_set()):
            message = f"tenant {reading.tenant_id}: segments up to {reading.upto} are due, the last is {last}"
            raise InternalError(message)
        return count

    def _batches(self, reading: Reading) -> Iterator[list[StoredSegment]]:
        with unavailable_if_away():
            if self._raw is None or self._raw.closed:
                self._raw = self._db.raw()
            stored = segments.read(self._raw, reading.tenant_id, reading.after, reading.upto)
            with closing(stored), ThreadPoolExecutor(1, thread_name_prefix="read") as reader:
                coming = reader.submit(next, stored, None)
                while (batch := coming.result()) is not None:
                    if reading.stopping is not None and reading.stopping.is_set():
                        return
                    coming = reader.submit(next, stored, None)
                    yield batch

    def _replay(self, reading: Reading, rows: list[StoredSegment]) -> int:
        tenant_id, known = reading.tenant_id, self._known[reading.tenant_id]
        try:
            count = self.engine.replay(tenant_id, rows, reading.upto, known, reading.fold, reading.now_us)
        except EngineError as error:
            raise InternalError(error.message) from error
        self._known[tenant_id] = max(known, min(rows[-1].position, reading.upto))
        return count
