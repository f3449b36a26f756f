"""Saves identities to files now and then, and lets old ones leave memory."""

import threading
import time
from collections.abc import Callable

import structlog

from ammeter.errors import UnavailableError
from ammeter.store import segments
from ammeter.store.db import Database
from ammeter.usecases.engine import Runs
from ammeter.usecases.identities import move_out, save_identities
from ammeter.usecases.recover import Recovered

_SAVE_SECONDS = 60.0
_TIDY_SECONDS = 3600.0
# Fewer are sooner read from segments than a file is worth; by the hour, and at the end, somewhat fewer.
_MANY = 100_000
_SOME = 10_000

_log = structlog.get_logger()


class IdentityWorker(threading.Thread):
    """Once a minute saves what is new of busy tenants; once an hour tidies up for all."""

    def __init__(self, db: Database, recovered: Recovered, on_fatal: Callable[[Exception], None]) -> None:
        """`on_fatal` is called, once, when a file turns out to be damaged: a new engine is needed."""
        super().__init__(name="identities", daemon=True)
        self._db = db
        self._engine = recovered.engine
        self._has_runs = recovered.has_runs
        self._runs = Runs(recovered.engine)
        self._on_fatal = on_fatal
        self._stopping = threading.Event()

    def stop(self) -> None:
        """Save the rest, so that the next start has less to read."""
        self._stopping.set()
        if self.is_alive():
            self.join()

    def run(self) -> None:
        """Save and tidy until stopped, and save once more then; without a directory, do nothing."""
        if not self._has_runs:
            return
        next_tidying = time.monotonic()
        try:
            while not self._stopping.is_set():
                tidying = time.monotonic() >= next_tidying
                self._try(_SOME if tidying else _MANY, tidying=tidying)
                if tidying:
                    next_tidying = time.monotonic() + _TIDY_SECONDS
                self._stopping.wait(_SAVE_SECONDS)
            self._try(_SOME, tidying=False)
        except Exception as error:  # noqa: BLE001 - a defect here must not stay unseen
            self._on_fatal(error)

    def _try(self, least: int, *, tidying: bool) -> None:
        try:
            with self._db.engine() as conn:
                tenants = [state.tenant_id for state in segments.tenant_states(conn)]
        except UnavailableError as error:
            _log.warning("identities are saved later", error=error.message)
            return
        now_us = time.time_ns() // 1000
        known = [tenant for tenant in tenants if self._engine.knows(tenant)]
        save_identities(self._runs, known, least, now_us, self._stopping)
        if tidying:
            move_out(self._runs, known, now_us)
