"""Bill what is due without being asked, as the profiles say.

Every step is a transaction of its own and leaves a state from which any
process can go on: a clock is set forward only when all that was due is made.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from datetime import datetime, timedelta
from itertools import chain
from typing import NamedTuple

import structlog

from ammeter.domain.invoice import Invoice
from ammeter.domain.late import MARGIN
from ammeter.domain.period import boundaries
from ammeter.domain.profile import BillingProfile, EffectiveProfile, IssueMode, effective
from ammeter.domain.subscription import Subscription
from ammeter.errors import AmmeterError
from ammeter.store import clocks, invoices, profiles, subscriptions
from ammeter.usecases.billing import Billing
from ammeter.usecases.generate import CHUNK, side_by_side
from ammeter.usecases.orders import Order
from ammeter.usecases.slices import threshold_in

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
    limit = _page_size(run)
    while not is_stopping():
        with run.db.tenant(tenant_id) as tx:
            page = clocks.due(tx, now, limit)
        yield from _look_at(run, tenant_id, page, now, is_stopping)
        if len(page) < limit:
            return


def _page_size(run: Billing) -> int:
    """Give each hand a chunk."""
    return CHUNK * (run.hands.count if run.hands else 1)


def _orders(order: Order, names: Sequence[str]) -> Iterator[Order]:
    for first in range(0, len(names), CHUNK):
        yield order._replace(names=tuple(names[first : first + CHUNK]))


def _look_at(
    run: Billing,
    tenant_id: int,
    page: Sequence[clocks.Clock],
    now: datetime,
    is_stopping: Callable[[], bool],
) -> Iterator[str]:
    with run.db.tenant(tenant_id) as tx:
        subs = subscriptions.get_all(tx, [clock.subscription_id for clock in page])
        tenants, theirs = profiles.of_customers(tx, {sub.customer_id for sub in subs.values()})
    # A profile that changes sets the clock back.
    following: dict[str, datetime | None] = dict.fromkeys(subs)
    wanted = []
    for name, sub in subs.items():
        profile = effective(tenants, theirs.get(sub.customer_id, BillingProfile()))
        if profile.issue_mode is not IssueMode.MANUAL:
            wanted.append(name)
            following[name] = _following(sub, profile, now, run.horizon)
    orders = _orders(Order(tenant_id, (), now, whole=False), wanted)
    done = 0
    with closing(side_by_side(run, orders, is_stopping)) as begun:
        for order, work in begun:
            for name, outcome in chain.from_iterable(work.rounds()):
                if isinstance(outcome, Invoice):
                    yield outcome.invoice_id
                elif outcome is not None:
                    _log.warning("billing postponed", subscription=name, error=outcome.message)
                    following[name] = now + _POSTPONE
            done += len(order.names) if work.is_done else 0
    if done < len(wanted):
        return  # the clocks stay where they are
    with run.db.tenant(tenant_id) as tx:
        clocks.move(
            tx,
            [(clock, following[clock.subscription_id]) for clock in page if clock.subscription_id in subs],
        )


def _following(
    sub: Subscription, profile: EffectiveProfile, now: datetime, horizon: timedelta
) -> datetime | None:
    """Return when to look again at a subscription: soon where a threshold may be reached."""
    following = _ordinarily(sub, now, horizon)
    if following is not None and sub.start_time <= now and threshold_in(profile):
        return min(following, now + _PROGRESS)
    return following


def _ordinarily(sub: Subscription, now: datetime, horizon: timedelta) -> datetime | None:
    """Return the present period's end, then a day later each time for what comes late."""
    if now < sub.start_time:
        return sub.start_time  # what is billed in advance is due then
    edges = boundaries(sub, now, 2)
    if edges:
        return edges[-1]
    settled = sub.end_time is not None and now > sub.end_time + horizon + 2 * MARGIN
    return None if settled else now + _LATE


def _issue(run: Billing, tenant_id: int, now: datetime, is_stopping: Callable[[], bool]) -> Iterator[str]:
    limit = _page_size(run)
    after: tuple[datetime, str] | None = None
    while not is_stopping():
        with run.db.tenant(tenant_id) as tx:
            page = invoices.due_drafts(tx, now, after, limit)
            owners = invoices.owners(tx, [invoice_id for _, invoice_id in page])
        for some in _apart([invoice_id for _, invoice_id in page], owners):
            orders = _orders(Order(tenant_id, (), now, drafts=True, whole=False), some)
            with closing(side_by_side(run, orders, is_stopping)) as begun:
                for _, work in begun:
                    for invoice_id, outcome in chain.from_iterable(work.rounds()):
                        if isinstance(outcome, AmmeterError):
                            _log.warning("issue postponed", invoice_id=invoice_id, error=outcome.message)
                        elif outcome is not None and outcome.issue_time == now:
                            yield invoice_id
            if is_stopping():
                return
        if len(page) < limit:
            return
        after = page[-1]


def _apart(invoice_ids: Iterable[str], owners: Mapping[str, str]) -> list[list[str]]:
    """Put invoices of one subscription one after the other, those of several side by side."""
    rounds: list[list[str]] = []
    seen: Counter[str] = Counter()
    for invoice_id in invoice_ids:
        place = seen[owners[invoice_id]]
        seen[owners[invoice_id]] += 1
        if place == len(rounds):
            rounds.append([])
        rounds[place].append(invoice_id)
    return rounds
