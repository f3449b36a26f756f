"""Makes packs of small segments now and then."""

import threading
import time

import structlog

from ammeter import metrics
from ammeter.errors import UnavailableError
from ammeter.store.db import Database
from ammeter.usecases.pack import OldVersionError, Packer

_log = structlog.get_logger()


class PackWorker(threading.Thread):
    """Looks for small rows every so many seconds; one that is killed leaves the rows as they were."""

    def __init__(self, db: Database, epoch: int, interval_seconds: float) -> None:
        """`interval_seconds` lie between two looks; 0: never look."""
        super().__init__(name="pack", daemon=True)
        self._packer = Packer(db, epoch)
        self._interval = interval_seconds
        self._stopping = threading.Event()

    def stop(self) -> None:
        """End after the pack in hand."""
        self._stopping.set()
        if self.is_alive():
            self.join()

    def run(self) -> None:
        """Pack until stopped."""
        while self._interval and not self._stopping.wait(self._interval):
            try:
                self._try()
            except OldVersionError:
                _log.warning("segments are packed when no version that knows no packs runs any more")
            except UnavailableError as error:
                _log.warning("packing postponed", error=error.message)
            except Exception:  # noqa: BLE001 - the next look may succeed
                _log.exception("packing failed")

    def _try(self) -> None:
        known = len(self._packer.refused)
        started = time.monotonic()
        with metrics.PACK_SECONDS.time():
            gone = self._packer.pack(self._stopping)
        metrics.PACKED_ROWS.inc(gone)
        metrics.UNPACKABLE_TENANTS.set(len(self._packer.refused))
        if gone:
            _log.info("packed small segments", rows_less=gone, seconds=round(time.monotonic() - started, 3))
        for tenant_id, why in list(self._packer.refused.items())[known:]:
            _log.error(
                "segments do not verify and are not packed: run `ammeter verify`",
                tenant_id=tenant_id,
                why=why,
            )
