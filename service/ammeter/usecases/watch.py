"""Tell watchers which answers to checks may have changed. On the event loop, but for what says otherwise.

Nothing is queued for a watcher but the names of what may have changed, each
once: one that does not read costs no more than the set it asked for.
"""

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from ammeter.domain.reservation import Key
from ammeter.usecases.live import Live

# How many changes are remembered for those who come again.
_REMEMBERED = 100_000

Pair = tuple[str, str]


class _Change(NamedTuple):
    sequence: int
    tenant_id: int
    customer_id: int
    # Empty: anything of the customer.
    feature_key: str


class Watcher:
    """What one caller watches, and what of it may have changed since it looked."""

    def __init__(self, tenant_id: int, customer_keys: Iterable[str], feature_keys: Iterable[str]) -> None:
        """Begin with nothing changed."""
        self.tenant_id = tenant_id
        self.customer_keys = frozenset(customer_keys)
        self.feature_keys = frozenset(feature_keys)
        self.dirty: set[Pair] = set()
        self.changed = asyncio.Event()

    def pairs(self, live: Live, customer_key: str) -> set[Pair]:
        """Name everything that is watched of a customer."""
        if self.feature_keys:
            return {(customer_key, feature_key) for feature_key in self.feature_keys}
        customer = live.customers.get((self.tenant_id, customer_key))
        return {(customer_key, feature_key) for feature_key in customer.entitlements} if customer else set()

    def touch(self, pairs: Iterable[Pair]) -> None:
        """Note that these may have changed."""
        self.dirty.update(pairs)
        self.changed.set()

    def take(self) -> list[Pair]:
        """Take what may have changed."""
        taken, self.dirty = sorted(self.dirty), set()
        self.changed.clear()
        return taken


class Watch:
    """All watchers, and the last changes."""

    def __init__(self, live: Live, loop: asyncio.AbstractEventLoop, epoch: int) -> None:
        """`epoch` tells this writer's sequences from those of another."""
        self._live = live
        self._loop = loop
        self._epoch = epoch
        self._watchers: dict[tuple[int, str], set[Watcher]] = {}
        self._places: dict[tuple[int, int], tuple[int, str]] = {}
        self._changes: deque[_Change] = deque(maxlen=_REMEMBERED)
        self._sequence = 0

    @property
    def is_idle(self) -> bool:
        """Whether nobody ever watched; from any thread."""
        return not self._places

    def mark(self) -> tuple[int, int]:
        """Give what names this moment."""
        return self._epoch, self._sequence

    # What changed

    def touched(self, counters: list[tuple[int, list[int]]]) -> None:
        """Say which counters changed; from any thread."""
        if counters and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._touched, counters)

    def held_changed(self, key: Key) -> None:
        """Say that holds against a customer's right changed; from any thread."""
        if not self._loop.is_closed() and not self.is_idle:
            self._loop.call_soon_threadsafe(self._note, *key)

    def customer_changed(self, tenant_id: int, customer_id: int) -> None:
        """Say that memory was told of a customer anew; from any thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._customer_changed, tenant_id, customer_id)

    def _touched(self, counters: list[tuple[int, list[int]]]) -> None:
        for tenant_id, several in counters:
            for counter in several:
                place = self._places.get((tenant_id, counter))
                if place is not None:
                    self._note(tenant_id, *place)

    def _customer_changed(self, tenant_id: int, customer_id: int) -> None:
        customer = self._live.by_id.get((tenant_id, customer_id))
        if customer is None:
            return
        if (tenant_id, customer.customer_key) in self._watchers:
            self._count(tenant_id, customer.customer_key)
        if self._places or self._watchers:
            self._note(tenant_id, customer_id, "")

    def _note(self, tenant_id: int, customer_id: int, feature_key: str) -> None:
        self._sequence += 1
        self._changes.append(_Change(self._sequence, tenant_id, customer_id, feature_key))
        customer = self._live.by_id.get((tenant_id, customer_id))
        if customer is None:
            return
        key = customer.customer_key
        for watcher in self._watchers.get((tenant_id, key), ()):
            if not feature_key:
                watcher.touch(watcher.pairs(self._live, key))
            elif not watcher.feature_keys or feature_key in watcher.feature_keys:
                watcher.touch([(key, feature_key)])

    # Who watches

    def add(self, watcher: Watcher) -> None:
        """Tell a watcher of what changes from now on."""
        for key in watcher.customer_keys:
            self._watchers.setdefault((watcher.tenant_id, key), set()).add(watcher)
            self._count(watcher.tenant_id, key)

    def remove(self, watcher: Watcher) -> None:
        """Tell it no more. What it watched goes on being remembered, for when it comes again."""
        for key in watcher.customer_keys:
            several = self._watchers.get((watcher.tenant_id, key), set())
            several.discard(watcher)
            if not several:
                self._watchers.pop((watcher.tenant_id, key), None)

    def _count(self, tenant_id: int, customer_key: str) -> None:
        customer = self._live.customers.get((tenant_id, customer_key))
        if customer is None:
            return
        fresh = {}
        for feature_key, several in customer.entitlements.items():
            for one in several:
                if one.access is None and (tenant_id, one.counter) not in self._places:
                    fresh[tenant_id, one.counter] = (customer.customer_id, feature_key)
        if fresh:
            self._places |= fresh
            self._live.engine.watch_counters(tenant_id, [counter for _, counter in fresh], watched=True)

    def since(self, watcher: Watcher, epoch: int, sequence: int, minute: int) -> set[Pair] | None:
        """Name what may have changed since a moment; None: that is not known any more."""
        oldest = self._changes[0].sequence if self._changes else self._sequence + 1
        if epoch != self._epoch or not oldest - 1 <= sequence <= self._sequence:
            return None
        found: set[Pair] = set()
        for key in watcher.customer_keys:
            found |= {pair for pair in watcher.pairs(self._live, key) if self._by_time(watcher, pair, minute)}
        for change in self._changes:
            if change.sequence <= sequence or change.tenant_id != watcher.tenant_id:
                continue
            customer = self._live.by_id.get((change.tenant_id, change.customer_id))
            if customer is not None and customer.customer_key in watcher.customer_keys:
                pairs = watcher.pairs(self._live, customer.customer_key)
                found |= {pair for pair in pairs if change.feature_key in {"", pair[1]}}
        return found

    def _by_time(self, watcher: Watcher, pair: Pair, minute: int) -> bool:
        """Whether time alone may have changed an answer since a minute."""
        customer = self._live.customers.get((watcher.tenant_id, pair[0]))
        several = customer.entitlements.get(pair[1], ()) if customer else ()
        return any(one.access is None or max(one.from_minute, one.to_minute) > minute for one in several)
