"""Make all invoices that are missing, of many subscriptions: a chunk at a time.

A chunk's subscriptions are billed in rounds, each a transaction with the next
missing invoice of every one that has one. What a kill cuts off is at most a
round, and it is made by whoever comes next.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import count
from typing import NamedTuple, TypeVar

import structlog

from ammeter.domain.invoice import OPENING, Invoice, State
from ammeter.domain.late import Head
from ammeter.domain.period import periods_from
from ammeter.domain.profile import BillingProfile, effective
from ammeter.domain.subscription import Subscription
from ammeter.errors import AmmeterError, InternalError, UnavailableError
from ammeter.store import invoices, profiles, rate_cards, standing, subscriptions
from ammeter.store.db import Tx
from ammeter.store.standing import History
from ammeter.usecases.bill import Outcome, Task, find_customer, make_invoices, refresh_drafts, tell_metrics
from ammeter.usecases.billing import Billing
from ammeter.usecases.slices import threshold_in

# Subscriptions in a chunk, so invoices in a transaction: enough that what is asked once for all of
# them costs each little, few enough that nobody waits long for their rows.
CHUNK = 250

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
) -> Iterator[Step]:
    """Make an invoice for each ended period that has none, and those before the first and after the last.

    What is billed in advance opens a subscription; usage late after its end
    closes it.

    Of one customer, or of all where customer_key is empty; goes on from
    `since`. Raises NotFoundError for an unknown customer. A subscription that
    cannot be billed (its meter is still built, its quantity is out of range)
    holds up no other: it is left out, and a step says why.
    """
    with run.db.tenant(tenant_id) as tx:
        customer_id = find_customer(tx, customer_key) if customer_key else None
        total = invoices.count_subscriptions(tx, customer_id)
    at = since._replace(total_count=max(total, since.done_count))
    while True:
        with run.db.tenant(tenant_id) as tx:
            chunk = subscriptions.page(tx, customer_id, at.cursor, CHUNK)
        for results in bill_chunk(run, tenant_id, chunk, issue=issue, now=now):
            for task, outcome in results:
                if isinstance(outcome, Invoice):
                    at = at._replace(invoice_count=at.invoice_count + 1)
                    yield Step(at, outcome)
                elif outcome is not None:
                    yield Step(at, failure=Failure(task.subscription_id, outcome))
            yield Step(at)
        if not chunk:
            return
        done = at.done_count + len(chunk)
        cursor = chunk[-1].subscription_id
        at = at._replace(cursor=cursor, done_count=done, total_count=max(at.total_count, done))
        yield Step(at)
        if len(chunk) < CHUNK:
            return


def bill_chunk(
    run: Billing, tenant_id: int, chunk: Sequence[Subscription], *, issue: bool, now: datetime
) -> Iterator[list[tuple[Task, Outcome]]]:
    """Make what is missing of some subscriptions; yields what became of each round's tasks.

    A subscription that cannot be billed has no further ones. Drafts that wait
    for prices are taken anew before.
    """
    with run.db.tenant(tenant_id) as tx:
        past = standing.histories(tx, chunk)
        missing = _missing(tx, chunk, past, now)
        waiting = invoices.unpriced_drafts(tx, _drafts(past.values()))

    def refresh(drafts: Sequence[str]) -> list[Outcome]:
        return refresh_drafts(run, tenant_id, drafts, now)

    for draft in waiting:  # one by one, as several may be of one subscription
        attempt(refresh, [draft])

    def make(tasks: Sequence[Task]) -> list[Outcome]:
        return make_invoices(run, tenant_id, tasks, issue=issue, now=now)

    while tasks := [task for each in missing.values() if (task := next(each, None)) is not None]:
        results = list(zip(tasks, attempt(make, tasks), strict=True))
        yield results
        for task, outcome in results:
            if isinstance(outcome, AmmeterError):
                del missing[task.subscription_id]


def attempt(make: Callable[[Sequence[_T]], list[Outcome]], items: Sequence[_T]) -> list[Outcome]:
    """Try all at once, and where that fails one by one: nobody suffers from a neighbour.

    Raises UnavailableError.
    """
    try:
        return make(items)
    except UnavailableError:
        raise
    except AmmeterError as error:
        if len(items) == 1:
            tell_metrics({"failed": 1})
            return [error]
    except Exception as error:  # noqa: BLE001 - whatever it is, the others are billed
        if len(items) == 1:
            tell_metrics({"failed": 1})
            _log.exception("an invoice could not be made")
            return [InternalError(f"a defect, {type(error).__name__}: see the log")]
    return [outcome for item in items for outcome in attempt(make, [item])]


def _drafts(past: Iterable[History]) -> list[str]:
    return [head.invoice_id for one in past for head in one.heads if head.state is State.DRAFT]


def _missing(
    tx: Tx, chunk: Sequence[Subscription], past: Mapping[str, History], now: datetime
) -> dict[str, Iterator[Task]]:
    """Say which invoices may be missing of subscriptions, in order."""
    tenants, theirs = profiles.of_customers(tx, {sub.customer_id for sub in chunk})
    in_advance = rate_cards.stages_in_advance(tx, {sub.course[0].plan_id for sub in chunk})
    usual = threshold_in(effective(tenants, BillingProfile()))
    thresholds = {key: threshold_in(effective(tenants, own)) for key, own in theirs.items()}
    return {
        sub.subscription_id: _tasks(
            sub,
            past[sub.subscription_id].heads,
            opens=sub.course[0].stage in in_advance,
            progressive=bool(thresholds.get(sub.customer_id, usual)),
            now=now,
        )
        for sub in chunk
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
