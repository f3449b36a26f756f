"""Notice when a threshold is reached, and write it down, once.

What is used counts when its commit is folded; right after that the
entitlements that it touched are looked at, and what is to be told is written
under the writer's epoch. If the process dies in between, the next writer looks
at all of them again before it serves long, and the unique key of a
notification (rule, entitlement, period) keeps it from being told twice. So
nothing is lost, and nothing doubled, whatever dies when.
"""

import heapq
import queue
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import NamedTuple

from ammeter import metrics
from ammeter.domain.minute import minute_of
from ammeter.domain.threshold import Standing, Threshold, holds
from ammeter.store import notifications as store
from ammeter.store import segments
from ammeter.store.db import Database
from ammeter.store.notifications import Fired
from ammeter.usecases.check import left_at
from ammeter.usecases.engine import EngineError
from ammeter.usecases.live import Live
from ammeter.usecases.memory import LiveCustomer, LiveEntitlement
from ammeter.usecases.missed import Missed

# A period is looked at for so long after its end, for what came in its last moment.
_GRACE_MINUTES = 60
_ROWS = 500

_Counter = tuple[int, int]


class _Place(NamedTuple):
    """Whose a counter is, and the rules about it."""

    customer_id: int
    feature_key: str
    rules: tuple[Threshold, ...]


class Herald:
    """Rules in memory, and what they told. Belongs to one thread, but for what says otherwise."""

    def __init__(self, db: Database, live: Live, epoch: int) -> None:
        """Know nothing yet: begin() comes first."""
        self._db = db
        self._live = live
        self._epoch = epoch
        self._rules: dict[int, list[Threshold]] = {}
        self._places: dict[_Counter, _Place] = {}
        self._told: set[tuple[str, int, int]] = set()
        self._due: list[tuple[int, int, int]] = []
        self._again: set[_Counter] = set()
        self._missed = Missed(db, live.engine, _GRACE_MINUTES)
        self._changed: queue.SimpleQueue[tuple[int, int] | None] = queue.SimpleQueue()

    @property
    def is_idle(self) -> bool:
        """Whether there is no rule, and no word of one."""
        return not self._rules and self._changed.empty()

    def rules_changed(self) -> None:
        """Say that rules were made or deleted; from any thread."""
        self._changed.put(None)

    def customer_changed(self, tenant_id: int, customer_id: int) -> None:
        """Say that memory was told of a customer anew; from any thread."""
        self._changed.put((tenant_id, customer_id))

    def begin(self, now: datetime) -> None:
        """Read the rules, and what was told of periods that may still be looked at."""
        with self._db.engine() as conn:
            self._told = store.told_since(conn, minute_of(now) - _GRACE_MINUTES)
        self._reload()
        self._missed.begin(self._rules, now)

    def look(self, touched: Iterable[tuple[int, list[int]]], now: datetime) -> set[int]:
        """Look at what changed, by usage, by hand or by time; returns the tenants to whom something was told.

        Raises AmmeterError when the database does not answer: nothing is forgotten, look again.
        """
        self._again.update((tenant_id, counter) for tenant_id, several in touched for counter in several)
        self._follow()
        minute = minute_of(now)
        while self._due and self._due[0][0] <= minute:
            _, tenant_id, counter = heapq.heappop(self._due)
            self._again.add((tenant_id, counter))
        fired: dict[int, list[Fired]] = {}
        for tenant_id, counter in self._again:
            for one in self._look_at(tenant_id, counter, minute):
                fired.setdefault(tenant_id, []).append(one)
        for tenant_id, several in fired.items():
            self._tell(tenant_id, several, now)
        self._again.clear()
        missed = self._missed.look(self._rules)
        if missed is not None:
            tenant_id, several = missed
            if several and self._tell(tenant_id, several, now):
                fired.setdefault(tenant_id, several)
            self._missed.found()
        return set(fired)

    def _follow(self) -> None:
        customers: set[tuple[int, int]] = set()
        reload = False
        while not self._changed.empty():
            change = self._changed.get()
            if change is None:
                reload = True
            else:
                customers.add(change)
        if reload:
            self._reload()
            return
        for tenant_id, customer_id in customers:
            live = self._live.by_id.get((tenant_id, customer_id))
            if live is not None and tenant_id in self._rules:
                self._watch(tenant_id, self._place(tenant_id, live))

    def _reload(self) -> None:
        with self._db.engine() as conn:
            rules = store.all_thresholds(conn)
        self._rules, self._places = rules, {}
        counters: dict[int, list[int]] = {}
        for (tenant_id, _), live in self._live.by_id.everyone(rules):
            counters.setdefault(tenant_id, []).extend(self._place(tenant_id, live))
        for tenant_id, several in counters.items():
            self._watch(tenant_id, several)

    def _watch(self, tenant_id: int, counters: list[int]) -> None:
        self._live.engine.watch_counters(tenant_id, counters, watched=True)
        self._again.update((tenant_id, counter) for counter in counters)

    def _place(self, tenant_id: int, live: LiveCustomer) -> list[int]:
        """Note which rules are about a customer's entitlements; returns their counters."""
        mine = [one for one in self._rules[tenant_id] if one.customer_key in {"", live.customer_key}]
        found = []
        for feature_key, several in live.entitlements.items() if mine else ():
            rules = tuple(one for one in mine if one.feature_key in {"", feature_key})
            for one in several if rules else ():
                if one.access is None:
                    self._places[tenant_id, one.counter] = _Place(live.customer_id, feature_key, rules)
                    found.append(one.counter)
        return found

    def _look_at(self, tenant_id: int, counter: int, minute: int) -> Iterator[Fired]:
        place = self._places.get((tenant_id, counter))
        live = place and self._live.by_id.get((tenant_id, place.customer_id))
        if not place or not live:
            return
        several = live.entitlements.get(place.feature_key, ())
        one = next((one for one in several if one.counter == counter), None)
        if one is None or minute >= one.to_minute + _GRACE_MINUTES:
            return
        for standing in self._standings(tenant_id, one, minute):
            for rule in place.rules:
                key = (rule.threshold_id, counter, standing.start_minute)
                if key not in self._told and holds(rule, standing, minute_of(rule.create_time)):
                    yield Fired(tenant_id, counter, rule, standing)

    def _standings(self, tenant_id: int, one: LiveEntitlement, minute: int) -> Iterator[Standing]:
        """Give how an entitlement stands in its present period, after how it ended the one before."""
        if minute < one.from_minute:
            heapq.heappush(self._due, (one.from_minute, tenant_id, one.counter))
            return
        try:
            present = self._standing(tenant_id, one, min(minute, one.to_minute - 1))
            if minute < one.to_minute:
                changes = one.burn.memo.span.end_minute if one.burn and one.burn.memo else present.end_minute
                heapq.heappush(self._due, (min(changes, present.end_minute), tenant_id, one.counter))
            if present.is_further and minute - present.start_minute < _GRACE_MINUTES:
                yield self._standing(tenant_id, one, present.start_minute - 1)
            yield present
        except EngineError:
            # Its counter is being put anew, and is told of when it is there.
            return

    def _standing(self, tenant_id: int, one: LiveEntitlement, minute: int) -> Standing:
        left, usage, (start, end) = left_at(self._live.engine, tenant_id, one, minute)
        return Standing(left, usage, start, end, start > one.from_minute)

    def _tell(self, tenant_id: int, fired: list[Fired], now: datetime) -> int:
        """Write what was not told before; returns how many."""
        told = 0
        for first in range(0, len(fired), _ROWS):
            some = fired[first : first + _ROWS]
            with self._db.engine() as conn:
                if not segments.require_epoch(conn, self._epoch):
                    return told
                count = store.tell(conn, tenant_id, some, now)
            told += count
            metrics.NOTIFICATIONS.inc(count)
            self._told.update((one.rule.threshold_id, one.counter, one.standing.start_minute) for one in some)
        return told
