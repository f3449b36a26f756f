"""Beats the pulse, and looks now and then whether this process is still the writer."""

import threading
import time
from collections.abc import Callable

from ammeter.errors import UnavailableError
from ammeter.store import segments
from ammeter.store.db import Database
from ammeter.usecases.pulse import Pulse
from ammeter.workers.commit import FencedError

_BEAT_SECONDS = 0.1
_LOOK_SECONDS = 2.0


class PulseWorker(threading.Thread):
    """After a pause it beats again only when the database confirms the epoch.

    Without a pause it beats on while the database is away: nobody else can
    become the writer then, and checks go on from memory.
    """

    def __init__(self, db: Database, epoch: int, pulse: Pulse, on_fatal: Callable[[Exception], None]) -> None:
        """`on_fatal` is called, once, when another process is the writer."""
        super().__init__(name="pulse", daemon=True)
        self._db = db
        self._epoch = epoch
        self._pulse = pulse
        self._on_fatal = on_fatal
        self._stopping = threading.Event()

    def stop(self) -> None:
        """End."""
        self._stopping.set()
        if self.is_alive():
            self.join()

    def run(self) -> None:
        """Beat until stopped or replaced."""
        self._pulse.beat()
        next_look = time.monotonic() + _LOOK_SECONDS
        while not self._stopping.wait(_BEAT_SECONDS):
            try:
                if self._pulse.silent() or time.monotonic() >= next_look:
                    if not self._still_writer():
                        message = "fenced: another process is the writer"
                        self._on_fatal(FencedError(message))
                        return
                    next_look = time.monotonic() + _LOOK_SECONDS
            except UnavailableError:
                if self._pulse.silent():
                    continue
            self._pulse.beat()

    def _still_writer(self) -> bool:
        with self._db.engine() as conn:
            return segments.epoch(conn) == self._epoch
