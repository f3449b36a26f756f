"""One lease as a gateway uses it: see leases.py."""

import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from decimal import Decimal
from math import inf
from typing import TypeAlias

import grpc
import structlog

from ammeter.client import Client, new_request_id
from ammeter.domain.catalog import FailMode
from ammeter.domain.lease import Budget, Fallback, Granted, Report, Verdict
from ammeter.domain.quantity import decimal_text, from_scaled, to_scaled
from ammeter.v1 import catalog_pb2, entitlement_pb2, usage_pb2
from ammeter.v1 import reservation_pb2 as pb

Amount: TypeAlias = int | Decimal

_SCALE = 10**12
# With fewer parts of a lifetime than this left, or of the amount, it is renewed.
_RENEW_BELOW = 0.5
_MAX_EVENTS = 1000
# A lease that so many renewals found untouched is given back.
_IDLE_RENEWALS = 2
_RETRYABLE = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.INTERNAL,
        # Somebody will have to mend the key; until then there is no answer.
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.PERMISSION_DENIED,
    }
)
_OVER = entitlement_pb2.ACCESS_REASON_ALLOWED_OVER_SOFT_LIMIT
_ABOUT_BALANCE = frozenset(
    {
        entitlement_pb2.ACCESS_REASON_ALLOWED,
        entitlement_pb2.ACCESS_REASON_LIMIT_REACHED,
        _OVER,
    }
)

_log = structlog.get_logger()


@dataclass(frozen=True)
class Policy:
    """How leases are held; amounts are scaled ints, times in seconds.

    `say_no`: how long a no of the server's is repeated without asking.
    """

    amount: int
    lifetime: float
    wait: float
    say_no: float
    clock: Callable[[], float]


class Backlog:
    """How many events a gateway keeps that the server does not have yet, and how many it may.

    Beyond that nothing more may be taken: usage that could not be told would be lost. Work in
    flight ends as it may, so there can be as many more as it says of itself.
    """

    def __init__(self, most: int) -> None:
        """Start with none."""
        self.most = most
        self.count = 0
        self.is_full = most <= 0
        self._lock = threading.Lock()

    def add(self, count: int) -> None:
        """Say that so many came, or that so many (below 0) are told."""
        with self._lock:
            self.count += count
            self.is_full = self.count >= self.most


Request: TypeAlias = (
    pb.ReserveRequest | pb.RenewLeaseRequest | pb.SettleReservationRequest | usage_pb2.RecordUsageRequest
)


@dataclass(slots=True, eq=False)
class _Asked:
    """A request, to be sent again as it is until it is answered; `sent` is when it was made."""

    request: Request
    sent: float
    report: Report | None = None


class Take:
    """The answer to a take; give it back to `done` if it was a yes."""

    __slots__ = ("_budget", "amount", "verdict")

    def __init__(self, verdict: Verdict, amount: int, budget: Budget | None) -> None:
        """Remember which lease covers it; None: none does."""
        self.verdict = verdict
        self.amount = amount
        self._budget = budget

    @property
    def allowed(self) -> bool:
        """Whether it is a yes."""
        return self.verdict.allowed


class Lease:
    """One customer's lease of one feature. Any thread may use it."""

    def __init__(
        self,
        client: Client,
        who: tuple[str, str],
        policy: Policy,
        backlog: Backlog,
        wake: Callable[[], None],
    ) -> None:
        """Hold nothing yet; `backlog` is that of the gateway."""
        self._client = client
        self._backlog = backlog
        self._who = who
        self._policy = policy
        self._wake = wake
        self._clock = policy.clock
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        self._budget = _nothing()
        self._yes = Verdict.ALLOWED
        self._events: list[usage_pb2.UsageEvent] = []
        self._queue: deque[_Asked] = deque()
        self._fallback = Fallback()
        self._wanted = 0
        # Below this much a renewal is due; -1 once that was said.
        self._low = 0
        # What the last renewal left, and how many found it untouched.
        self._full = 0
        self._idle = 0
        self._no_until = -inf
        self._failed_at = -inf

    # What callers do

    def take(self, amount: Amount = 1) -> Take:
        """Decide whether an amount may be used now; after a yes `done` has to follow."""
        scaled = amount * _SCALE if type(amount) is int else to_scaled(Decimal(amount))
        if self._backlog.is_full:
            self._wake()
            return Take(Verdict.BACKLOG_FULL, scaled, None)
        with self._lock:
            budget = self._budget
            if budget.take(scaled, self._clock()):
                if budget.free < self._low:
                    self._low = -1
                    self._wake()
                return Take(self._yes, scaled, budget)
        return self._take_slowly(scaled)

    def done(
        self, take: Take, *, used: Amount | None = None, events: Iterable[usage_pb2.UsageEvent] = ()
    ) -> None:
        """Say that what was taken is over, and how much of it was used; all of it if not said.

        The events go with the next renewal, and are kept until the server has
        them. Without, the usage must have been recorded before.
        """
        really = take.amount if used is None else to_scaled(Decimal(used))
        events = list(events)
        if events:
            self._backlog.add(len(events))
        with self._lock:
            if take._budget is self._budget:  # noqa: SLF001 - a take is ours
                self._budget.finish(take.amount, really)
            self._events.extend(events)
            if len(self._events) >= _MAX_EVENTS:
                self._wake()

    def _take_slowly(self, scaled: int) -> Take:
        """Ask the server; or say no, or what the fail mode says, where it was asked just now."""
        with self._lock:
            self._wanted = max(self._wanted, scaled)
            verdict = self._known(scaled)
        if verdict is None:
            self.exchange(needed=scaled)
            with self._lock:
                if self._budget.take(scaled, self._clock()):
                    return Take(self._yes, scaled, self._budget)
                if self._failed_at == -inf:
                    self._no_until = self._clock() + self._policy.say_no
                verdict = self._known(scaled) or Verdict.LIMIT_REACHED
        return Take(verdict, scaled, None)

    def _known(self, scaled: int) -> Verdict | None:
        """Answer by what was heard, or not heard, just now."""
        now = self._clock()
        if now < self._no_until:
            return Verdict.NOT_ALLOWED if self._fallback.barred else Verdict.LIMIT_REACHED
        if now - self._failed_at < self._policy.wait:
            return self._fallback.decide(scaled)
        return None

    # What the background does

    def is_due(self, now: float) -> bool:
        """Whether there is something to send, or to ask for."""
        with self._lock:
            if now - self._failed_at < self._policy.wait:
                return False
            if self._queue or len(self._events) >= _MAX_EVENTS:
                return True
            if not self._budget.reservation_id:
                return bool(self._events)
            late = self._budget.deadline - now < self._policy.lifetime * _RENEW_BELOW
            return late or (self._low < 0 and now >= self._no_until)

    def exchange(self, *, needed: int = 0, end: bool = False) -> None:
        """Say what was used and get more, after all that is unanswered; `end`: give everything back.

        Not if `needed` has become free meanwhile.
        """
        with self._sending:
            if not self._drain():
                return
            with self._lock:
                if not (needed and self._budget.free >= needed and self._clock() < self._budget.deadline):
                    self._compose(self._clock(), end=end)
            self._drain()

    def _drain(self) -> bool:
        """Send what waits, in order; False if the server does not answer."""
        while self._queue:
            asked = self._queue[0]
            try:
                self._deliver(asked)
            except grpc.RpcError as error:
                if error.code() in _RETRYABLE:
                    with self._lock:
                        self._failed_at = self._clock()
                    return False
                words = {"customer": self._who[0], "feature": self._who[1], "code": error.code().name}
                _log.warning("a lease was refused", **words, why=error.details())
                with self._lock:
                    self._refused(asked)
        return True

    def _compose(self, now: float, *, end: bool) -> None:
        """Queue what there is to say."""
        budget = self._budget
        events, self._events = self._events, []
        while len(events) > _MAX_EVENTS:
            # Recorded before it is taken off the lease: for a moment both count.
            self._queue.append(_Asked(usage_pb2.RecordUsageRequest(events=events[:_MAX_EVENTS]), now))
            events = events[_MAX_EVENTS:]
        if not budget.reservation_id:
            if events:
                self._queue.append(_Asked(usage_pb2.RecordUsageRequest(events=events), now))
            if not end and (self._wanted or not events):
                self._queue.append(_Asked(self._reservation(), now))
            return
        untouched = not (budget.taken or budget.done or events) and budget.free == self._full
        self._idle = self._idle + 1 if untouched else 0
        if end or self._idle > _IDLE_RENEWALS:
            self._queue.append(_Asked(self._settlement(events), now))
            return
        report = budget.report(budget.taken + max(self._policy.amount, self._wanted))
        renewal = pb.RenewLeaseRequest(
            reservation_id=report.reservation_id,
            generation=report.generation,
            used_amount=_text(report.used),
            amount=_text(report.wanted),
            lifetime_ms=round(self._policy.lifetime * 1000),
            events=events,
            request_id=new_request_id(),
        )
        self._queue.append(_Asked(renewal, now, report))

    def _reservation(self) -> pb.ReserveRequest:
        customer_key, feature_key = self._who
        return pb.ReserveRequest(
            customer_key=customer_key,
            feature_key=feature_key,
            amount=_text(max(self._policy.amount, self._wanted)),
            minimum_amount=_text(1),
            lifetime_ms=round(self._policy.lifetime * 1000),
            lease=True,
            request_id=new_request_id(),
        )

    def _settlement(self, events: Iterable[usage_pb2.UsageEvent]) -> pb.SettleReservationRequest:
        request = pb.SettleReservationRequest(
            reservation_id=self._budget.reservation_id,
            amount=_text(self._budget.done),
            events=events,
            request_id=new_request_id(),
        )
        self._budget, self._idle = _nothing(), 0
        return request

    def _deliver(self, asked: _Asked) -> None:
        request, wait = asked.request, self._policy.wait
        if isinstance(request, usage_pb2.RecordUsageRequest):
            recorded = self._client.usage.RecordUsage(request, timeout=wait)
            self._answered(recorded.results)
        elif isinstance(request, pb.ReserveRequest):
            made = self._client.reservations.Reserve(request, timeout=wait)
            self._answered(())
            with self._lock:
                self._hear(made.access)
                if made.HasField("reservation"):
                    self._budget = Budget.of(_granted(made.reservation, asked.sent, made.lifetime_ms))
                    self._begin(made.access)
                else:
                    self._no_until = self._clock() + self._policy.say_no
        elif isinstance(request, pb.RenewLeaseRequest):
            renewed = self._client.reservations.RenewLease(request, timeout=wait)
            self._answered(renewed.event_results)
            with self._lock:
                self._hear(renewed.access)
                if asked.report is not None:
                    granted = _granted(renewed.reservation, asked.sent, renewed.lifetime_ms)
                    self._budget.renewed(asked.report, granted)
                    self._begin(renewed.access)
        else:
            settled = self._client.reservations.SettleReservation(request, timeout=wait)
            self._answered(settled.event_results)

    def _answered(self, results: Iterable[usage_pb2.EventResult]) -> None:
        with self._lock:
            told = self._queue.popleft().request
            self._failed_at = -inf
        if not isinstance(told, pb.ReserveRequest):
            self._backlog.add(-len(told.events))
        for result in results:
            if result.outcome != usage_pb2.EVENT_OUTCOME_DUPLICATE:
                _log.error("usage was not recorded", id=result.id, why=result.message or "conflict")

    def _hear(self, access: entitlement_pb2.Access) -> None:
        self._wanted, self._no_until = 0, -inf
        mode = FailMode(catalog_pb2.FailMode.Name(access.fail_mode).removeprefix("FAIL_MODE_"))
        allowance = to_scaled(Decimal(access.fail_allowance)) if access.fail_allowance else 0
        self._fallback.answered(mode, allowance, barred=access.reason not in _ABOUT_BALANCE)

    def _begin(self, access: entitlement_pb2.Access) -> None:
        """Use what was granted."""
        self._yes = Verdict.ALLOWED_OVER_SOFT_LIMIT if access.reason == _OVER else Verdict.ALLOWED
        self._full = self._budget.free
        self._low = int(self._policy.amount * _RENEW_BELOW)
        if self._budget.free < self._low:
            # The balance runs short: who asks again at once gets no more.
            self._low, self._no_until = -1, self._clock() + self._policy.say_no

    def _refused(self, asked: _Asked) -> None:
        """Go on without what the server will never do; usage is not lost with a lease that is over."""
        self._queue.popleft()
        self._failed_at = -inf
        request, now = asked.request, self._clock()
        if isinstance(request, usage_pb2.RecordUsageRequest):
            self._backlog.add(-len(request.events))
        if isinstance(request, pb.RenewLeaseRequest):
            self._queue.appendleft(_Asked(self._settlement(()), now))
        elif isinstance(request, pb.ReserveRequest):
            self._no_until, self._fallback.barred = now + self._policy.say_no, True
        if isinstance(request, pb.RenewLeaseRequest | pb.SettleReservationRequest) and request.events:
            self._queue.appendleft(_Asked(usage_pb2.RecordUsageRequest(events=request.events), now))


def _text(scaled: int) -> str:
    return decimal_text(from_scaled(scaled))


def _nothing() -> Budget:
    return Budget("", 0, 0, -inf)


def _granted(mine: pb.Reservation, sent: float, lifetime_ms: int) -> Granted:
    held = to_scaled(Decimal(mine.held_amount))
    return Granted(mine.reservation_id, mine.generation, held, sent + lifetime_ms / 1000)
