"""Read all customers and their rights at the start: a shelf of columns, and counters by the column."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

from sqlalchemy.engine import Connection

from ammeter.domain.counter import counter_edges, renewal_minute
from ammeter.domain.entitlement import Kind
from ammeter.domain.minute import END, time_of
from ammeter.domain.quantity import to_scaled
from ammeter.domain.usage_period import OwnCourse
from ammeter.store import entitlements as store
from ammeter.store import memory
from ammeter.store.memory import StoredFeature, StoredRight
from ammeter.usecases.counters import CounterColumns, counts_of
from ammeter.usecases.engine import Engine
from ammeter.usecases.memory import LiveCustomer, fixed_access, live_customer
from ammeter.usecases.shelf import Right, Shelf, Template

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Customers who hold more than allowances are read as when they change, so many at a time.
_AT_ONCE = 1000


class Loaded(NamedTuple):
    """All customers: on the shelf, but for those whose grants have to be burnt down.

    `counters` are to be put, by (tenant_id, revision_id).
    """

    shelf: Shelf
    special: dict[tuple[int, int], LiveCustomer]
    counters: dict[tuple[int, int], CounterColumns]


def load(conn: Connection, engine: Engine, now: datetime) -> Loaded:
    """Read everything, as of one snapshot (engine role); the engine is told who owns what."""
    shelf = Shelf(now)
    zones = []
    for tenant_id, customer_id, customer_key, zone in memory.all_customers(conn):
        shelf.add_customer(tenant_id, customer_id, customer_key)
        zones.append(zone)
    _load_owners(conn, engine, shelf)
    reader = _Reader(shelf, memory.all_features(conn), zones, now)
    special = reader.read(memory.all_rights(conn))
    loaded = Loaded(shelf, {}, reader.counters)
    for tenant_id, several in groupby(special, key=itemgetter(0)):
        customer_ids = [customer_id for _, customer_id in several]
        for first in range(0, len(customer_ids), _AT_ONCE):
            _load_special(conn, loaded, tenant_id, customer_ids[first : first + _AT_ONCE])
    return loaded


def _load_owners(conn: Connection, engine: Engine, shelf: Shelf) -> None:
    for (tenant_id, subject), rows in groupby(memory.all_subjects(conn), key=itemgetter(0, 1)):
        spans = [row[2:] for row in rows]
        engine.set_subject(tenant_id, subject, spans)
        for customer_id in {span[2] for span in spans}:
            shelf.add_subject(tenant_id, customer_id, subject)


def _load_special(conn: Connection, loaded: Loaded, tenant_id: int, customer_ids: list[int]) -> None:
    now = loaded.shelf.read_time
    held: dict[int, list[store.Held]] = {}
    for one in store.held(conn, (tenant_id, customer_ids)):
        held.setdefault(one.entitlement.customer_id, []).append(one)
    for known in store.known_customers(conn, (tenant_id, customer_ids)):
        number = loaded.shelf.number(tenant_id, known.customer_id)
        mine = loaded.shelf.subjects(number) if number is not None else frozenset()
        counts = counts_of(held.get(known.customer_id, ()), mine, now)
        live = live_customer(known, held.get(known.customer_id, ()), mine, counts, now)
        loaded.special[tenant_id, known.customer_id] = live
        for count in counts:
            columns = loaded.counters.setdefault((tenant_id, count.revision_id), CounterColumns())
            columns.add(count.held.entitlement.counter, known.customer_id, count.held.filters, count.edges)


class _Reader:
    """Turns rows into columns: what many rows share is looked up, not made."""

    def __init__(
        self,
        shelf: Shelf,
        features: dict[tuple[int, int], StoredFeature],
        zones: list[str],
        now: datetime,
    ) -> None:
        self.counters: dict[tuple[int, int], CounterColumns] = {}
        self._shelf = shelf
        self._features = features
        self._zones = zones
        self._now = now
        self._templates: dict[tuple[object, ...], int] = {}

    def read(self, rows: Iterator[StoredRight]) -> list[tuple[int, int]]:
        """Fill the shelf; returns the (tenant_id, customer_id) of those to be read in another way."""
        special = []
        done = 0
        for (tenant_id, customer_id), several in groupby(rows, key=itemgetter(0, 1)):
            number = self._shelf.number(tenant_id, customer_id)
            if number is None:
                continue
            for _ in range(done, number):
                self._shelf.add_rights((), END)
            done = number + 1
            rights = list(several)
            if any(right.special for right in rights):
                special.append((tenant_id, customer_id))
                self._shelf.add_rights((), END)
            else:
                self._shelf.add_rights(*self._rights(rights, self._zones[number]))
        for _ in range(done, len(self._zones)):
            self._shelf.add_rights((), END)
        self._shelf.close()
        return special

    def _rights(self, stored: list[StoredRight], zone: str) -> tuple[list[Right], int]:
        """Give a customer's rights, and when its counters are to be renewed."""
        rights, renewal = [], END
        for one in stored:
            edges = self._edges(one, zone)
            if edges:
                feature = self._features[one.tenant_id, one.feature_id]
                columns = self.counters.setdefault(
                    (one.tenant_id, feature.revision_id or 0), CounterColumns()
                )
                columns.add(one.counter, one.customer_id, feature.filters, edges)
                renewal = min(renewal, renewal_minute(edges, one.to_minute, one.customer_id))
            rights.append(
                Right(self._template(one), one.counter, one.from_minute, one.to_minute, bool(edges))
            )
        return rights, renewal

    def _edges(self, one: StoredRight, zone: str) -> tuple[int, ...]:
        if one.anchor_us is None or one.cadence is None or one.kind != Kind.METERED.value:
            return ()
        if self._features[one.tenant_id, one.feature_id].revision_id is None:
            return ()
        return _edges(one.anchor_us, zone, one.cadence, one.from_minute, one.to_minute, self._now)

    def _template(self, one: StoredRight) -> int:
        """Number what a right has in common with others."""
        name = (one.tenant_id, *one[3:8])
        found = self._templates.get(name)
        if found is None:
            found = self._templates[name] = len(self._shelf.templates)
            config = None if one.config is None else json.loads(one.config)
            allowance = to_scaled(one.allowance or Decimal(0))
            key = self._features[one.tenant_id, one.feature_id].feature_key
            access = fixed_access(Kind(one.kind), config)
            self._shelf.templates.append(Template(key, access, allowance, one.soft_limit))
        return found


@lru_cache(maxsize=4096)
def _edges(
    anchor_us: int, zone: str, cadence: str, from_minute: int, to_minute: int, now: datetime
) -> tuple[int, ...]:
    """As counter_edges; the rights of a subscription have the same, and come one after the other."""
    start = time_of(from_minute)
    if start is None:
        return ()
    anchor = _EPOCH + timedelta(microseconds=anchor_us)
    return counter_edges(OwnCourse(anchor, zone, cadence, start, time_of(to_minute)), now)
