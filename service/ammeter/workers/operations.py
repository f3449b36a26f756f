"""Runs operations: of a tenant one after the other, of several tenants side by side."""

import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime

import structlog

from ammeter.domain.operation import Operation
from ammeter.errors import AmmeterError, UnavailableError
from ammeter.store.operations import tenants_with_work
from ammeter.usecases.billing import Billing
from ammeter.usecases.operations import Made, claim, run_operation

# Tenants at a time; billing itself lets no more in.
_THREADS = 4
# What a watcher that reads slowly may be behind, and how long the work waits for it then.
_BEHIND = 100
_PATIENCE_SECONDS = 10.0
_INTERVAL_SECONDS = 5.0

_log = structlog.get_logger()
_Watcher = queue.Queue[Made | AmmeterError]


def _now() -> datetime:
    return datetime.now(UTC)


class OperationWorker(threading.Thread):
    """Looks for work when woken and every few seconds; what a dead process left is gone on with."""

    def __init__(self, run: Billing, is_silent: Callable[[], bool]) -> None:
        """Nothing is done while this process may be stale."""
        super().__init__(name="operations", daemon=True)
        self._run = run
        self._is_silent = is_silent
        self._stopping = threading.Event()
        self._wake = threading.Event()
        self._lock = threading.Lock()
        self._busy: set[int] = set()
        self._watchers: dict[str, _Watcher] = {}

    def wake(self) -> None:
        """Look for work now."""
        self._wake.set()

    @contextmanager
    def watch(self, operation_id: str) -> Iterator[Iterator[Made]]:
        """Hear what an operation makes, to its end; begin before the operation is committed.

        Raises UnavailableError when the work is not seen any more; it goes on.
        """
        if not self.is_alive():
            raise UnavailableError("operations are not run here now: try again", reason="NOT_SERVING")
        watcher: _Watcher = queue.Queue(_BEHIND)
        with self._lock:
            self._watchers[operation_id] = watcher
        try:
            yield _heard(watcher)
        finally:
            with self._lock:
                self._watchers.pop(operation_id, None)

    def stop(self) -> None:
        """End after the subscriptions in hand; watchers are told."""
        self._stopping.set()
        self._wake.set()
        if self.is_alive():
            self.join()

    def run(self) -> None:
        """Hand tenants with work to threads until stopped."""
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="operation") as pool:
            while not self._stopping.is_set():
                self._wake.wait(_INTERVAL_SECONDS)
                self._wake.clear()
                if self._must_end():
                    continue
                try:
                    with self._run.db.engine() as conn:
                        tenants = tenants_with_work(conn)
                except UnavailableError as error:
                    _log.warning("operations postponed", error=error.message)
                    continue
                for tenant_id in tenants:
                    with self._lock:
                        if tenant_id in self._busy:
                            continue
                        self._busy.add(tenant_id)
                    pool.submit(self._work, tenant_id)
        for operation_id in list(self._watchers):
            self._tell(operation_id, _gone_on_without(operation_id))

    def _work(self, tenant_id: int) -> None:
        """Run a tenant's operations, one after the other."""
        try:
            while not self._must_end() and (operation := claim(self._run, tenant_id, _now())) is not None:
                _log.info("operation runs", operation=operation.operation_id, done=operation.done_count)
                try:
                    for made in self._made(tenant_id, operation):
                        self._tell(operation.operation_id, made)
                except Exception:
                    self._tell(operation.operation_id, _gone_on_without(operation.operation_id))
                    raise
        except AmmeterError as error:
            _log.warning("operation postponed", tenant=tenant_id, error=error.message)
        except Exception:  # noqa: BLE001 - the next look may succeed
            _log.exception("operation failed", tenant=tenant_id)
        else:
            self._wake.set()  # one may have come while the last one ended
        finally:
            with self._lock:
                self._busy.discard(tenant_id)

    def _made(self, tenant_id: int, operation: Operation) -> Iterator[Made]:
        with self._lock:
            is_watched = operation.operation_id in self._watchers
        return run_operation(self._run, tenant_id, operation, _now, self._must_end, whole=is_watched)

    def _tell(self, operation_id: str, what: Made | AmmeterError) -> None:
        with self._lock:
            watcher = self._watchers.get(operation_id)
        if watcher is None:
            return
        try:
            watcher.put(what, timeout=_PATIENCE_SECONDS)
        except queue.Full:
            with self._lock:
                self._watchers.pop(operation_id, None)
            watcher.get_nowait()  # room for the last word
            watcher.put(_gone_on_without(operation_id))

    def _must_end(self) -> bool:
        return self._stopping.is_set() or self._is_silent()


def _heard(watcher: _Watcher) -> Iterator[Made]:
    while True:
        heard = watcher.get()
        if isinstance(heard, AmmeterError):
            raise heard
        yield heard
        if heard.invoice is None:
            return


def _gone_on_without(operation_id: str) -> UnavailableError:
    return UnavailableError(
        f"operation {operation_id} goes on unseen: ask GetOperation", reason="NOT_SERVING"
    )
