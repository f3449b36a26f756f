"""Streams that stay open: ended from outside when the server drains, or their caller is welcome no more."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from ammeter.domain.key import Caller
from ammeter.errors import AmmeterError, RetryableError, UnavailableError

Authenticate = Callable[[], Awaitable[Caller]]

# Less than a key's revocation may take to be noticed.
_REAUTHENTICATE_SECONDS = 4.0


class Streams:
    """The open streams of one writer. Belongs to the event loop's thread."""

    def __init__(self) -> None:
        """Start with none."""
        # Why each is to end; None while it is not.
        self._open: dict[asyncio.Task[object], AmmeterError | None] = {}

    def drain(self) -> None:
        """End all of them with UNAVAILABLE: their callers open new ones elsewhere."""
        for task in list(self._open):
            message = "the server is stopping: open a new stream"
            self._end(task, UnavailableError(message, reason="NOT_SERVING", retry_seconds=0.2))

    def _end(self, task: "asyncio.Task[object]", why: AmmeterError) -> None:
        if self._open.get(task, why) is None:
            self._open[task] = why
            task.cancel()

    @asynccontextmanager
    async def open(self, authenticate: Authenticate) -> AsyncIterator[Caller]:
        """Run a stream inside: yields its caller; raises why it has to end."""
        caller = await authenticate()
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - there is one wherever something awaits
        self._open[task] = None
        guard = asyncio.create_task(self._guard(task, authenticate))
        try:
            yield caller
        except asyncio.CancelledError:
            why = self._open[task]
            if why is None:  # the client went away
                raise
            task.uncancel()
            raise why from None
        finally:
            del self._open[task]
            guard.cancel()

    async def _guard(self, task: "asyncio.Task[object]", authenticate: Authenticate) -> None:
        """End a stream, which may be idle, when its caller is not welcome any more."""
        while True:
            await asyncio.sleep(_REAUTHENTICATE_SECONDS)
            try:
                await authenticate()
            except RetryableError:
                continue
            except AmmeterError as error:
                self._end(task, error)
                return
