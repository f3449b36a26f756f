"""Take events in, and answer when they are durable."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ammeter import metrics
from ammeter.errors import AmmeterError, UnavailableError
from ammeter.usecases.engine import Engine, EngineError, Receipt, public

_ACCEPTED = metrics.EVENTS.labels("accepted")
_DUPLICATE = metrics.EVENTS.labels("duplicate")
_CONFLICT = metrics.EVENTS.labels("conflict")
_REJECTED = metrics.EVENTS.labels("rejected")

# How long a request waits, and no commit ends, before it is told to come again.
PATIENCE_SECONDS = 1.0

_AWAY = "the database does not answer, nothing was acknowledged: send the same events again"


class Intake:
    """Between the RPCs, which wait, and the commit worker, which makes durable.

    All methods but `committed` and `stop` belong to the event loop's thread;
    those two may be called from any.
    """

    def __init__(
        self,
        engine: Engine,
        loop: asyncio.AbstractEventLoop,
        on_fatal: Callable[[Exception], None],
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        """Start open.

        `on_fatal` is called when a file of identities is damaged: a new engine
        is needed. `wake` tells the commit worker that there is something to commit.
        """
        self._on_fatal = on_fatal
        self._engine = engine
        self._wake = wake
        self._loop = loop
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._durable = 0
        self._last_commit = 0.0
        # Makes a new one each time: an exception raised again and again keeps
        # the frames of all who met it, and what they were sent.
        self._refusal: Callable[[], AmmeterError] | None = None

    async def admit(self, tenant_id: int, body: bytes) -> Receipt:
        """Judge the events of a request; raises what the caller may see."""
        self.require_open()
        with self._told():
            receipt = self._engine.try_admit(tenant_id, body, _now_us())
            if receipt is None:
                # An identity may be in a file: nobody else waits for the disk.
                receipt = await asyncio.to_thread(self._engine.admit, tenant_id, body, _now_us())
        return self._taken(receipt)

    def admit_now(self, tenant_id: int, body: bytes) -> Receipt:
        """As `admit`, with nothing in between; for the few events that settle a reservation."""
        self.require_open()
        with self._told():
            receipt = self._engine.admit(tenant_id, body, _now_us())
        return self._taken(receipt)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Turn the core's errors into those that the caller may see."""
        try:
            yield
        except EngineError as error:
            if error.reason == "DAMAGED_RUN":
                self._on_fatal(error)
            raise public(error) from error

    def _taken(self, receipt: Receipt) -> Receipt:
        _count(receipt)
        if receipt.group > self._durable:
            self._wake()
        return receipt

    def durable(self, receipt: Receipt) -> asyncio.Future[None] | None:
        """Give what to wait for before answering; None when nothing is left to wait for.

        The future belongs to all requests of the group: shield it.
        """
        if receipt.group <= self._durable:
            return None
        future = self._waiting.get(receipt.group)
        if future is None:
            future = self._waiting[receipt.group] = self._loop.create_future()
            self._loop.call_later(PATIENCE_SECONDS, self._give_up, receipt.group)
        return future

    def _give_up(self, group: int) -> None:
        # Whether the database is gone, stopped or just slow: what is not
        # durable in time is not acknowledged, and no more is taken in until
        # it is. The events may become durable all the same; a retry then
        # finds duplicates. While others' commits end it is not gone: a group
        # that waits for the one before has its time from then on.
        if group in self._waiting:
            left = self._last_commit + PATIENCE_SECONDS - self._loop.time()
            if left > 0:
                self._loop.call_later(left, self._give_up, group)
                return
            self._refuse(lambda: UnavailableError(_AWAY, retry_seconds=0.5))

    def require_open(self) -> None:
        """Raise what a caller is told while nothing is taken in."""
        if self._refusal is not None:
            raise self._refusal()

    def answer(self, tenant_id: int, receipt: Receipt) -> bytes:
        """Encode the response; only after what `durable` gave is done."""
        return receipt.encode(self._engine.position(tenant_id))

    def position(self, tenant_id: int) -> int:
        """Give the position that checks and queries reflect."""
        return self._engine.position(tenant_id)

    def committed(self, group: int) -> None:
        """Say that a group is durable and folded; whoever was refused may come again."""
        self._call(self._release, group)

    def stop(self, why: str) -> None:
        """Take nothing more in: this writer is done for."""
        self._call(self._refuse, lambda: UnavailableError(why, reason="NOT_SERVING", retry_seconds=0.5))

    def _call(self, action: Callable[..., None], argument: object) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(action, argument)

    def _release(self, group: int) -> None:
        self._durable = group
        self._last_commit = self._loop.time()
        self._refusal = None
        for number in [number for number in self._waiting if number <= group]:
            self._waiting.pop(number).set_result(None)

    def _refuse(self, refusal: Callable[[], AmmeterError]) -> None:
        self._refusal = refusal
        for future in self._waiting.values():
            future.set_exception(refusal())
            # Nobody may be waiting any more; that is no fault.
            future.exception()
        self._waiting.clear()


def _now_us() -> int:
    return time.time_ns() // 1000


def _count(receipt: Receipt) -> None:
    _ACCEPTED.inc(receipt.accepted)
    if receipt.duplicates:
        _DUPLICATE.inc(receipt.duplicates)
    if receipt.conflicts:
        _CONFLICT.inc(receipt.conflicts)
    if receipt.rejected:
        _REJECTED.inc(receipt.rejected)
        for reason, count in receipt.rejections:
            metrics.REJECTIONS.labels(reason).inc(count)
