"""A server, gateways and callers, a bad network and worse clocks: one schedule from a seed.

Decisions are the product's own (domain/book.py, reservation.py, lease.py);
what is simulated is everything around them: messages that are late, lost,
doubled or out of order, processes that die and stand still, wall clocks that
jump. Nothing here waits: time is a number.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from ammeter.domain.book import Book, Change, Now
from ammeter.domain.lease import Budget, Granted
from ammeter.domain.reservation import Key, Renewal, Reservation, Standing, State, Wish
from ammeter.errors import AmmeterError

KEY = Key(1, 1, "tokens")
NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
PERIOD_END = NOON + timedelta(days=3650)
LIFETIMES = (1.0, 10.0, 60.0)


class Request(NamedTuple):
    """What somebody asks the server; sent again it is the same."""

    sender: int
    request_id: str
    verb: str
    reservation_id: str = ""
    amount: int = 0
    generation: int = 0
    used: int = 0
    lifetime: float = 10.0
    lease: bool = False
    event: str = ""
    recorded: bool = False


class Answer(NamedTuple):
    """What the server says; `mine` None: nothing is granted, or an error."""

    request: Request
    mine: Reservation | None
    lasts: float
    within: bool = True
    error: str = ""


@dataclass
class Disk:
    """What survives: reservations, answers, events."""

    reservations: dict[str, Reservation] = field(default_factory=dict)
    answers: dict[str, Answer] = field(default_factory=dict)
    events: dict[str, int] = field(default_factory=dict)
    lives: int = 0


@dataclass
class Decision:
    """A change on its way to the disk; `change` None: an event alone."""

    request: Request
    change: Change | None
    answer: Answer


class Server:
    """One writer: decides in memory, writes what was decided together, then answers."""

    def __init__(self, disk: Disk, limit: int, now: Now, *, soft: bool) -> None:
        self.disk = disk
        self.book = Book()
        self.usage = sum(disk.events.values())
        self.waiting: list[Decision] = []
        self.given_up = 0
        self._limit = limit
        self._soft = soft
        self._numbers = 0
        disk.lives += 1
        for stored in disk.reservations.values():
            if stored.state is not State.HELD:
                continue
            if stored.hold_time > now.wall:
                self.book.recover(stored, now)
            elif stored.lease:
                self.given_up += stored.held

    def expire(self, now: Now) -> None:
        before = {
            entry.reservation.reservation_id: entry.counted
            for entry in self.book.entries.values()
            if entry.reservation.lease
        }
        self.book.expire(now.mono)
        there = {entry.reservation.reservation_id for entry in self.book.entries.values()}
        self.given_up += sum(counted for name, counted in before.items() if name not in there)

    def hear(self, request: Request, now: Now) -> Answer | None:
        """Decide; an answer at once only where nothing has to be written."""
        self.expire(now)
        if request.request_id in self.disk.answers:
            return self.disk.answers[request.request_id]
        if any(one.request.request_id == request.request_id for one in self.waiting):
            return None
        target = request.reservation_id
        if any(one.change is not None and one.change.after.reservation_id == target for one in self.waiting):
            return None  # one change at a time; it will be asked again
        try:
            decided = self._decide(request, now)
        except AmmeterError as error:
            return Answer(request, None, 0, error=error.reason)
        if isinstance(decided, Answer):
            return decided
        self.waiting.append(decided)
        return None

    def _decide(self, request: Request, now: Now) -> Decision | Answer:
        if request.verb == "record":
            return Decision(request, None, Answer(request, None, 0))
        standing = Standing(self._limit - self.usage, self.book.held(KEY), self._soft, PERIOD_END)
        wish = Wish(request.amount, None, timedelta(seconds=request.lifetime), request.lease)
        if request.verb == "reserve":
            self._numbers += 1
            name = f"rsv_{self.disk.lives}_{self._numbers}"
            wish = wish._replace(minimum=1)
            change = self.book.reserve(name, KEY, ("acme", ""), wish, standing, now)
            if change is None:
                return Answer(request, None, 0)
            return self._decided(request, change, now, within=change.added <= standing.free)
        entry = self.book.entries.get((KEY.tenant_id, request.reservation_id))
        if entry is None:
            entry = self.book.recover(self.disk.reservations[request.reservation_id], now)
        try:
            if request.verb == "renew":
                renewal = Renewal(
                    request.generation, request.used, wish._replace(lease=True), request.recorded
                )
                change = self.book.renew(entry, renewal, standing, now)
                return self._decided(request, change, now, within=change.added <= standing.free)
            change = self.book.settle(entry, request.used, now)
            return self._decided(request, change, now, within=True)
        finally:
            self.book.drop(entry)

    def _decided(self, request: Request, change: Change, now: Now, *, within: bool) -> Decision:
        lasts = (change.after.expire_time - now.wall).total_seconds()
        return Decision(request, change, Answer(request, change.after, lasts, within))

    def write(self) -> list[Decision]:
        """Make durable what waits, all or nothing; memory does not know yet."""
        taken, self.waiting = self.waiting, []
        for one in taken:
            if one.change is not None:
                self.disk.reservations[one.change.after.reservation_id] = one.change.after
            if one.request.event:
                self.disk.events.setdefault(one.request.event, one.request.used)
            self.disk.answers[one.request.request_id] = one.answer
        return taken

    def finish(self, taken: list[Decision]) -> list[Answer]:
        """Fold the usage, give back what was held for it, answer."""
        for one in taken:
            if one.change is not None and one.request.event:
                self.book.swap(one.change, 1)
        self.usage = sum(self.disk.events.values())
        for one in taken:
            if one.change is not None:
                self.book.finish(one.change)
        return [one.answer for one in taken]


class Holder:
    """A gateway with a lease, or a caller with a reservation, and the truth about its use.

    `used` is what it really let happen: nobody else knows.
    """

    def __init__(self, number: int, world: "World", *, lease: bool, separate: bool) -> None:
        self.number = number
        self.lease = lease
        self.separate = separate  # it records usage first, by itself
        self.used = 0
        self.used_beyond = 0
        self.used_late: list[tuple[str, int]] = []
        self._world = world
        self._names = 0
        self._forget()

    def _forget(self) -> None:
        self.budget: Budget | None = None
        self.within = True
        self.pending: tuple[Request, float, Any] | None = None
        self.work: list[int] = []
        self.records: list[tuple[Request, int]] = []

    def crash(self) -> None:
        """Lose all memory; what was used was used."""
        self._forget()

    def _request(self, verb: str, **fields: Any) -> Request:  # noqa: ANN401 - fields of Request
        self._names += 1
        return Request(self.number, f"{self.number}/{self._names}", verb, **fields)

    def step(self, rng: random.Random, now: float) -> Request | None:
        """Do something; returns what to send."""
        if self.records and rng.random() < 0.5:
            return self.records[0][0]
        what = rng.random()
        if self.budget is not None and what < 0.45:
            self._take(rng, now)
            return None
        if self.budget is not None and self.work and what < 0.65:
            return self._finish(rng)
        return self.pending[0] if self.pending is not None else self._ask(rng, now)

    def _take(self, rng: random.Random, now: float) -> None:
        assert self.budget is not None
        amount = rng.randrange(1, 4)
        if not self.budget.take(amount, now):
            return
        self.work.append(amount)
        self.used += amount
        if not self.within:
            self.used_beyond += amount
        if not self.lease:
            self.used_late.append((self.budget.reservation_id, amount))

    def _finish(self, rng: random.Random) -> Request | None:
        assert self.budget is not None
        amount = self.work.pop(rng.randrange(len(self.work)))
        if self.separate:
            request = self._request("record", used=amount)
            request = request._replace(event=request.request_id)
            self.records.append((request, amount))
            return request
        self.budget.finish(amount, amount)
        return None

    def _ask(self, rng: random.Random, now: float) -> Request:
        lifetime = rng.choice(LIFETIMES)
        if self.budget is None:
            request = self._request(
                "reserve", amount=rng.randrange(1, 8), lifetime=lifetime, lease=self.lease
            )
            self.pending = (request, now, None)
            return request
        if self.lease and rng.random() < 0.85:
            report = self.budget.report(rng.randrange(0, 8))
            request = self._request(
                "renew",
                reservation_id=report.reservation_id,
                generation=report.generation,
                used=report.used,
                amount=report.wanted,
                lifetime=lifetime,
                recorded=self.separate,
            )
            self.pending = (self._with_event(request), now, report)
            return self.pending[0]
        # It ends with what is done; work in flight and records under way have to end before.
        if self.work or self.records:
            return self.records[0][0] if self.records else self._ask_nothing(rng, now)
        self.budget.free = 0
        request = self._request("settle", reservation_id=self.budget.reservation_id, used=self.budget.done)
        self.pending = (self._with_event(request), now, None)
        return self.pending[0]

    def _ask_nothing(self, rng: random.Random, now: float) -> Request:
        assert self.budget is not None
        for amount in self.work:
            if not self.separate:
                self.budget.finish(amount, amount)
        if not self.separate:
            self.work.clear()
            return self._ask(rng, now)
        request = self._finish(rng)
        assert request is not None
        return request

    def _with_event(self, request: Request) -> Request:
        return request if self.separate or not request.used else request._replace(event=request.request_id)

    def hear(self, answer: Answer) -> None:
        """Take an answer; old ones and those of a former life are passed over."""
        for place, (record, amount) in enumerate(self.records):
            if record == answer.request:
                del self.records[place]
                if self.budget is not None:
                    self.budget.finish(amount, amount)
                return
        if self.pending is None or self.pending[0] != answer.request:
            return
        request, sent, report = self.pending
        self.pending = None
        if answer.mine is None:
            if request.verb != "reserve":
                self.crash()  # the lease is another's, or over: it begins anew
            return
        granted = Granted(
            answer.mine.reservation_id, answer.mine.generation, answer.mine.held, sent + answer.lasts
        )
        if request.verb == "reserve":
            self.budget, self.within = Budget.of(granted), answer.within
        elif request.verb == "renew" and self.budget is not None:
            self.budget.renewed(report, granted)
            self.within = answer.within and answer.mine.held > 0
        else:
            self._forget()


class World:
    """One schedule: steps at random, an invariant after each."""

    def __init__(self, seed: int, *, soft: bool = False, kinds: str = "leases") -> None:
        self.rng = random.Random(seed)  # noqa: S311 - to be repeated
        self.limit = self.rng.randrange(2, 12)
        self.soft = soft
        self.mono = 1000.0
        self.wall_offset = 0.0
        self.disk = Disk()
        self.server: Server | None = Server(self.disk, self.limit, self.now(), soft=soft)
        self.given_up = 0
        self.let_go: set[str] = set()
        self.cut_off: set[int] = set()
        self.paused: set[int] = set()
        self.messages: list[Request | Answer] = []
        self.holders = [
            Holder(
                number,
                self,
                lease=kinds == "leases" or (kinds == "mixed" and self.rng.random() < 0.5),
                separate=self.rng.random() < 0.3,
            )
            for number in range(self.rng.randrange(2, 5))
        ]

    def now(self) -> Now:
        """Both of the server's clocks."""
        return Now(NOON + timedelta(seconds=self.mono - 1000.0 + self.wall_offset), self.mono)

    def run(self, steps: int, invariant: Callable[["World"], None]) -> None:
        for _ in range(steps):
            self.step()
            invariant(self)

    def step(self) -> None:
        dice = self.rng.random()
        if dice < 0.40:
            self._act()
        elif dice < 0.78:
            self._deliver()
        elif dice < 0.93:
            self._commit()
        elif dice < 0.985:
            self._pass_time()
        else:
            self._misfortune()

    def _act(self) -> None:
        holder = self.rng.choice(self.holders)
        if holder.number in self.paused:
            return
        message = holder.step(self.rng, self.mono)
        if message is not None:
            self.messages.append(message)

    def _deliver(self) -> None:
        if not self.messages:
            return
        place = self.rng.randrange(len(self.messages))
        fate = self.rng.random()
        message = self.messages[place]
        if fate > 0.05:
            del self.messages[place]  # otherwise it will arrive once more
        whose = message.sender if isinstance(message, Request) else message.request.sender
        if fate > 0.9 or whose in self.cut_off:
            return
        if isinstance(message, Answer):
            self.holders[whose].hear(message)
        elif self.server is not None:
            answer = self.server.hear(message, self.now())
            if answer is not None:
                self.messages.append(answer)

    def _commit(self) -> None:
        if self.server is None:
            self._restart()
            return
        fate = self.rng.random()
        if fate < 0.02:
            self._die()
            return
        taken = self.server.write()
        if fate < 0.04:
            self._die()
            return
        self.messages.extend(self.server.finish(taken))

    def _die(self) -> None:
        if self.server is not None:
            self.given_up += self.server.given_up
        self.server = None

    def _restart(self) -> None:
        self.server = Server(self.disk, self.limit, self.now(), soft=self.soft)

    def _pass_time(self) -> None:
        self.mono += self.rng.choice((0.01, 0.5, 5.0, 30.0, 100.0))
        if self.server is not None:
            self.server.expire(self.now())

    def _misfortune(self) -> None:
        what = self.rng.random()
        number = self.rng.randrange(len(self.holders))
        if what < 0.2:
            self.holders[number].crash()
        elif what < 0.4:
            self.cut_off = set() if self.cut_off else {number}
        elif what < 0.6:
            self.paused = set() if self.paused else {number}
        elif what < 0.8:
            self.wall_offset += self.rng.choice((-3600.0, 3600.0, -5.0, 86_400.0, -86_400.0))
        else:
            self._die()

    # What must hold

    @property
    def all_given_up(self) -> int:
        """Amounts of leases that ran out unsettled and counted no more."""
        return self.given_up + (self.server.given_up if self.server is not None else 0)

    def used(self) -> int:
        return sum(holder.used for holder in self.holders)

    def used_within(self) -> int:
        """What was let happen as within the limit."""
        return sum(holder.used - holder.used_beyond for holder in self.holders)

    def used_after_release(self) -> int:
        """What reservations were used for that were let go before they were settled.

        Once let go is let go: a restart whose wall clock has jumped back holds
        it anew, and what was given to others meanwhile stands.
        """
        entries = self.server.book.entries if self.server is not None else {}
        counting = {name for (_, name), entry in entries.items() if entry.counted}
        late = 0
        for holder in self.holders:
            for name, amount in holder.used_late:
                stored = self.disk.reservations[name]
                in_time = stored.state is State.SETTLED and not stored.late
                if self.server is not None and not in_time and name not in counting:
                    self.let_go.add(name)
                late += amount if name in self.let_go else 0
        return late
