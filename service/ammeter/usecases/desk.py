"""Where decisions about reservations wait: to be made, to be durable, to be answered.

Whoever waits shares: one query looks up what was asked meanwhile, and one
commit, that of the events, makes durable what was decided meanwhile. There is
no timer in it.
"""

import asyncio
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import inf
from typing import NamedTuple

from ammeter import metrics
from ammeter.domain.book import Change, Entry, Now
from ammeter.domain.reservation import Reservation
from ammeter.errors import AlreadyExistsError, ExhaustedError, UnavailableError
from ammeter.store import reservations as store
from ammeter.store.db import Database
from ammeter.store.requests import Answered
from ammeter.store.reservations import Answer
from ammeter.usecases.check import BehindError, renew
from ammeter.usecases.engine import SealedGroup, public
from ammeter.usecases.live import Live
from ammeter.usecases.record import PATIENCE_SECONDS, Intake

_MAX_WAITING = 20_000
_RENEWALS = 2
_AWAY = "the database does not answer, nothing was promised: ask again with the same request_id"

Name = tuple[int, str]


class Once(NamedTuple):
    """What makes a call safe to repeat: its request_id, and what it was used for."""

    request_id: str
    method: str
    content_digest: bytes


class Made(NamedTuple):
    """A decision: what changes, the group whose events belong to it (0: none), its answer at a position."""

    change: Change
    group: int
    answer: Callable[[int], bytes]


# Decides, on the event loop and without waiting: what changes, or an answer that changes nothing.
Decide = Callable[[Entry | None], Made | bytes]


@dataclass(slots=True, eq=False)
class Waiting:
    """A decision on its way to the database; `swap_position` is of the usage that takes its place."""

    made: Made
    tenant_id: int
    once: Once | None
    done: asyncio.Future[bytes]
    response: bytes = b""
    swap_position: int | None = None


@dataclass(slots=True, eq=False)
class _Question:
    """What a call needs to know from the database; the future gives the first answer, and the entry."""

    once: Name | None
    reservation: Name | None
    answered: "asyncio.Future[tuple[Answered | None, Entry | None]]"


class Desk:
    """Between the RPCs and the commit worker.

    `take`, `begin_swaps`, `committed` and `stop` are the commit worker's; all
    others belong to the event loop's thread.
    """

    def __init__(
        self,
        db: Database,
        live: Live,
        intake: Intake,
        loop: asyncio.AbstractEventLoop,
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        """Start open; `wake` tells the commit worker that there is something to commit."""
        self.book = live.book
        self._db = db
        self._live = live
        self._intake = intake
        self._loop = loop
        self._wake = wake
        # Events and the decision that they belong to are let in together, so
        # that a sealed group never has the one without the other.
        self._door = threading.Lock()
        self._waiting: list[Waiting] = []
        self._sealed = 0
        self._unfinished = 0
        self._calls: dict[Name, tuple[Once, asyncio.Task[bytes]]] = {}
        self._busy: dict[Name, asyncio.Future[bytes]] = {}
        self._questions: list[_Question] = []
        self._looking: asyncio.Task[None] | None = None
        self._finished: set[Name] = set()
        self._stalled = False
        self._stopped: str | None = None
        self._last_commit = 0.0
        self._alarm: tuple[float, asyncio.TimerHandle] | None = None

    def load(self, now: datetime) -> int:
        """Enter what the database says is held; before anything else, in any thread."""
        with self._db.engine() as conn:
            for stored in store.holding(conn, now):
                self.book.recover(stored, Now(now, self._loop.time()))
        self._loop.call_soon_threadsafe(self._watch_the_clock)
        return len(self.book.entries)

    def now(self, wall: datetime) -> Now:
        """Read the monotonic clock, too."""
        return Now(wall, self._loop.time())

    # Calls

    async def submit(
        self, tenant_id: int, once: Once | None, reservation_id: str | None, decide: Decide
    ) -> bytes:
        """Answer a call when what it decides is durable.

        A repeat of a request_id gets the first answer. Raises what the decision
        raises; AlreadyExistsError when the request_id was used for something
        else; UnavailableError when the outcome is not known in time: the
        decision then stands if it was made, and a repeat is told.
        """
        self._require_open()
        name = (tenant_id, once.request_id) if once else None
        if once is not None and name is not None and name in self._calls:
            first, task = self._calls[name]
            _require_same(once, first.method, first.content_digest)
            return await self._patiently(task)
        target = (tenant_id, reservation_id) if reservation_id is not None else None
        task = self._loop.create_task(self._call(tenant_id, once, target, decide))
        task.add_done_callback(_hear)
        if once is not None and name is not None:
            self._calls[name] = (once, task)
            task.add_done_callback(lambda _: self._calls.pop(name, None))
        return await self._patiently(task)

    def _require_open(self) -> None:
        if self._stopped is not None:
            raise UnavailableError(self._stopped, reason="NOT_SERVING", retry_seconds=0.5)
        self._intake.require_open()
        if self._stalled:
            raise UnavailableError(_AWAY, retry_seconds=0.5)
        if self._unfinished >= _MAX_WAITING:
            message = f"{_MAX_WAITING} reservations wait to be durable: ask again"
            raise ExhaustedError(message, retry_seconds=0.1)

    async def _patiently(self, task: asyncio.Task[bytes]) -> bytes:
        # As with events: while others' commits end the database is not gone.
        since = self._loop.time()
        while True:
            done, _ = await asyncio.wait({task}, timeout=PATIENCE_SECONDS)
            if done:
                return task.result()
            if self._loop.time() - max(since, self._last_commit) >= PATIENCE_SECONDS:
                self._stalled = self._unfinished > 0
                raise UnavailableError(_AWAY, retry_seconds=0.5)

    async def _call(self, tenant_id: int, once: Once | None, target: Name | None, decide: Decide) -> bytes:
        entries = self.book.entries
        found: Entry | None = None
        if once is not None or (target is not None and target not in entries):
            before, found = await self._look_up(tenant_id, once, target)
            if before is not None and once is not None:
                _require_same(once, before.method, before.content_digest)
                return before.response
        cause: BehindError | None = None
        for _ in range(_RENEWALS + 1):
            if cause is not None:
                await asyncio.to_thread(renew, self._live, tenant_id, cause)
            while target is not None and (busy := self._busy.get(target)) is not None:
                # What is decided on must be durable: a crash could undo it.
                await asyncio.wait({busy})
            if target is not None and found is not None:
                found = entries.setdefault(target, found)
            entry = entries.get(target) if target is not None else None
            try:
                waiting = self._decide(tenant_id, once, entry, decide)
            except BehindError as behind:
                cause = behind
                continue
            return waiting if isinstance(waiting, bytes) else await asyncio.shield(waiting.done)
        if cause is not None and cause.cause is not None:
            raise public(cause.cause)
        message = "memory follows what was committed: try again"
        raise UnavailableError(message, retry_seconds=0.1)

    def _decide(
        self, tenant_id: int, once: Once | None, entry: Entry | None, decide: Decide
    ) -> Waiting | bytes:
        if self._stopped is not None:
            raise UnavailableError(self._stopped, reason="NOT_SERVING", retry_seconds=0.5)
        self._expire()
        with self._door:
            try:
                made = decide(entry)
            finally:
                if entry is not None:
                    self.book.drop(entry)
            if isinstance(made, bytes):
                return made
            waiting = Waiting(made, tenant_id, once, self._loop.create_future())
            self._waiting.append(waiting)
        self._unfinished += 1
        self._busy[tenant_id, made.change.after.reservation_id] = waiting.done
        self._watch_the_clock()
        self._wake()
        return waiting

    # Looking up

    async def _look_up(
        self, tenant_id: int, once: Once | None, target: Name | None
    ) -> tuple[Answered | None, Entry | None]:
        """Find the first answer to a request_id, and a reservation that is not in the book."""
        name = (tenant_id, once.request_id) if once else None
        unknown = target if target not in self.book.entries else None
        question = _Question(name, unknown, self._loop.create_future())
        self._questions.append(question)
        if self._looking is None:
            self._looking = self._loop.create_task(self._look())
        return await question.answered

    async def _look(self) -> None:
        while self._questions:
            asked, self._questions = self._questions, []
            self._finished.clear()
            try:
                answers, stored = await asyncio.to_thread(self._read, asked)
            except Exception as error:  # noqa: BLE001 - whoever asked is told
                for question in asked:
                    question.answered.set_exception(error)
                continue
            entries = {name: self._enter(name, one) for name, one in stored.items()}
            for question in asked:
                if question.reservation in self._finished:
                    # It changed while it was read: read it again.
                    self._questions.append(question)
                    continue
                answer = answers.get(question.once) if question.once else None
                entry = entries.get(question.reservation) if question.reservation else None
                question.answered.set_result((answer, entry))
            # They decide before anything is looked up again.
            await asyncio.sleep(0)
        self._looking = None

    def _enter(self, name: Name, stored: Reservation) -> Entry:
        return self.book.entries.get(name) or self.book.recover(stored, self.now(_utc_now()))

    def _read(self, asked: Sequence[_Question]) -> tuple[dict[Name, Answered], dict[Name, Reservation]]:
        requests = [one.once for one in asked if one.once is not None]
        names = [one.reservation for one in asked if one.reservation is not None]
        with self._db.engine() as conn:
            answers = store.answers_to(conn, requests) if requests else {}
            found = store.named(conn, names) if names else {}
        return answers, found

    # The commit worker's

    @property
    def has_waiting(self) -> bool:
        """Whether there is something to commit."""
        return bool(self._waiting)

    def take(self, group: SealedGroup | None) -> list[Waiting]:
        """Take what belongs to the commit of a group, or to one without events."""
        with self._door:
            self._sealed = group.number if group else self._sealed
            taken = [one for one in self._waiting if one.made.group <= self._sealed]
            self._waiting = [one for one in self._waiting if one.made.group > self._sealed]
        positions = {segment.tenant: segment.position for segment in group.segments} if group else {}
        for one in taken:
            if group is not None and one.made.group == group.number:
                one.swap_position = positions.get(one.tenant_id)
            position = one.swap_position or self._live.engine.position(one.tenant_id)
            one.response = one.made.answer(position)
        return taken

    def begin_swaps(self, taken: Sequence[Waiting]) -> None:
        """Say which holds the usage takes the place of that is folded next."""
        for one in taken:
            if one.swap_position is not None:
                self.book.swap(one.made.change, one.swap_position)

    def committed(self, taken: Sequence[Waiting]) -> None:
        """Say that decisions are durable, and their usage counted."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._finish, taken)

    def stop(self, why: str) -> None:
        """Take nothing more in; whoever waits is told that the outcome is not known."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._stop, why)

    def _stop(self, why: str) -> None:
        self._stopped = why
        for future in list(self._busy.values()):
            if not future.done():
                future.set_exception(UnavailableError(why, reason="NOT_SERVING", retry_seconds=0.5))
                future.exception()

    def _finish(self, taken: Sequence[Waiting]) -> None:
        self._last_commit = self._loop.time()
        self._stalled = False
        for one in taken:
            change = one.made.change
            self.book.finish(change)
            self._unfinished -= 1
            name = (one.tenant_id, change.after.reservation_id)
            del self._busy[name]
            if self._looking is not None:
                self._finished.add(name)
            if not one.done.done():
                one.done.set_result(one.response)
        metrics.OPEN_RESERVATIONS.set(len(self.book.entries))

    # Passing time

    def _expire(self) -> None:
        if self.book.next_end <= self._loop.time():
            metrics.RESERVATIONS.labels("expired").inc(self.book.expire(self._loop.time()))

    def _watch_the_clock(self) -> None:
        """Be called when something runs out."""
        due = self.book.next_end
        if due == inf or (self._alarm is not None and self._alarm[0] <= due):
            return
        if self._alarm is not None:
            self._alarm[1].cancel()
        self._alarm = (due, self._loop.call_at(due, self._ring))

    def _ring(self) -> None:
        self._alarm = None
        self._expire()
        self._watch_the_clock()


def answers_of(taken: Sequence[Waiting]) -> list[Answer]:
    """List the answers that are to be kept."""
    return [
        Answer(
            one.tenant_id,
            one.once.request_id,
            Answered(one.once.method, one.once.content_digest, one.response),
            _utc_now(),
        )
        for one in taken
        if one.once is not None
    ]


def _utc_now() -> datetime:
    return datetime.now(UTC)


def _require_same(once: Once, method: str, digest: bytes) -> None:
    if (once.method, once.content_digest) != (method, digest):
        message = f"request_id {once.request_id!r} was used with other content: use a new one"
        raise AlreadyExistsError(message, reason="REQUEST_ID_CONFLICT", field="request_id")


def _hear(task: asyncio.Task[bytes]) -> None:
    """Take note of an error that nobody waits for any more."""
    if not task.cancelled():
        task.exception()
