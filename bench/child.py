"""A process of its own that is told what to do: the load generator, and what else must not share a GIL."""

import multiprocessing
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Protocol, Self

import psutil


class Work(Protocol):
    """What runs in the child: its methods are called by name."""


class Child:
    """Runs one object in a process of its own; `ask` calls its methods and waits."""

    def __init__(self, make: type[Work]) -> None:
        """Start the process and make the object there."""
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_run, args=(make, other), daemon=True)
        self._process.start()
        other.close()
        self._known = psutil.Process(self._process.pid)

    def ask(self, method: str, *arguments: object) -> Any:  # noqa: ANN401 - whatever the method gives
        """Call a method in the child; raises what it raises."""
        self.begin(method, *arguments)
        return self.result()

    def begin(self, method: str, *arguments: object) -> None:
        """Call a method and do not wait."""
        self._pipe.send((method, arguments))

    def result(self) -> Any:  # noqa: ANN401 - whatever the method gave
        """Wait for what `begin` began."""
        failed, found = self._pipe.recv()
        if failed:
            raise RuntimeError(found)
        return found

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._known.pid

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the process."""
        self._process.terminate()
        self._process.join()


def _run(make: type[Work], pipe: Connection) -> None:
    import traceback  # noqa: PLC0415 - only the child needs it

    work = make()
    while True:
        try:
            method, arguments = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send((False, getattr(work, method)(*arguments)))
        except Exception:  # noqa: BLE001 - the parent hears of it, whatever it is
            pipe.send((True, traceback.format_exc()))
