"""Usage that comes late: which billed periods an invoice must look at again.

A period's usage is billed when its own invoice is issued. What is reported
after that rides on a later invoice of the subscription, as the difference
between the price of everything now and what standing invoices billed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from ammeter.domain.invoice import OPENING, Slot, State
from ammeter.domain.period import Period

# Between an event's acceptance, its commit and clocks that differ: far more than any of them takes.
MARGIN = timedelta(days=1)


class Repricing(NamedTuple):
    """Prices from a time on were written when it had passed."""

    write_time: datetime
    effective_time: datetime


@dataclass(frozen=True)
class Head:
    """A standing invoice, without its lines.

    computed_time is when its quantities were taken: at issue, or for a draft
    when it was made.
    """

    invoice_id: str
    slot: Slot
    state: State
    computed_time: datetime


def late_periods(
    heads: Sequence[Head],
    slot: Slot,
    *,
    horizon: timedelta,
    subjects_time: datetime,
    reopened: frozenset[int],
    repricings: Sequence[Repricing] = (),
) -> list[Period]:
    """Return the billed periods whose usage may have changed since it was last looked at, in order.

    heads: the subscription's standing invoices, without the one being made
    in `slot`. Only a period whose own invoice is no draft counts as billed: an
    open draft takes everything itself when it is issued. `reopened` periods
    are looked at in any case: lines about them were taken back. `repricings`
    are prices that were written with effect in the past.
    """
    found = []
    last_look: datetime | None = None
    for head in sorted(heads, key=_place, reverse=True):
        last_look = head.computed_time if last_look is None else max(last_look, head.computed_time)
        period = head.slot.period
        if head.slot.ordinal or head.state is State.DRAFT or not _before(period, slot):
            continue
        written = (each.write_time for each in repricings if each.effective_time < period.end)
        settled = last_look - MARGIN > max(period.end + horizon, subjects_time, *written)
        if period.index in reopened or not settled:
            found.append(period)
    return found[::-1]


def _place(head: Head) -> tuple[int, int]:
    return head.slot.period.index, head.slot.ordinal


def _before(period: Period, slot: Slot) -> bool:
    return period.index < slot.period.index or (period.index == slot.period.index and slot.ordinal > 0)


def next_ordinal(heads: Sequence[Head], last: Period) -> int | None:
    """Return the ordinal of the invoice that would follow a subscription's last period.

    None while that period is not billed, or while a draft stands there that
    will take late usage itself when it is issued. A period of no length has
    no invoice of its own, at most an opening one.
    """
    there = [head for head in heads if head.slot.period.index == last.index]
    if last.covered_seconds:
        there = [head for head in there if head.slot.ordinal > OPENING]
    if not there or any(head.state is State.DRAFT for head in there):
        return None
    ordinals = [head.slot.ordinal for head in there]
    billed = 0 in ordinals or not last.covered_seconds
    return max(0, *ordinals) + 1 if billed else None
