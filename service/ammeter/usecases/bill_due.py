"""Bill what is due without being asked, as the profiles say.

Every step is a transaction of its own and leaves a state from which any
process can go on: a clock is set forward only when all that was due is made.
"""

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from typing import NamedTuple

import structlog

from ammeter.domain.late import MARGIN
from ammeter.domain.period import boundaries
from ammeter.domain.profile import IssueMode, effective
from ammeter.domain.subscription import Subscription
from ammeter.errors import OutOfRangeError, PreconditionError
from ammeter.store import clocks, invoices, profiles, subscriptions
from ammeter.usecases.bill import bill_subscription, issue_invoice
from ammeter.usecases.billing import Billing

_PAGE = 100
# How soon a subscription is tried again whose meter is being built, or whose quantity is out of range.
_POSTPONE = timedelta(minutes=1)
# How often usage late after a subscription's end is looked for.
_LATE = timedelta(days=1)
# How often a subscription is looked at whose customer is billed by a threshold.
_PROGRESS = timedelta(minutes=1)

_log = structlog.get_logger()


class Due(NamedTuple):
    """What a run did."""

    made: int
    issued: int


def bill_due(run: Billing, now: datetime, is_stopping: Callable[[], bool]) -> Due:
    """Make drafts of ended periods and issue drafts whose grace is over, of all tenants that want it."""
    with run.db.engine() as conn:
        tenants = profiles.tenants_at_work(conn)
    made = issued = 0
    for tenant_id in tenants:
        for _ in _make(run, tenant_id, now, is_stopping):
            made += 1
        for _ in _issue(run, tenant_id, now, is_stopping):
            issued += 1
    return Due(made, issued)


def _make(run: Billing, tenant_id: int, now: datetime, is_stopping: Callable[[], bool]) -> Iterator[str]:
    while not is_stopping():
        with run.db.tenant(tenant_id) as tx:
            page = clocks.due(tx, now, _PAGE)
        for clock in page:
            if is_stopping():
                return
            yield from _look_at(run, tenant_id, clock, now)
        if len(page) < _PAGE:
            return


def _look_at(run: Billing, tenant_id: int, clock: clocks.Clock, now: datetime) -> Iterator[str]:
    with run.db.tenant(tenant_id) as tx:
        sub = subscriptions.get(tx, clock.subscription_id)
        if sub is None:
            return
        profile = effective(*profiles.get_both(tx, sub.customer_id))
    following: datetime | None = None  # a profile that changes sets the clock back
    if profile.issue_mode is not IssueMode.MANUAL:
        following = _following(sub, now, run.horizon)
        if following is not None and sub.start_time <= now and Decimal(profile.progressive_threshold or 0):
            following = min(following, now + _PROGRESS)
        try:
            for invoice in bill_subscription(run, tenant_id, sub, issue=False, now=now):
                yield invoice.invoice_id
        except (PreconditionError, OutOfRangeError) as error:
            _log.warning("billing postponed", subscription=sub.subscription_id, error=error.message)
            following = now + _POSTPONE
    with run.db.tenant(tenant_id) as tx:
        clocks.move(tx, clock, following)


def _following(sub: Subscription, now: datetime, horizon: timedelta) -> datetime | None:
    """Return when to look again: at the present period's end, then daily for what comes late."""
    if now < sub.start_time:
        return sub.start_time  # what is billed in advance is due then
    edges = boundaries(sub, now, 2)
    if edges:
        return edges[-1]
    settled = sub.end_time is not None and now > sub.end_time + horizon + 2 * MARGIN
    return None if settled else now + _LATE


def _issue(run: Billing, tenant_id: int, now: datetime, is_stopping: Callable[[], bool]) -> Iterator[str]:
    after: tuple[datetime, str] | None = None
    while not is_stopping():
        with run.db.tenant(tenant_id) as tx:
            page = invoices.due_drafts(tx, now, after, _PAGE)
        for _, invoice_id in page:
            if is_stopping():
                return
            try:
                invoice = issue_invoice(run, tenant_id, invoice_id, now, only_due=True)
            except (PreconditionError, OutOfRangeError) as error:
                _log.warning("issue postponed", invoice_id=invoice_id, error=error.message)
                continue
            if invoice.issue_time == now:
                yield invoice_id
        if len(page) < _PAGE:
            return
        after = page[-1]
