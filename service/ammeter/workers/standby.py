"""Keeps an engine warm while another process writes."""

import threading
import time

import structlog

from ammeter.errors import AmmeterError
from ammeter.store.db import Database
from ammeter.usecases.follow import EngineOptions, Follower

_POLL_SECONDS = 0.2
_RETRY_SECONDS = 1.0
_EXPIRE_SECONDS = 3600.0

_log = structlog.get_logger()


class StandbyWorker(threading.Thread):
    """Follows the chain until it is our turn: then little is left to read."""

    def __init__(self, db: Database, options: EngineOptions) -> None:
        """Know nothing yet."""
        super().__init__(name="standby", daemon=True)
        self._db = db
        self._options = options
        self._follower: Follower | None = None
        self._stopping = threading.Event()
        self._next_expiry = time.monotonic() + _EXPIRE_SECONDS

    def stop(self) -> Follower | None:
        """End; returns what knows the chain up to a moment ago, or None."""
        self._stopping.set()
        if self.is_alive():
            self.join()
        return self._follower

    def run(self) -> None:
        """Follow until stopped; after a failure begin anew."""
        while not self._stopping.is_set():
            try:
                self._follow()
            except Exception as error:  # noqa: BLE001 - whatever it is, the writer is not to be disturbed
                why = error.message if isinstance(error, AmmeterError) else str(error)
                _log.warning("standing by: cannot follow the chain, beginning anew", error=why)
                self._drop()
                self._stopping.wait(_RETRY_SECONDS)

    def _follow(self) -> None:
        if self._follower is None:
            self._follower = Follower(self._db, self._options)
            started = time.monotonic()
            count = self._follower.catch_up(time.time_ns() // 1000, self._stopping)
            seconds = round(time.monotonic() - started, 3)
            _log.info("standing by: identities are known", events=count, seconds=seconds)
            self._follower.tidy(time.time_ns() // 1000, self._stopping)
        while not self._stopping.wait(_POLL_SECONDS):
            now_us = time.time_ns() // 1000
            self._follower.catch_up(now_us, self._stopping)
            if time.monotonic() >= self._next_expiry:
                self._next_expiry = time.monotonic() + _EXPIRE_SECONDS
                self._follower.engine.expire_identities(now_us)
                self._follower.tidy(now_us, self._stopping)

    def _drop(self) -> None:
        if self._follower is not None:
            self._follower.close()
        self._follower = None
