"""Thresholds that were reached in usage periods which ended while nobody looked.

A server that comes back after a reset finds another period than the one it
left. What was used in the last moment before is told all the same, and every
reset that went by: usage is what it was when the last commit came, so each
period that ended since is replayed as its history would tell it.
"""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta

from ammeter.domain.grant import history_start, make_timeline
from ammeter.domain.history import left_of
from ammeter.domain.minute import minute_of
from ammeter.domain.threshold import Standing, Threshold, holds
from ammeter.errors import PreconditionError
from ammeter.store import entitlements as store
from ammeter.store import segments
from ammeter.store.db import Database
from ammeter.store.entitlements import Held
from ammeter.store.notifications import Fired
from ammeter.usecases.engine import Engine
from ammeter.usecases.history import replay

# As late as an event may be; what ended before is not told any more.
_FURTHEST = timedelta(days=35)
_AT_ONCE = 50


class Missed:
    """What is still to be looked at; a few customers at a time."""

    def __init__(self, db: Database, engine: Engine, grace_minutes: int) -> None:
        """Periods are looked at for `grace_minutes` after their end."""
        self._db = db
        self._engine = engine
        self._grace = grace_minutes
        self._minute = 0
        self._waiting: deque[tuple[int, int, list[int]]] = deque()

    def begin(self, rules: Mapping[int, Sequence[Threshold]], now: datetime) -> None:
        """Find whom it may concern: (tenant, from which minute on, customers)."""
        self._minute = minute_of(now)
        furthest = minute_of(now - _FURTHEST)
        with self._db.engine() as conn:
            recorded = segments.last_recorded(conn)
            for tenant_id in rules:
                last = recorded.get(tenant_id, 0) // 60_000_000
                since = max(last - self._grace, furthest)
                customers = store.metered_since(conn, tenant_id, since)
                for first in range(0, len(customers), _AT_ONCE):
                    self._waiting.append((tenant_id, since, customers[first : first + _AT_ONCE]))

    def look(self, rules: Mapping[int, Sequence[Threshold]]) -> tuple[int, list[Fired]] | None:
        """Look at the next few; returns whose they are and what they reached. `found` takes them off."""
        if not self._waiting:
            return None
        tenant_id, since, customers = self._waiting[0]
        mine = rules.get(tenant_id, ())
        with self._db.engine(snapshot=True) as conn:
            held = list(store.held(conn, (tenant_id, customers))) if mine else []
        return tenant_id, [one for each in held for one in self._reached(each, mine, since)]

    def found(self) -> None:
        """Say that what look() returned is told."""
        self._waiting.popleft()

    def _reached(self, held: Held, rules: Sequence[Threshold], since: int) -> Iterator[Fired]:
        mine = held.entitlement
        ours = [
            rule
            for rule in rules
            if rule.customer_key in {"", mine.customer_key} and rule.feature_key in {"", mine.feature_key}
        ]
        for standing in self._standings(held, since) if ours else ():
            for rule in ours:
                made = minute_of(rule.create_time)
                if made < standing.end_minute and holds(rule, standing, made):
                    yield Fired(held.tenant_id, mine.counter, rule, standing)

    def _standings(self, held: Held, since: int) -> list[Standing]:
        """Give how an entitlement stood at the end of each period that ended since."""
        terms = held.terms
        if terms is None or held.revision_id is None:
            return []
        schedule = terms.schedule
        periods = [one for one in schedule.periods(since, self._minute) if one.end_minute <= self._minute]
        start = history_start(terms, held.grants, periods[0].start_minute) if periods else None
        if start is None:
            return []
        timeline = make_timeline(terms, held.grants, start, periods[-1].end_minute)
        try:
            steps, _ = replay(self._db, self._engine, held, timeline, len(timeline.spans))
        except PreconditionError:  # its meter is being built, or its grants changed too often to be told
            return []
        ends = {span.period.start_minute: number for number, span in enumerate(timeline.spans)}
        return [
            Standing(
                left_of(timeline, steps, ends[one.start_minute], at_end=True),
                steps[ends[one.start_minute]].running,
                one.start_minute,
                one.end_minute,
                one.start_minute > schedule.start_minute,
            )
            for one in periods
        ]
