"""What is billed side by side: orders, and who carries them out."""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import NamedTuple, Protocol

from ammeter.domain.invoice import Invoice
from ammeter.errors import AmmeterError

# An invoice; nothing to bill, or made by somebody else meanwhile; why it cannot be.
Outcome = Invoice | None | AmmeterError

# What became of a transaction's subscriptions or invoices, each by its id.
Round = Sequence[tuple[str, Outcome]]


class Order(NamedTuple):
    """Make what is missing of subscriptions; or, `drafts`, issue invoices that are due.

    `names` are their ids. `whole`: their lines are wanted, too, by somebody
    who looks on.
    """

    tenant_id: int
    names: tuple[str, ...]
    now: datetime
    drafts: bool = False
    issue: bool = False
    whole: bool = True


class Work(Protocol):
    """An order that was begun."""

    @property
    def is_done(self) -> bool:
        """Whether nothing is left of it; until its rounds end, and where it was told to end early, not."""

    def rounds(self) -> Iterator[Round]:
        """Give the rounds as they are committed; raises what kept the order from being carried out."""

    def abandon(self) -> None:
        """End it after the round in hand, which nobody hears of."""


class Hands(Protocol):
    """Carry out orders, several at a time, those that were begun first before others."""

    @property
    def count(self) -> int:
        """How many orders are in hand at a time."""

    def begin(self, order: Order, must_end: Callable[[], bool]) -> Work:
        """Begin an order; it ends early, between two rounds, when it must."""
