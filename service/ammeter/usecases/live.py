"""What checks need, in memory, for all tenants: kept true after every commit that changes it.

Checks read the dictionaries below on the event loop, without locks: values
are immutable, and a change puts a new value in place of the old one. Changes
come from worker threads, one at a time under one lock; each reads the
database anew, so the last one always wins.
"""

import heapq
import threading
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta

import structlog
from sqlalchemy.engine import Connection
from tenacity import retry, retry_if_exception, stop_after_attempt, wait_exponential

from ammeter.domain.book import Book
from ammeter.domain.catalog import CLOSED, FailRule
from ammeter.domain.minute import END, minute_of
from ammeter.errors import AmmeterError
from ammeter.store import customers as customer_store
from ammeter.store import entitlements as store
from ammeter.store import memory as memory_store
from ammeter.store.db import Database
from ammeter.store.entitlements import Held
from ammeter.usecases.counters import CounterColumns, counts_of, put_for_customer
from ammeter.usecases.engine import Checks, Engine, EngineError, public
from ammeter.usecases.load import load
from ammeter.usecases.memory import LiveCustomer, LiveSpan, live_customer, live_spans
from ammeter.usecases.shelf import Roster, Shelf

# How far back roll() looks for changes that memory missed; far more than a transaction lasts.
_UNSEEN = timedelta(minutes=10)

_log = structlog.get_logger()


def _overtaken(error: BaseException) -> bool:
    """Tell whether a checkpoint, or a rebuilt meter, came between the database and memory: read again."""
    return isinstance(error, EngineError) and error.reason in {"STALE_SNAPSHOT", "UNKNOWN_METER"}


read_again = retry(
    retry=retry_if_exception(_overtaken),
    stop=stop_after_attempt(10),
    wait=wait_exponential(multiplier=0.01, max=0.5),
    reraise=True,
)


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Live:
    """Customers, subjects, features and entitlements as checks see them."""

    def __init__(self, db: Database, engine: Engine, clock: Callable[[], datetime] = _utc_now) -> None:
        """Start empty: load() fills it."""
        self.engine = engine
        self._set_shelf(Shelf(clock()))
        self.features: dict[tuple[int, str], FailRule] = {}
        # What reservations hold.
        self.book = Book()
        # Questions that the core answers by itself; told of whatever may change what they are about.
        self.checks = Checks(engine)
        self.book.holders.append(self.checks.set_aside)
        # Changes that are committed and that memory could not follow yet: no check is answered before it has.
        self.behind: set[tuple[str, int, int | str]] = set()
        # Called with (tenant_id, customer_id) after memory was told of a customer anew.
        self.listeners: list[Callable[[int, int], None]] = []
        self._db = db
        self._clock = clock
        self._lock = threading.Lock()
        # (minute, tenant, customer): when counters need further periods; some entries are out of date.
        self._due: list[tuple[int, int, int]] = []

    # Whole

    def load(self) -> None:
        """Read everything; for the start, after recovery. May be repeated."""
        with self._lock:
            try:
                self._load(self._clock())
            except EngineError as error:
                raise public(error) from error

    def _load(self, now: datetime) -> None:
        with self._db.engine(snapshot=True) as conn:
            loaded = load(conn, self.engine, now)
            features = memory_store.fail_rules(conn)
        for (tenant_id, revision_id), columns in loaded.counters.items():
            self._put_columns(tenant_id, revision_id, columns)
        loaded.counters.clear()
        self._due = []
        self._set_shelf(loaded.shelf)
        self.features = features
        for (tenant_id, _), live in loaded.special.items():
            self._put(tenant_id, live)
        self.checks.forget_all()
        self.behind = set()

    def _set_shelf(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self.customers = Roster(shelf, shelf.number_of_key, lambda live: live.customer_key)
        self.by_id = Roster(shelf, shelf.number, lambda live: live.customer_id)

    @read_again
    def _put_columns(self, tenant_id: int, revision_id: int, columns: CounterColumns) -> None:
        with self._db.engine(snapshot=True) as conn:
            columns.put(conn, self.engine, tenant_id, revision_id)

    def fail_rule(self, tenant_id: int, feature_key: str) -> FailRule:
        """Say what callers do who get no answer about a feature; CLOSED if there is none."""
        return self.features.get((tenant_id, feature_key), CLOSED)

    def spans(self, tenant_id: int, subject: str) -> tuple[LiveSpan, ...]:
        """Say who owns a subject, by time; raises EngineError for an unknown tenant."""
        return tuple(map(LiveSpan._make, self.engine.spans(tenant_id, subject)))

    # After a commit

    def refresh_customer(self, tenant_id: int, customer_id: int) -> None:
        """Read a customer again and swap it in."""
        self.refresh_customers(tenant_id, [customer_id])

    def refresh_customers(self, tenant_id: int, customer_ids: Sequence[int]) -> None:
        """As refresh_customer, for all between whom a subject moved.

        Raises AmmeterError when the database does not answer; checks then wait until memory has caught up.
        """
        with self._lock:
            try:
                self._refresh(tenant_id, customer_ids)
            except BaseException as error:
                self.behind |= {("customer", tenant_id, customer_id) for customer_id in customer_ids}
                if isinstance(error, EngineError):
                    raise public(error) from error
                raise
            self.behind -= {("customer", tenant_id, customer_id) for customer_id in customer_ids}

    @read_again
    def _refresh(self, tenant_id: int, customer_ids: Sequence[int]) -> None:
        now = self._clock()
        before = [old for one in customer_ids if (old := self.by_id.get((tenant_id, one)))]
        with self._db.engine(snapshot=True) as conn:
            spans = customer_store.spans_of_customers(conn, tenant_id, customer_ids)
            subjects = {span.subject for several in spans.values() for span in several}
            self._move_subjects(conn, tenant_id, subjects.union(*(old.subjects for old in before)))
            held: dict[int, list[Held]] = {}
            for one in store.held(conn, (tenant_id, customer_ids)):
                held.setdefault(one.entitlement.customer_id, []).append(one)
            fresh = []
            for known in store.known_customers(conn, (tenant_id, customer_ids)):
                mine = frozenset(span.subject for span in spans.get(known.customer_id, ()))
                counts = counts_of(held.get(known.customer_id, ()), mine, now)
                put_for_customer(conn, self.engine, counts)
                fresh.append(live_customer(known, held.get(known.customer_id, ()), mine, counts, now))
        self._swap(tenant_id, fresh)
        self.checks.forget(tenant_id, customer_ids)
        kept = {counter for new in fresh for counter in new.counters}
        for counter in {counter for old in before for counter in old.counters} - kept:
            self.engine.drop_counter(tenant_id, counter)

    def _move_subjects(self, conn: Connection, tenant_id: int, subjects: Iterable[str]) -> None:
        """Tell the engine who owns these subjects now, where that changed."""
        wanted = sorted(subjects)
        stored = customer_store.spans_of_subjects(conn, tenant_id, wanted)
        for subject in wanted:
            spans = live_spans(stored.get(subject, ()))
            if spans != self.spans(tenant_id, subject):
                self.engine.set_subject(tenant_id, subject, spans)

    def _swap(self, tenant_id: int, fresh: Iterable[LiveCustomer]) -> None:
        for live in fresh:
            self._put(tenant_id, live)
            for listener in self.listeners:
                listener(tenant_id, live.customer_id)

    def _put(self, tenant_id: int, live: LiveCustomer) -> None:
        if live.renew_minute < END:
            heapq.heappush(self._due, (live.renew_minute, tenant_id, live.customer_id))
        self.by_id.put(tenant_id, live)
        self.customers.put(tenant_id, live)

    def refresh_feature(self, tenant_id: int, feature_key: str) -> None:
        """Learn whether a feature is there, and its fail mode: after one is created, changed or deleted."""
        what = ("feature", tenant_id, feature_key)
        with self._lock:
            try:
                with self._db.engine() as conn:
                    found = memory_store.fail_rules(conn, (tenant_id, feature_key))
            except BaseException:
                self.behind.add(what)
                raise
            if found:
                self.features |= found
            else:
                self.features.pop((tenant_id, feature_key), None)
            self.checks.forget_all()
            self.behind.discard(what)

    def refresh_meter(self, tenant_id: int, meter_id: int) -> None:
        """Count anew for whoever is metered by a meter: after another revision of it is served."""
        what = ("meter", tenant_id, meter_id)
        try:
            with self._db.engine() as conn:
                customer_ids = store.customers_metered_by(conn, tenant_id, meter_id)
            for customer_id in customer_ids:
                self.refresh_customer(tenant_id, customer_id)
        except BaseException:
            self.behind.add(what)
            raise
        self.behind.discard(what)

    # As time goes by

    def _find_unseen(self, now: datetime) -> None:
        """Refresh what changed by commits whose outcome nobody was told, because the connection broke."""
        with self._lock, self._db.engine() as conn:
            changed = store.changed_since(conn, now - _UNSEEN)
            features = memory_store.fail_rules(conn)
            if features != self.features:
                self.features = features
                self.checks.forget_all()
        for (tenant_id, customer_id), time in changed.items():
            live = self.by_id.get((tenant_id, customer_id))
            if live is None or live.read_time < time:
                self.refresh_customer(tenant_id, customer_id)

    def catch_up(self) -> None:
        """Follow the commits that memory could not follow when they happened; raises as the refreshes do."""
        for kind, tenant_id, what in list(self.behind):
            if isinstance(what, str):
                self.refresh_feature(tenant_id, what)
            elif kind == "meter":
                self.refresh_meter(tenant_id, what)
            else:
                self.refresh_customer(tenant_id, what)

    def roll(self, now: datetime) -> None:
        """Give counters whose periods run out further ones; for a worker, every few seconds."""
        self.catch_up()
        self._find_unseen(now)
        minute = minute_of(now)
        while (key := self._next_due(minute)) is not None:
            tenant_id, customer_id = key
            try:
                self.refresh_customer(tenant_id, customer_id)
            except AmmeterError as error:
                with self._lock:
                    heapq.heappush(self._due, (minute, tenant_id, customer_id))
                _log.warning("counters not renewed yet", customer_id=customer_id, error=error.message)
                return

    def _next_due(self, minute: int) -> tuple[int, int] | None:
        """Take the next customer whose counters are to be renewed by a minute; None if there is none."""
        with self._lock:
            while (name := self._shelf.next_due(minute)) is not None:
                live = self.by_id.get(name)
                if live is not None and live.renew_minute <= minute:
                    return name
            while self._due and self._due[0][0] <= minute:
                due, tenant_id, customer_id = heapq.heappop(self._due)
                live = self.by_id.get((tenant_id, customer_id))
                # It may have been renewed since, or the renewal may have failed.
                if live is not None and live.renew_minute <= max(due, minute):
                    return tenant_id, customer_id
            return None
