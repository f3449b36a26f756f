"""Leases of a gateway: decide locally, settle and renew in the background.

    with Client("127.0.0.1:7117") as client, Leases(client, amount=5000) as leases:
        lease = leases.of("acme", "input-tokens")
        take = lease.take(1200)
        if take.allowed:
            ...                                   # the work
            lease.done(take, used=1130, events=[event])

A `take` that the lease covers asks nobody. One that it does not cover asks the
server and waits, briefly; without an answer the feature's fail mode decides.
Usage goes with the next renewal as its events, or is recorded beforehand by
whoever calls `done` without events.
"""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Self

import structlog

from ammeter.client import Client
from ammeter.client.lease import Amount, Backlog, Lease, Policy, Take
from ammeter.domain.lease import Verdict
from ammeter.domain.quantity import to_scaled

__all__ = ["Lease", "Leases", "Take", "Verdict"]

_THREADS = 8
# How often a lifetime is looked at.
_LOOKS = 10

_log = structlog.get_logger()


class Leases:
    """All leases of one gateway. `amount` is what each is topped up to."""

    def __init__(
        self,
        client: Client,
        *,
        amount: Amount,
        lifetime_seconds: float = 10.0,
        wait_seconds: float = 1.0,
        say_no_seconds: float = 0.2,
        max_unsent_events: int = 100_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start the thread that renews; `clock` must never jump.

        While more events than `max_unsent_events` wait for the server, nothing may be taken.
        """
        scaled = to_scaled(Decimal(amount))
        self._client = client
        self._policy = Policy(scaled, lifetime_seconds, wait_seconds, say_no_seconds, clock)
        self._backlog = Backlog(max_unsent_events)
        self._leases: dict[tuple[str, str], Lease] = {}
        self._lock = threading.Lock()
        self._work = threading.Event()
        self._stopping = False
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="lease")
        self._busy: set[Lease] = set()
        self._thread = threading.Thread(target=self._run, name="leases", daemon=True)
        self._thread.start()

    def of(self, customer_key: str, feature_key: str) -> Lease:
        """Give the lease of a customer on a feature; keep it, rather than ask for it at every take."""
        who = (customer_key, feature_key)
        found = self._leases.get(who)
        if found is None:
            with self._lock:
                made = Lease(self._client, who, self._policy, self._backlog, self._work.set)
                found = self._leases.setdefault(who, made)
        return found

    @property
    def unsent_events(self) -> int:
        """How many events the server does not have yet."""
        return self._backlog.count

    def close(self) -> None:
        """Settle every lease, as far as the server answers, and end the threads."""
        self._stopping = True
        self._work.set()
        self._thread.join()
        ends = [self._pool.submit(lease.exchange, end=True) for lease in list(self._leases.values())]
        for each in ends:
            each.result()
        self._pool.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self) -> None:
        while not self._stopping:
            self._work.wait(self._policy.lifetime / _LOOKS)
            self._work.clear()
            now = self._policy.clock()
            for lease in list(self._leases.values()):
                if lease not in self._busy and lease.is_due(now) and not self._stopping:
                    self._busy.add(lease)
                    self._pool.submit(self._renew, lease)

    def _renew(self, lease: Lease) -> None:
        try:
            lease.exchange()
        except Exception:  # noqa: BLE001 - the next look tries again
            _log.exception("a lease was not renewed")
        finally:
            self._busy.discard(lease)
