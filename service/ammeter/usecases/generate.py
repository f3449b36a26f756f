"""Make all invoices that are missing, of many subscriptions: a chunk at a time.

A chunk's subscriptions are billed in rounds, each a transaction with the next
missing invoice of every one that has one. What a kill cuts off is at most a
round of each chunk in hand, and it is made by whoever comes next. Chunks may
be in several hands: they have no subscription in common.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from datetime import datetime
from itertools import count
from typing import NamedTuple, TypeVar

import structlog

from ammeter.domain.invoice import OPENING, Invoice
from ammeter.domain.late import Head
from ammeter.domain.period import periods_from
from ammeter.domain.profile import BillingProfile, effective
from ammeter.domain.subscription import Subscription
from ammeter.errors import AmmeterError, InternalError, UnavailableError
from ammeter.store import invoices, profiles, rate_cards, subscriptions
from ammeter.store.db import Tx
from ammeter.usecases.bill import (
    Held,
    Task,
    find_customer,
    issue_invoices,
    make_invoices,
    refresh_drafts,
)
from ammeter.usecases.billing import Billing
from ammeter.usecases.orders import Order, Outcome, Round, Work
from ammeter.usecases.slices import threshold_in

# Subscriptions in a chunk, so invoices in a transaction: enough that what is asked once for all of
# them costs each little, few enough that nobody waits long for their rows.
CHUNK = 1000

_T = TypeVar("_T")
_log = structlog.get_logger()


class Progress(NamedTuple):
    """How far a run is: the last subscription it is done with, and counts."""

    cursor: str = ""
    done_count: int = 0
    total_count: int = 0
    invoice_count: int = 0


class Failure(NamedTuple):
    """A subscription that could not be billed, and why."""

    subscription_id: str
    error: AmmeterError


class Step(NamedTuple):
    """What a run did last: it made an invoice, gave a subscription up, or came to the end of a round."""

    progress: Progress
    invoice: Invoice | None = None
    failure: Failure | None = None


def generate_invoices(
    run: Billing,
    tenant_id: int,
    customer_key: str,
    *,
    issue: bool,
    now: datetime,
    since: Progress = Progress(),  # noqa: B008 - it cannot change
    must_end: Callable[[], bool] = lambda: False,
    whole: bool = True,
) -> Iterator[Step]:
    """Make an invoice for each ended period that has none, and those before the first and after the last.

    What is billed in advance opens a subscription; usage late after its end
    closes it.

    Of one customer, or of all where customer_key is empty; goes on from
    `since`. Raises NotFoundError for an unknown customer. A subscription that
    cannot be billed (its meter is still built, its quantity is out of range)
    holds up no other: it is left out, and a step says why. When it must end,
    it ends after the rounds in hand, and tells of them.
    """
    with run.db.tenant(tenant_id) as tx:
        customer_id = find_customer(tx, customer_key) if customer_key else None
        total = invoices.count_subscriptions(tx, customer_id)
    at = since._replace(total_count=max(total, since.done_count))
    order = Order(tenant_id, (), now, issue=issue, whole=whole)
    without_gap = True
    with closing(side_by_side(run, _chunks(run, order, customer_id, at.cursor), must_end)) as begun:
        for chunk, work in begun:
            for results in work.rounds():
                for name, outcome in results:
                    if isinstance(outcome, Invoice):
                        at = at._replace(invoice_count=at.invoice_count + 1)
                        yield Step(at, outcome)
                    elif outcome is not None:
                        yield Step(at, failure=Failure(name, outcome))
                yield Step(at)
            without_gap = without_gap and work.is_done
            if without_gap:
                done = at.done_count + len(chunk.names)
                total = max(at.total_count, done)
                at = at._replace(cursor=chunk.names[-1], done_count=done, total_count=total)
            yield Step(at)


def _chunks(run: Billing, order: Order, customer_id: int | None, cursor: str) -> Iterator[Order]:
    """Cut the subscriptions after one into orders."""
    while True:
        with run.db.tenant(order.tenant_id) as tx:
            names = subscriptions.page_ids(tx, customer_id, cursor, CHUNK)
        if names:
            yield order._replace(names=tuple(names))
        if len(names) < CHUNK:
            return
        cursor = names[-1]


def side_by_side(
    run: Billing, orders: Iterable[Order], must_end: Callable[[], bool]
) -> Generator[tuple[Order, Work]]:
    """Have orders carried out, as many at a time as there are hands; gives them in turn.

    One more waits for a hand. None is begun when it must end.
    """
    waiting = iter(orders)
    begun: deque[tuple[Order, Work]] = deque()
    try:
        while True:
            # The one whose rounds are being read is in hand, too.
            while len(begun) <= (run.hands.count if run.hands else 0) and not must_end():
                order = next(waiting, None)
                if order is None:
                    break
                begun.append((order, _begin(run, order, must_end)))
            if not begun:
                return
            yield begun.popleft()
    finally:
        for _, work in begun:
            work.abandon()


def _begin(run: Billing, order: Order, must_end: Callable[[], bool]) -> Work:
    return run.hands.begin(order, must_end) if run.hands else _OwnWork(run, order, must_end)


class _OwnWork:
    """An order that is carried out by whoever reads its rounds."""

    def __init__(self, run: Billing, order: Order, must_end: Callable[[], bool]) -> None:
        self.is_done = False
        self._run = run
        self._order = order
        self._must_end = must_end

    def rounds(self) -> Iterator[Round]:
        for results in carry_out(self._run, self._order):
            yield results
            if self._must_end():
                return
        self.is_done = True

    def abandon(self) -> None:
        pass  # nothing was begun


def carry_out(run: Billing, order: Order) -> Iterator[Round]:
    """Do what an order says; yields what became of each transaction's subscriptions or invoices."""
    if not order.drafts:
        yield from bill_chunk(run, order.tenant_id, order.names, issue=order.issue, now=order.now)
        return

    def issue(invoice_ids: Sequence[str]) -> list[Outcome]:
        return issue_invoices(run, order.tenant_id, invoice_ids, order.now, only_due=True)

    yield list(zip(order.names, attempt(run, issue, order.names), strict=True))


def bill_chunk(
    run: Billing, tenant_id: int, subscription_ids: Sequence[str], *, issue: bool, now: datetime
) -> Iterator[Round]:
    """Make what is missing of some subscriptions; yields what became of each round's.

    A subscription that cannot be billed has no further ones. Drafts that wait
    for prices are taken anew before.
    """
    with run.db.tenant(tenant_id) as tx:
        waiting = invoices.waiting_for_prices(tx, subscription_ids)

    def refresh(drafts: Sequence[str]) -> list[Outcome]:
        return refresh_drafts(run, tenant_id, drafts, now)

    for draft in waiting:  # one by one, as several may be of one subscription
        attempt(run, refresh, [draft])
    missing: dict[str, Iterator[Task]] = {}

    def begin(names: Sequence[str]) -> list[Outcome]:
        def first(tx: Tx, held: Sequence[Held]) -> list[Task | None]:
            missing.update(found := _missing(tx, held, now))
            return [next(found[name], None) for name in names]

        return make_invoices(run, tenant_id, names, first, issue=issue, now=now)

    def go_on(tasks: Sequence[Task]) -> list[Outcome]:
        names = [task.subscription_id for task in tasks]
        return make_invoices(run, tenant_id, names, lambda *_: tasks, issue=issue, now=now)

    names: Sequence[str] = subscription_ids
    outcomes = attempt(run, begin, names)
    while names:
        yield list(zip(names, outcomes, strict=True))
        for name, outcome in zip(names, outcomes, strict=True):
            if isinstance(outcome, AmmeterError):
                missing.pop(name, None)
        tasks = [task for each in missing.values() if (task := next(each, None)) is not None]
        names = [task.subscription_id for task in tasks]
        outcomes = attempt(run, go_on, tasks)


def attempt(
    run: Billing, make: Callable[[Sequence[_T]], list[Outcome]], items: Sequence[_T]
) -> list[Outcome]:
    """Try all at once, and where that fails each half: nobody suffers from a neighbour.

    Raises UnavailableError.
    """
    if not items:
        return []
    try:
        return make(items)
    except UnavailableError:
        raise
    except AmmeterError as error:
        if len(items) == 1:
            run.tally.count({"failed": 1})
            return [error]
    except Exception as error:  # noqa: BLE001 - whatever it is, the others are billed
        if len(items) == 1:
            run.tally.count({"failed": 1})
            _log.exception("an invoice could not be made")
            return [InternalError(f"a defect, {type(error).__name__}: see the log")]
    half = len(items) // 2
    return attempt(run, make, items[:half]) + attempt(run, make, items[half:])


def _missing(tx: Tx, chunk: Sequence[Held], now: datetime) -> dict[str, Iterator[Task]]:
    """Say which invoices may be missing of subscriptions, in order."""
    tenants, theirs = profiles.of_customers(tx, {sub.customer_id for sub, _ in chunk})
    in_advance = rate_cards.stages_in_advance(tx, {sub.course[0].plan_id for sub, _ in chunk})
    usual = threshold_in(effective(tenants, BillingProfile()))
    thresholds = {key: threshold_in(effective(tenants, own)) for key, own in theirs.items()}
    return {
        sub.subscription_id: _tasks(
            sub,
            past.heads,
            opens=sub.course[0].stage in in_advance,
            progressive=bool(thresholds.get(sub.customer_id, usual)),
            now=now,
        )
        for sub, past in chunk
    }


def _tasks(
    sub: Subscription, heads: Sequence[Head], *, opens: bool, progressive: bool, now: datetime
) -> Iterator[Task]:
    name = sub.subscription_id
    if opens and sub.start_time <= now and all(head.slot.ordinal != OPENING for head in heads):
        yield Task(name, OPENING)
    there = {head.slot.period.index for head in heads if head.slot.ordinal == 0}
    first_missing = next(index for index in count() if index not in there)
    for period in periods_from(sub, first_missing, now):
        if period.index not in there:
            yield Task(name, period.index)
    if progressive:
        yield Task(name, is_slice=True)
    if sub.end_time is not None and sub.end_time <= now:
        yield Task(name)
