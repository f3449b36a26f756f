"""Makes invoices in processes of their own, so that the server's interpreter is left to calls.

A process is started when there is work for it, and ends when there was none
for a while. One that dies is replaced, and its order is begun again: what it
had committed is there, so nothing is made twice.
"""

import os
import queue
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection

import structlog

from ammeter.config import Settings
from ammeter.errors import AmmeterError, InternalError
from ammeter.usecases.billing import Billing
from ammeter.usecases.measure import Columns, Survey
from ammeter.usecases.orders import Order, Round
from ammeter.usecases.query import Form
from ammeter.workers.hand import Said, Setting

# Rounds that may wait to be read; then the process waits, too.
_BEHIND = 2
# Processes on more than one core.
_USUAL = 2
_IDLE_SECONDS = 60.0
_TRIES = 3
_END_SECONDS = 5.0
_POLL_SECONDS = 0.1

# Not forked: the server has threads.
_MAIN = "from ammeter.workers.hand import main; main()"

_log = structlog.get_logger()


class _Begun:
    """An order in the crew's hands."""

    def __init__(self, order: Order, must_end: Callable[[], bool]) -> None:
        self.order = order
        self.is_done = False
        self._must_end = must_end
        self._is_abandoned = threading.Event()
        # None: that was all.
        self._told: queue.Queue[Round | Exception | None] = queue.Queue(_BEHIND)

    def rounds(self) -> Iterator[Round]:
        try:
            while (told := self._told.get()) is not None:
                if isinstance(told, Exception):
                    raise told
                yield told
        finally:
            self.abandon()

    def abandon(self) -> None:
        self._is_abandoned.set()

    def must_end(self) -> bool:
        """Whether no further round is wanted."""
        return self._is_abandoned.is_set() or self._must_end()

    def tell(self, what: Round | Exception | None) -> None:
        """Let it be read, and wait while whoever reads is behind."""
        while not self._is_abandoned.is_set():
            with suppress(queue.Full):
                self._told.put(what, timeout=_POLL_SECONDS)
                return


class _Process:
    """A process that was started, and the connection to it."""

    def __init__(self, setting: Setting) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            number = theirs.fileno()
            arguments = [sys.executable, "-P", "-c", _MAIN, str(number)]
            self._child = subprocess.Popen(arguments, pass_fds=(number,), stdin=subprocess.DEVNULL)  # noqa: S603
        self.connection = Connection(ours.detach())
        self.connection.send(setting)

    def end(self) -> None:
        """Close the connection, which ends it."""
        self.connection.close()
        try:
            self._child.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()


class Crew:
    """`count` processes at most, each with a thread that talks to it."""

    def __init__(
        self,
        count: int,
        run: Billing,
        survey: Survey,
        setting: Setting,
        idle_seconds: float = _IDLE_SECONDS,
    ) -> None:
        """Start nothing yet."""
        self.count = count
        self._setting = setting
        self._survey = survey
        self._tally = run.tally
        self._idle_seconds = idle_seconds
        self._orders: queue.SimpleQueue[_Begun | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []

    def put_to(self, run: Billing) -> Billing:
        """Have it carry out the orders of billing; without processes, whoever gives them does."""
        return replace(run, hands=self if self.count else None)

    def begin(self, order: Order, must_end: Callable[[], bool]) -> _Begun:
        """Put an order behind those that wait."""
        begun = _Begun(order, must_end)
        self._orders.put(begun)
        with self._lock:
            if len(self._threads) < self.count:
                thread = threading.Thread(target=self._work, name="billing hand", daemon=True)
                self._threads.append(thread)
                thread.start()
        return begun

    def stop(self) -> None:
        """End the processes; call it when nobody begins orders any more."""
        for _ in self._threads:
            self._orders.put(None)
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        process: _Process | None = None
        while True:
            try:
                begun = self._orders.get(timeout=self._idle_seconds if process else None)
            except queue.Empty:
                _end(process)
                process = None
                continue
            if begun is None:
                break
            process = self._carry_out(process, begun)
        _end(process)

    def _carry_out(self, process: _Process | None, begun: _Begun) -> _Process | None:
        """See to it that an order is carried out, by as many processes as it takes; returns the last one."""
        for _ in range(_TRIES):
            if begun.must_end():
                begun.tell(None)
                return process
            try:
                process = process or _Process(self._setting)
                begun.tell(self._follow(process.connection, begun))
            except (EOFError, OSError) as error:
                _log.warning("a billing process is gone, its chunk is begun again", error=repr(error))
                _end(process)
                process = None
            except Exception as error:  # noqa: BLE001 - whoever ordered it is told
                _log.exception("billing failed")
                begun.tell(InternalError(f"a defect, {type(error).__name__}: see the log"))
                _end(process)
                return None
            else:
                return process
        begun.tell(InternalError(f"{_TRIES} billing processes ended with the same chunk: see the log"))
        return process

    def _follow(self, connection: Connection, begun: _Begun) -> AmmeterError | None:
        """Talk to a process until it has carried an order out; returns what kept it from that."""
        connection.send(begun.order)
        while True:
            what, value = connection.recv()
            if what is Said.ASK:
                connection.send(self._answer(value))
            elif what is Said.ROUND:
                results, counts, seconds = value
                self._tally.count(counts)
                for each in seconds:
                    self._tally.time(each)
                begun.tell(results)
                goes_on = not begun.must_end()
                connection.send(goes_on)
                if not goes_on:
                    return None
            else:
                begun.is_done = what is Said.DONE
                error: AmmeterError | None = value
                return error

    def _answer(
        self, question: tuple[int, int, Sequence[Form], Sequence[tuple[int, int]]]
    ) -> Columns | AmmeterError:
        try:
            return self._survey(*question)
        except AmmeterError as error:
            return error
        except Exception as error:  # noqa: BLE001 - whoever asked is told
            _log.exception("usage could not be measured")
            return InternalError(f"a defect, {type(error).__name__}: see the log")


def crew_of(settings: Settings, run: Billing, survey: Survey) -> Crew:
    """Have as many processes as settings say, and by default as pay."""
    count = settings.billing_processes
    if count is None:
        count = _USUAL if (os.cpu_count() or 1) > 1 else 0
    url = run.db.url.render_as_string(hide_password=False)
    return Crew(count, run, survey, Setting(url, run.horizon, settings.log_level, settings.log_format))


def _end(process: _Process | None) -> None:
    if process is not None:
        process.end()
