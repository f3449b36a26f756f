"""Put all subscriptions on a plan onto another version of it, one transaction each."""

from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple

from ammeter.domain.cancellation import Timing
from ammeter.domain.catalog import Plan
from ammeter.domain.change import migrated, time_of_change
from ammeter.domain.spans import Span, span_at
from ammeter.domain.subscription import Subscription
from ammeter.errors import NotFoundError, PreconditionError, invalid
from ammeter.store import catalog
from ammeter.store import subscriptions as store
from ammeter.store.db import Database, Tx
from ammeter.usecases.catalog import get_plan
from ammeter.usecases.change import When, hold_subscription, put_course
from ammeter.usecases.live import Live

_PAGE = 100


class Migration(NamedTuple):
    """Which subscriptions go where, and when; version 0: any other, and the active one."""

    plan_key: str
    from_version: int = 0
    to_version: int = 0
    when: When = When(Timing.PERIOD_END)
    dry_run: bool = False


class Move(NamedTuple):
    """What becomes of a subscription: it is moved at change_time, or stays for a `problem` (text, reason)."""

    subscription: Subscription
    from_version: int
    to_version: int
    phase_key: str
    change_time: datetime | None
    problem: tuple[str, str] | None = None


class Progress(NamedTuple):
    """A move (None at the end), and counts so far."""

    move: Move | None
    done_count: int
    total_count: int
    moved_count: int
    problem_count: int


def migrate_subscriptions(
    db: Database, live: Live, tenant_id: int, wanted: Migration, now: datetime
) -> Iterator[Progress]:
    """Move what is to be moved and is not yet; a problem of one holds up no other.

    Raises NotFoundError for an unknown version, PreconditionError for a draft,
    InvalidInputError for a time that cannot be.
    """
    with db.tenant(tenant_id) as tx:
        target = _target(tx, wanted)
        if wanted.from_version:
            get_plan(tx, wanted.plan_key, wanted.from_version)
        total = store.count_on_plan(tx, target, wanted.from_version, now)
    after, done, moved, problems = "", 0, 0, 0
    while True:
        with db.tenant(tenant_id) as tx:
            page = store.page_on_plan(tx, target, wanted.from_version, now, after, _PAGE)
        for subscription_id in page:
            move = _move(db, live, tenant_id, subscription_id, target, wanted, now)
            done += 1
            if move is not None:
                moved += move.problem is None
                problems += move.problem is not None
                yield Progress(move, done, max(total, done), moved, problems)
        if len(page) < _PAGE:
            yield Progress(None, done, max(total, done), moved, problems)
            return
        after = page[-1]


def _target(tx: Tx, wanted: Migration) -> Plan:
    target = get_plan(tx, wanted.plan_key, wanted.to_version)
    if target.publish_time is None:
        raise PreconditionError(
            f"version {target.version} of plan {target.plan_key!r} was not published: publish it first"
        )
    if target.version == wanted.from_version:
        raise invalid("to_version", "is from_version: nothing would change")
    return target


def _move(
    db: Database,
    live: Live,
    tenant_id: int,
    subscription_id: str,
    target: Plan,
    wanted: Migration,
    now: datetime,
) -> Move | None:
    """Move one subscription, or say why not; None when there is nothing to move."""
    with db.tenant(tenant_id) as tx:
        # Undone as a whole if something stands in its way, or if it was only to be tried.
        attempt = tx.conn.begin_nested()
        subscription = hold_subscription(tx, subscription_id)
        move = _attempt(tx, live, subscription, target, wanted, now)
        if move is None or move.problem is not None or wanted.dry_run:
            attempt.rollback()
            tx.after_commit.clear()
        else:
            attempt.commit()
        return move


def _attempt(
    tx: Tx, live: Live, subscription: Subscription, target: Plan, wanted: Migration, now: datetime
) -> Move | None:
    try:
        time = time_of_change(subscription, *wanted.when, now)
    except PreconditionError as error:
        here = span_at(subscription.course, now)
        # One that ends before then has no need to move.
        return None if subscription.end_time else _stays(subscription, here, target, None, error)
    here = span_at(subscription.course, time)
    is_meant = here.plan_key == target.plan_key and wanted.from_version in {0, here.plan_version}
    if not is_meant or here.plan_id == target.plan_id:
        return None
    old = catalog.get_plan_by_id(tx, here.plan_id)
    if old is None:
        raise NotFoundError("plan", here.plan_key)
    try:
        changed = migrated(subscription, old, target, time)
        if changed is None:
            return None
        put_course(tx, live, changed, now)
    except PreconditionError as error:
        return _stays(subscription, here, target, time, error)
    phase_key = span_at(changed.course, time).phase_key
    return Move(subscription, here.plan_version, target.version, phase_key, time)


def _stays(
    subscription: Subscription, here: Span, target: Plan, time: datetime | None, error: PreconditionError
) -> Move:
    why = (error.message, error.reason)
    return Move(subscription, here.plan_version, target.version, here.phase_key, time, why)
