"""Looks after each commit at what it touched, and tells whom it concerns."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime

import structlog

from ammeter.errors import UnavailableError
from ammeter.usecases.engine import Engine
from ammeter.usecases.herald import Herald
from ammeter.usecases.watch import Watch

# Changes within this time are looked at together.
_PAUSE_SECONDS = 0.05
_IDLE_SECONDS = 0.25
_RETRY_SECONDS = 1.0

_log = structlog.get_logger()


class NotifyWorker(threading.Thread):
    """The one reader of what folds touch."""

    def __init__(
        self,
        engine: Engine,
        herald: Herald,
        watch: Watch,
        on_told: Callable[[set[int]], None],
        is_silent: Callable[[], bool],
    ) -> None:
        """`on_told` hears to which tenants something was told; nothing is told while we may be stale."""
        super().__init__(name="notify", daemon=True)
        self._engine = engine
        self._herald = herald
        self._watch = watch
        self._on_told = on_told
        self._is_silent = is_silent
        self._stopping = threading.Event()

    def stop(self) -> None:
        """End after what is in hand; the next writer looks at everything again."""
        self._stopping.set()
        if self.is_alive():
            self.join()

    def run(self) -> None:
        """Look until stopped."""
        begun, pause = False, 0.0
        while not self._stopping.wait(pause):
            pause = _RETRY_SECONDS
            try:
                now = datetime.now(UTC)
                if not begun:
                    self._herald.begin(now)
                    begun = True
                pause = _PAUSE_SECONDS
                if self._is_silent():
                    continue
                if self._herald.is_idle and self._watch.is_idle:
                    pause = _IDLE_SECONDS
                    continue
                touched = self._engine.take_touched()
                self._watch.touched(touched)
                told = self._herald.look(touched, now)
                if told:
                    self._on_told(told)
            except UnavailableError as error:
                _log.warning("notifications postponed", error=error.message)
                pause = _RETRY_SECONDS
            except Exception:  # noqa: BLE001 - the next look may succeed
                _log.exception("notifying failed")
                pause = _RETRY_SECONDS
