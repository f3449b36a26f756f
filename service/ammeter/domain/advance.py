"""Flat prices in advance: which periods an invoice bills, or bills anew."""

from dataclasses import replace

from ammeter.domain.invoice import OPENING, Slot
from ammeter.domain.period import Period, period_number
from ammeter.domain.subscription import Subscription


def advance_periods(sub: Subscription, slot: Slot) -> list[Period]:
    """Return the periods whose flat prices in advance belong on the invoice in `slot`.

    The opening invoice has period 0. Any other has its own, which may have
    been cut short since it was billed, and the next. Without a next one, what
    might have been billed before the end was known is of no length.
    """
    if slot.ordinal == OPENING:
        return [slot.period]
    first = slot.period.index + 1
    # A day that a zone skips has no period, so the next may be the one after that.
    after = (period_number(sub, first), period_number(sub, first + 1))
    following = [period for period in after if period is not None][:1]
    return [slot.period, *(following or _cut_off(sub, first))]


def opened_period(sub: Subscription) -> Period | None:
    """Return period 0, of no length where the subscription ended as it began."""
    return period_number(sub, 0) or next(iter(_cut_off(sub, 0)), None)


def _cut_off(sub: Subscription, first: int) -> list[Period]:
    """Give the periods that the end of the subscription left nothing of."""
    endless = replace(sub, end_time=None)
    found = (period_number(endless, first), period_number(endless, first + 1))
    return [replace(period, end=period.start) for period in found if period is not None]
