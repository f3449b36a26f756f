"""Notice that this process stood still, before it answers from a memory that may be stale."""

import time

from ammeter.errors import UnavailableError

# Longer than any pause of the interpreter; shorter than a pause in which
# another process could take our place and go far.
MAX_SILENCE_SECONDS = 1.0


class Pulse:
    """Beaten by a worker while it is sure that this process has not stood still.

    A process that was stopped (SIGSTOP, a frozen machine) may have been
    replaced meanwhile. When it wakes up, the last beat is old, so it refuses
    to answer until the worker has asked the database who the writer is.
    """

    def __init__(self) -> None:
        """Start beaten."""
        self._last = time.monotonic()

    def beat(self) -> None:
        """Say that all is well now."""
        self._last = time.monotonic()

    def silent(self) -> bool:
        """Whether the last beat is too long ago."""
        return time.monotonic() - self._last > MAX_SILENCE_SECONDS

    def require(self) -> None:
        """Raise UnavailableError (NOT_SERVING) while silent."""
        if self.silent():
            message = "this server stood still and asks whether it is still the writer: try again"
            raise UnavailableError(message, reason="NOT_SERVING", retry_seconds=0.2)
