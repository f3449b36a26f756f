"""The book of what is held now: decisions about reservations, before and after they are durable.

A decision takes effect in two steps. What it adds is held at once, so that no
two decisions give the same balance away; what it gives back is held until
the change is durable, and where its usage is recorded with it, until that
usage counts. So whatever is lost in between, too much is held, never too
little. Clocks are given: `wall` is written down, `mono` measures.
"""

import heapq
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from math import inf
from typing import NamedTuple

from ammeter.domain import reservation as rules
from ammeter.domain.reservation import Key, Renewal, Reservation, Standing, State, Wish, bounds, grantable

# When what counts no more has ended, by the monotonic clock: before anything.
_NEVER = -inf
_AGAIN_SECONDS = 0.1
# Ends that are out of date are swept out when there are this many more than reservations.
_SLACK = 1024


class Now(NamedTuple):
    """An instant on two clocks: one that people read and that may jump, and one that only goes on."""

    wall: datetime
    mono: float


@dataclass(frozen=True, slots=True, eq=False)
class Change:
    """One decision: to be made durable, then finished. `before` None: a new reservation."""

    before: Reservation | None
    after: Reservation
    added: int
    removed: int


@dataclass(slots=True, eq=False)
class Entry:
    """A reservation in the book: `counted` of it is in the totals.

    `expire_at` and `hold_at` are its ends by the monotonic clock. `change` is
    in flight: until it is finished no other may begin.
    """

    reservation: Reservation
    counted: int
    expire_at: float
    hold_at: float
    change: Change | None = None


class Book:
    """What is held by key, and the reservations that hold it.

    One thread makes decisions; only `swap` may come from another, and the
    totals may be read from any.
    """

    def __init__(self) -> None:
        """Start empty."""
        self.totals: dict[Key, int] = {}
        self.entries: dict[tuple[int, str], Entry] = {}
        self._swaps: dict[Key, list[tuple[int, int, Change]]] = {}
        self._lock = threading.Lock()
        # Called with the key when what is held against it has changed.
        self.listeners: list[Callable[[Key], None]] = []
        # Called with (tenant_id, customer_id, whether) when anything begins or ceases to be held of a
        # customer's balances.
        self.holders: list[Callable[[int, int, bool], None]] = []
        self._keys_of: Counter[tuple[int, int]] = Counter()
        self._ends: list[tuple[float, int, tuple[int, str]]] = []
        self._numbers = count()

    # What counts

    def held(self, key: Key) -> int:
        """Tell what is held, apart from usage that is just taking its place."""
        return self.totals.get(key, 0)

    @property
    def is_empty(self) -> bool:
        """Whether nothing is held, nor usage taking the place of a hold."""
        return not (self.totals or self._swaps)

    def swapping(self, key: Key) -> bool:
        """Whether usage is just taking the place of a hold: ask held_at with a position."""
        return key in self._swaps

    def held_at(self, key: Key, position: int) -> int:
        """Tell what is held beside the usage up to a position of the chain."""
        with self._lock:
            swapped = sum(amount for at, amount, _ in self._swaps.get(key, ()) if at <= position)
            return self.totals.get(key, 0) - swapped

    # Decisions

    def reserve(
        self,
        reservation_id: str,
        key: Key,
        who: tuple[str, str],
        wish: Wish,
        standing: Standing,
        now: Now,
    ) -> Change | None:
        """Hold what is wanted, or what may be; None if that is nothing. `who` is (customer_key, subject)."""
        granted = grantable(standing, wish)
        if granted <= 0:
            return None
        expire, hold = bounds(standing, wish, now.wall)
        made = Reservation(
            reservation_id,
            key,
            *who,
            wish.lease,
            wish.amount,
            granted,
            granted,
            0,
            State.HELD,
            now.wall,
            expire,
            hold,
        )
        entry = Entry(made, 0, _NEVER, _NEVER)
        self.entries[key.tenant_id, reservation_id] = entry
        return self._begin(entry, Change(None, made, granted, 0), now)

    def extend(self, entry: Entry, wish: Wish, now: Now) -> Change:
        """Let it last longer."""
        mine = entry.reservation
        after = rules.extended(mine, wish.lifetime, now.wall, expired=now.mono >= entry.expire_at)
        return self._begin(entry, Change(mine, after, 0, 0), now)

    def settle(self, entry: Entry, amount: int, now: Now) -> Change:
        """End it with what was used."""
        mine = entry.reservation
        after = rules.settled(mine, amount, now.wall, late=now.mono >= entry.hold_at)
        return self._begin(entry, Change(mine, after, 0, entry.counted), now)

    def release(self, entry: Entry, now: Now) -> Change | None:
        """End it unused; None if it has ended so before."""
        mine = entry.reservation
        after = rules.released(mine, now.wall)
        return None if after is mine else self._begin(entry, Change(mine, after, 0, entry.counted), now)

    def renew(self, entry: Entry, renewal: Renewal, standing: Standing, now: Now) -> Change:
        """Take off what was used of a lease, and top it up."""
        mine = entry.reservation
        over = now.mono >= entry.hold_at
        after = rules.renewed(mine, renewal, standing, now.wall, counted=entry.counted, expired=over)
        added = after.granted - mine.granted
        return self._begin(entry, Change(mine, after, added, entry.counted + added - after.held), now)

    def _begin(self, entry: Entry, change: Change, now: Now) -> Change:
        entry.change = change
        entry.counted += change.added
        self._add(change.after.key, change.added)
        if change.after.state is State.HELD:
            self._set_ends(entry, change.after, now)
        else:
            # It must not run out before it is known whether this was written down.
            entry.hold_at = inf
        return change

    # What becomes of a decision

    def swap(self, change: Change, position: int) -> None:
        """Say that the segment at a position has the usage that takes a hold's place.

        Before it is folded; from then on held_at tells both sides of the swap.
        """
        with self._lock:
            self._swaps.setdefault(change.after.key, []).append((position, change.removed, change))

    def finish(self, change: Change) -> None:
        """Say that a change is durable, and its usage counted."""
        key = change.after.key
        name = (key.tenant_id, change.after.reservation_id)
        entry = self.entries[name]
        removed = min(change.removed, entry.counted)
        with self._lock:
            self._forget_swap(key, change)
            self._add(key, -removed)
        entry.reservation, entry.change = change.after, None
        entry.counted -= removed
        if change.after.state is not State.HELD:
            del self.entries[name]

    def _forget_swap(self, key: Key, change: Change) -> None:
        left = [swap for swap in self._swaps.get(key, ()) if swap[2] is not change]
        if left:
            self._swaps[key] = left
        else:
            self._swaps.pop(key, None)

    def drop(self, entry: Entry) -> None:
        """Forget what was looked up for a change that was not made."""
        if entry.change is None and entry.hold_at == _NEVER:
            self.entries.pop((entry.reservation.key.tenant_id, entry.reservation.reservation_id), None)

    # Passing time, and beginning anew

    def expire(self, mono: float) -> int:
        """Let go of what has run out; returns how many reservations did."""
        expired = 0
        while self._ends and self._ends[0][0] <= mono:
            _, _, name = heapq.heappop(self._ends)
            entry = self.entries.get(name)
            if entry is None or entry.hold_at > mono or entry.hold_at == _NEVER:
                continue
            if entry.change is not None:
                # What becomes of it is not known yet: look again soon.
                heapq.heappush(self._ends, (mono + _AGAIN_SECONDS, next(self._numbers), name))
                continue
            expired += 1
            self._add(entry.reservation.key, -entry.counted)
            del self.entries[name]
        return expired

    @property
    def next_end(self) -> float:
        """When expire() may have something to do, by the monotonic clock."""
        return self._ends[0][0] if self._ends else inf

    def recover(self, stored: Reservation, now: Now) -> Entry:
        """Enter what was written down; what counted by the wall clock counts on."""
        entry = Entry(stored, 0, _NEVER, _NEVER)
        if stored.state is State.HELD and now.wall < stored.hold_time:
            entry.counted = stored.held
            self._add(stored.key, stored.held)
            self._set_ends(entry, stored, now)
        self.entries[stored.key.tenant_id, stored.reservation_id] = entry
        return entry

    def _set_ends(self, entry: Entry, mine: Reservation, now: Now) -> None:
        entry.expire_at = now.mono + (mine.expire_time - now.wall).total_seconds()
        entry.hold_at = now.mono + (mine.hold_time - now.wall).total_seconds()
        name = (mine.key.tenant_id, mine.reservation_id)
        heapq.heappush(self._ends, (entry.hold_at, next(self._numbers), name))
        if len(self._ends) > 2 * len(self.entries) + _SLACK:
            ends = (
                (one.hold_at, next(self._numbers), name)
                for name, one in self.entries.items()
                if one.hold_at not in {_NEVER, inf}
            )
            self._ends = sorted(ends)

    def _add(self, key: Key, amount: int) -> None:
        if not amount:
            return
        total = self.totals.get(key, 0) + amount
        if total and key not in self.totals:
            self._count_key(key, 1)
        if total:
            self.totals[key] = total
        elif self.totals.pop(key, None) is not None:
            self._count_key(key, -1)
        for listener in self.listeners:
            listener(key)

    def _count_key(self, key: Key, step: int) -> None:
        """Count of how many balances of a customer something is held."""
        customer = key.tenant_id, key.customer_id
        self._keys_of[customer] += step
        if self._keys_of[customer] == max(step, 0):
            for listener in self.holders:
                listener(*customer, step > 0)
        if not self._keys_of[customer]:
            del self._keys_of[customer]
