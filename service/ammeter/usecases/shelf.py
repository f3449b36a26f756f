"""Customers as they were loaded: columns, from which one is taken when somebody asks for it.

There may be a million entitlements, most of which nobody asks about for a
long time. What is the same for many (a feature, an allowance, a limit) is
kept once; the rest takes some twenty bytes each. What is taken off is what
was read, to the letter: of a customer that has changed since there is
something newer in place, and the shelf is not asked.
"""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from datetime import datetime
from typing import NamedTuple, TypeVar

from ammeter.domain.entitlement import Access
from ammeter.domain.minute import END, minute_of
from ammeter.usecases.memory import LiveCustomer, LiveEntitlement, sort_by_feature

_COUNTED = 1
Key = TypeVar("Key")


class Template(NamedTuple):
    """What many entitlements have in common; see LiveEntitlement."""

    feature_key: str
    access: Access | None
    allowance: int
    soft_limit: bool


class Right(NamedTuple):
    """An entitlement by its template's number; `counted`: the engine keeps its counter."""

    template: int
    counter: int
    from_minute: int
    to_minute: int
    counted: bool


class Shelf:
    """Customers by number, in order of (tenant, id), with their rights. Filled once, in that order."""

    def __init__(self, read_time: datetime) -> None:
        """Start empty; everything is as of `read_time`."""
        self.read_time = read_time
        self.templates: list[Template] = []
        self.keys: list[str] = []
        self.ids = array("q")
        # By tenant: numbers [first, last), and numbers by key.
        self._ranges: dict[int, tuple[int, int]] = {}
        self._tenants: list[int] = []
        self._firsts: list[int] = []
        self._numbers: dict[int, dict[str, int]] = {}
        self._subjects: list[str | set[str] | None] = []
        # Where each customer's rights end; they begin where those before end.
        self._ends = array("Q")
        self._template = array("I")
        self._counter = array("Q")
        self._from = array("i")
        self._to = array("i")
        self._counted = array("b")
        self._renewals = array("i")
        self._due = array("I")
        self._next_due = 0
        self._taken: dict[int, LiveCustomer] = {}

    # Filling it

    def add_customer(self, tenant_id: int, customer_id: int, customer_key: str) -> None:
        """Take the next customer; all come before the first one's rights."""
        number = len(self.ids)
        if not self._tenants or self._tenants[-1] != tenant_id:
            self._tenants.append(tenant_id)
            self._firsts.append(number)
        self._ranges[tenant_id] = (self._firsts[-1], number + 1)
        self._numbers.setdefault(tenant_id, {})[customer_key] = number
        self.ids.append(customer_id)
        self.keys.append(customer_key)
        self._subjects.append(None)

    def add_subject(self, tenant_id: int, customer_id: int, subject: str) -> None:
        """Note a subject that a customer owns, or owned."""
        number = self.number(tenant_id, customer_id)
        if number is None:
            return
        before = self._subjects[number]
        if before is None:
            self._subjects[number] = subject
        elif isinstance(before, set):
            before.add(subject)
        else:
            self._subjects[number] = {before, subject}

    def add_rights(self, rights: Iterable[Right], renewal: int) -> None:
        """Give the next customer its rights, oldest first; `renewal` is its renew_minute."""
        for template, counter, from_minute, to_minute, counted in rights:
            self._template.append(template)
            self._counter.append(counter)
            self._from.append(from_minute)
            self._to.append(to_minute)
            self._counted.append(counted)
        self._ends.append(len(self._template))
        self._renewals.append(renewal)

    def close(self) -> None:
        """Say that nothing more comes."""
        due = (number for number, minute in enumerate(self._renewals) if minute < END)
        self._due = array("I", sorted(due, key=self._renewals.__getitem__))

    # Looking

    def number(self, tenant_id: int, customer_id: int) -> int | None:
        """Find a customer by id."""
        first, last = self._ranges.get(tenant_id, (0, 0))
        found = bisect_left(self.ids, customer_id, first, last)
        return found if found < last and self.ids[found] == customer_id else None

    def number_of_key(self, tenant_id: int, customer_key: str) -> int | None:
        """Find a customer by key."""
        return self._numbers.get(tenant_id, {}).get(customer_key)

    def tenant_of(self, number: int) -> int:
        """Say whose customer it is."""
        return self._tenants[bisect_right(self._firsts, number) - 1]

    def tenants(self) -> Iterator[tuple[int, range]]:
        """Give each tenant's numbers."""
        return ((tenant_id, range(*numbers)) for tenant_id, numbers in self._ranges.items())

    def subjects(self, number: int) -> frozenset[str]:
        """List what a customer owns or owned."""
        found = self._subjects[number]
        return frozenset(() if found is None else found if isinstance(found, set) else (found,))

    def take(self, number: int) -> LiveCustomer:
        """Make a customer of its columns, once; it stays."""
        found = self._taken.get(number)
        return found or self._taken.setdefault(number, self.peek(number))

    def peek(self, number: int) -> LiveCustomer:
        """As take, for those who look at it once."""
        first, last = self._ends[number - 1] if number else 0, self._ends[number]
        minute = minute_of(self.read_time)
        return LiveCustomer(
            self.ids[number],
            self.keys[number],
            sort_by_feature(map(self._right, range(first, last)), minute),
            self.subjects(number),
            frozenset(self._counter[at] for at in range(first, last) if self._counted[at]),
            self._renewals[number],
            self.read_time,
        )

    def _right(self, at: int) -> tuple[str, LiveEntitlement]:
        feature_key, access, allowance, soft_limit = self.templates[self._template[at]]
        return feature_key, LiveEntitlement(
            self._from[at], self._to[at], access, self._counter[at], allowance, soft_limit
        )

    def next_due(self, minute: int) -> tuple[int, int] | None:
        """Take the next (tenant_id, customer_id) to be renewed by a minute, each once."""
        if self._next_due < len(self._due) and self._renewals[self._due[self._next_due]] <= minute:
            number = self._due[self._next_due]
            self._next_due += 1
            return self.tenant_of(number), self.ids[number]
        return None


class Roster(Mapping[tuple[int, Key], LiveCustomer]):
    """Customers by (tenant_id, key). One that was not put since the load is taken off the shelf, once.

    Reading needs no lock. Whoever takes one off and whoever puts a newer one
    may meet: the newer one stays.
    """

    def __init__(
        self,
        shelf: Shelf,
        number_of: Callable[[int, Key], int | None],
        key_of: Callable[[LiveCustomer], Key],
    ) -> None:
        """Find numbers on the shelf by `number_of`."""
        self._shelf = shelf
        self._number_of = number_of
        self._key_of = key_of
        self._there: dict[tuple[int, Key], LiveCustomer] = {}

    def __getitem__(self, name: tuple[int, Key]) -> LiveCustomer:
        """Find one; raises KeyError."""
        found = self._there.get(name)
        if found is not None:
            return found
        number = self._number_of(*name)
        if number is None:
            raise KeyError(name)
        return self._there.setdefault(name, self._shelf.take(number))

    def get(self, name: tuple[int, Key], default: LiveCustomer | None = None) -> LiveCustomer | None:  # type: ignore[override]
        """Find one, in a call less than Mapping does."""
        found = self._there.get(name)
        if found is not None:
            return found
        number = self._number_of(*name)
        return default if number is None else self._there.setdefault(name, self._shelf.take(number))

    def put(self, tenant_id: int, live: LiveCustomer) -> None:
        """Put one in place of what there was."""
        self._there[tenant_id, self._key_of(live)] = live

    def everyone(
        self, tenant_ids: Container[int] | None = None
    ) -> Iterator[tuple[tuple[int, Key], LiveCustomer]]:
        """Go through all, or all of some tenants; those on the shelf stay there."""
        there = dict(self._there)
        for name, live in there.items():
            if tenant_ids is None or name[0] in tenant_ids:
                yield name, live
        for tenant_id, numbers in self._shelf.tenants():
            for number in numbers if tenant_ids is None or tenant_id in tenant_ids else ():
                live = self._shelf.peek(number)
                if (tenant_id, self._key_of(live)) not in there:
                    yield (tenant_id, self._key_of(live)), live

    def __iter__(self) -> Iterator[tuple[int, Key]]:
        """Go through the names."""
        return (name for name, _ in self.everyone())

    def __len__(self) -> int:
        """Count them."""
        new = sum(1 for name in list(self._there) if self._number_of(*name) is None)
        return len(self._shelf.ids) + new
