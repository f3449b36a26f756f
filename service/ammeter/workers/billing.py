"""Bills what is due, as the billing profiles say, expires credits and asks for more, without being asked."""

import threading
from collections.abc import Callable, Iterable
from datetime import UTC, datetime

import structlog

from ammeter.errors import UnavailableError
from ammeter.usecases.bill_due import bill_due
from ammeter.usecases.billing import Billing
from ammeter.usecases.credit_lots import expire_credits
from ammeter.usecases.top_up import check_top_ups

_log = structlog.get_logger()


class BillingWorker(threading.Thread):
    """Looks for what is due every few seconds; what a killed process left is found by the next one."""

    def __init__(
        self,
        run: Billing,
        interval_seconds: float,
        is_silent: Callable[[], bool],
        on_told: Callable[[Iterable[int]], None],
    ) -> None:
        """`interval_seconds` lie between two looks; nothing is billed while this process may be stale.

        `on_told` hears of which tenants a top-up was told.
        """
        super().__init__(name="billing", daemon=True)
        self._run = run
        self._interval = interval_seconds
        self._is_silent = is_silent
        self._on_told = on_told
        self._stopping = threading.Event()

    def stop(self) -> None:
        """End after the invoice in hand."""
        self._stopping.set()
        if self.is_alive():
            self.join()

    def run(self) -> None:
        """Bill until stopped."""
        while not self._stopping.wait(self._interval):
            try:
                done = bill_due(self._run, datetime.now(UTC), self._must_end)
                expired = expire_credits(self._run.db, datetime.now(UTC), self._must_end)
                asked = check_top_ups(self._run, datetime.now(UTC), self._must_end)
            except UnavailableError as error:
                _log.warning("billing postponed", error=error.message)
                continue
            except Exception:  # noqa: BLE001 - the next look may succeed
                _log.exception("billing failed")
                continue
            if any(done):
                _log.info("billed what was due", made=done.made, issued=done.issued)
            if asked:
                self._on_told(asked)
            if expired or asked:
                _log.info("looked at credits", expired=expired, top_ups_needed=asked.total())

    def _must_end(self) -> bool:
        return self._stopping.is_set() or self._is_silent()
