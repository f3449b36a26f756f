"""A process that makes invoices for a server, as workers/crew.py starts it.

It has its own interpreter and its own connection to the database; how much
was used it asks the server. It ends when the server does, whatever it is
doing: then the database takes back what was not committed.
"""

import gc
import os
import queue
import signal
import sys
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import structlog

from ammeter.domain.invoice import Invoice, Terms
from ammeter.errors import AmmeterError, InternalError
from ammeter.logs import configure_logs
from ammeter.store.db import Database
from ammeter.usecases.billing import Billing
from ammeter.usecases.generate import carry_out
from ammeter.usecases.measure import Columns, measuring
from ammeter.usecases.orders import Order, Outcome, Round
from ammeter.usecases.query import Form

_log = structlog.get_logger()


class Setting(NamedTuple):
    """What a process is told first."""

    database_url: str
    horizon: timedelta
    log_level: str
    log_format: str


class Said(Enum):
    """What a process says: a question about usage; a round was committed; the order is done, or failed."""

    ASK = "ask"
    ROUND = "round"
    DONE = "done"
    FAILED = "failed"


@dataclass
class Told:
    """What billing did since it was last told of, for the server's metrics."""

    counts: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)

    def count(self, counts: Mapping[str, int]) -> None:
        """Hear of invoices."""
        self.counts.update(counts)

    def time(self, seconds: float) -> None:
        """Hear of a transaction."""
        self.seconds.append(seconds)


class _Server:
    """The server, as its process sees it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._heard: queue.SimpleQueue[Any] = queue.SimpleQueue()
        threading.Thread(target=self._listen, name="listen", daemon=True).start()

    def _listen(self) -> None:
        try:
            while True:
                self._heard.put(self._connection.recv())
        except (EOFError, OSError):
            os._exit(0)

    def hear(self) -> Any:  # noqa: ANN401 - an order, or what answers a word of ours
        return self._heard.get()

    def say(self, what: Said, value: object) -> None:
        try:
            self._connection.send((what, value))
        except OSError:
            os._exit(0)

    def survey(
        self, tenant_id: int, revision_id: int, forms: Sequence[Form], asked: Sequence[tuple[int, int]]
    ) -> Columns:
        self.say(Said.ASK, (tenant_id, revision_id, forms, asked))
        answer: Columns | AmmeterError = self.hear()
        if isinstance(answer, AmmeterError):
            raise answer
        return answer


def main() -> None:
    """Carry out orders until the server ends."""
    # Whoever stops the server may tell all its processes: it lets its orders end first.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    server = _Server(Connection(int(sys.argv[1])))
    setting: Setting = server.hear()
    configure_logs(setting.log_level, setting.log_format)
    told = Told()
    db = Database(setting.database_url, pool_size=1)
    run = Billing(db, measuring(server.survey), setting.horizon, tally=told)
    # What a round leaves has no rings in it, so that looking for some is for between orders.
    gc.freeze()
    gc.disable()
    while True:
        order: Order = server.hear()
        _carry_out(server, run, order, told)
        gc.collect()


def _carry_out(server: _Server, run: Billing, order: Order, told: Told) -> None:
    """Tell of each round, and go on with the next one only when asked to."""
    try:
        for results in carry_out(run, order):
            server.say(Said.ROUND, (results if order.whole else _heads(results), told.counts, told.seconds))
            told.counts, told.seconds = Counter(), []
            if not server.hear():
                return
    except AmmeterError as error:
        server.say(Said.FAILED, error)
    except Exception as error:  # noqa: BLE001 - the next order may succeed
        _log.exception("billing failed")
        server.say(Said.FAILED, InternalError(f"a defect, {type(error).__name__}: see the log"))
    else:
        server.say(Said.DONE, None)


def _heads(results: Round) -> Round:
    return [(name, _head(outcome)) for name, outcome in results]


def _head(outcome: Outcome) -> Outcome:
    """Leave out what only those want to see who look on."""
    return outcome._replace(lines=(), terms=Terms()) if isinstance(outcome, Invoice) else outcome
