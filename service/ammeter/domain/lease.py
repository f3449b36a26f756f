"""A lease as its holder keeps it: what may still be used without asking anybody.

Amounts are ints scaled by 10**12, times those of a monotonic clock in
seconds. Not for two threads at once.
"""

from dataclasses import dataclass
from enum import StrEnum
from math import inf
from typing import NamedTuple

from ammeter.domain.catalog import FailMode


class Granted(NamedTuple):
    """What the server said: `held` may be used from the moment on that was asked about, until `deadline`."""

    reservation_id: str
    generation: int
    held: int
    deadline: float


class Report(NamedTuple):
    """What the holder says in a renewal: `used` since the last one, and how much it wants to have."""

    reservation_id: str
    generation: int
    used: int
    wanted: int


@dataclass(slots=True)
class Budget:
    """One lease, from its holder's side.

    `free` may still be taken; `taken` is of work in flight; `done` was used,
    and the server was not told yet.
    """

    reservation_id: str
    generation: int
    free: int
    deadline: float
    taken: int = 0
    done: int = 0

    @classmethod
    def of(cls, granted: Granted) -> "Budget":
        """Begin with what was granted."""
        return cls(granted.reservation_id, granted.generation, granted.held, granted.deadline)

    def take(self, amount: int, now: float) -> bool:
        """Use an amount, if it is there and the lease has not run out."""
        if amount > self.free or now >= self.deadline:
            return False
        self.free -= amount
        self.taken += amount
        return True

    def finish(self, taken: int, used: int) -> None:
        """Say what became of what was taken; less gives the rest back, more is a fact."""
        self.taken -= taken
        self.done += used
        self.free += taken - used

    def report(self, wanted: int) -> Report:
        """Say what was used, and ask for more or less.

        What is given back is not used from here on, whatever becomes of the
        report; work in flight is not given back.
        """
        keep = max(wanted, self.taken)
        self.free = min(self.free, keep - self.taken)
        return Report(self.reservation_id, self.generation, self.done, keep)

    def renewed(self, report: Report, granted: Granted) -> None:
        """Take the answer to a report; what happened meanwhile stays as it is."""
        self.done -= report.used
        self.generation = granted.generation
        self.deadline = granted.deadline
        self.free = granted.held - self.taken - self.done

    def lost(self) -> None:
        """Use it no more: the server knows of no such lease."""
        self.deadline = -inf


class Verdict(StrEnum):
    """Why a holder says yes or no."""

    ALLOWED = "ALLOWED"
    ALLOWED_OVER_SOFT_LIMIT = "ALLOWED_OVER_SOFT_LIMIT"
    ALLOWED_WITHOUT_CONTACT = "ALLOWED_WITHOUT_CONTACT"
    LIMIT_REACHED = "LIMIT_REACHED"
    NO_CONTACT = "NO_CONTACT"
    BACKLOG_FULL = "BACKLOG_FULL"
    NOT_ALLOWED = "NOT_ALLOWED"

    @property
    def allowed(self) -> bool:
        """Whether it is a yes."""
        return self.value.startswith("ALLOWED")


@dataclass(slots=True)
class Fallback:
    """A feature's fail mode, and what was let through by it since the last answer.

    `barred`: the last answer was no for another reason than a balance; an open
    mode stands in for a balance that nobody can tell, not for a right.
    """

    mode: FailMode = FailMode.CLOSED
    allowance: int = 0
    barred: bool = False
    let_through: int = 0

    def decide(self, amount: int) -> Verdict:
        """Answer without contact."""
        if self.barred:
            return Verdict.NOT_ALLOWED
        if self.mode is FailMode.OPEN_WITHIN and self.let_through + amount <= self.allowance:
            self.let_through += amount
            return Verdict.ALLOWED_WITHOUT_CONTACT
        return Verdict.ALLOWED_WITHOUT_CONTACT if self.mode is FailMode.OPEN else Verdict.NO_CONTACT

    def answered(self, mode: FailMode, allowance: int, *, barred: bool) -> None:
        """Take note of an answer."""
        self.mode, self.allowance, self.barred, self.let_through = mode, allowance, barred, 0
