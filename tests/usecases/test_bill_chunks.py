"""Many invoices in one transaction: what is asked does not grow with them, and neighbours do not suffer."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal

import pytest
import sqlalchemy as sa

from ammeter.domain.credit_lot import LotDraft, LotKind
from ammeter.domain.invoice import Invoice, State
from ammeter.domain.operation import OperationState
from ammeter.domain.subscription import Subscription
from ammeter.errors import PreconditionError
from ammeter.store import credit_ledger
from ammeter.store.db import Database
from ammeter.usecases.bill import Task, issue_invoices, make_invoices
from ammeter.usecases.billing import Measured, Question
from ammeter.usecases.credit_lots import make_lot
from tests.usecases.billing_world import World, flat, unit, utc


@pytest.fixture
def world(new_database: Callable[[], str]) -> Iterator[World]:
    db = Database(new_database())
    yield World(db)
    db.close()


@contextmanager
def statements() -> Iterator[list[str]]:
    """Collect what is sent to the database."""
    sent: list[str] = []

    def note(_conn: object, _cursor: object, statement: str, *_rest: object) -> None:
        sent.append(statement)

    sa.event.listen(sa.Engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", note)


def stock(world: World, count: int) -> list[Subscription]:
    plan = world.plan(flat("5"), unit("1"), advance=[0])
    subs = [world.subscribe(plan, utc(2026, 1, 1)) for _ in range(count)]
    for sub in subs:
        world.use(sub, utc(2026, 1, 5), 2)
        with world.db.tenant(world.tenant_id) as tx:
            make_lot(tx, LotDraft(sub.customer_key, Decimal(1)), LotKind.GRANTED, world.now)
    return subs


def make(world: World, subs: Sequence[Subscription], period: int) -> list[Invoice]:
    tasks = [Task(sub.subscription_id, period) for sub in subs]
    names = [task.subscription_id for task in tasks]
    made = make_invoices(world.run, world.tenant_id, names, lambda *_: tasks, issue=True, now=world.now)
    return [one for one in made if isinstance(one, Invoice)]


def test_as_many_statements_make_one_invoice_as_make_forty(world: World) -> None:
    world.profile(annex_group_by=())
    subs = stock(world, 41)
    world.now = utc(2026, 2, 1)
    counts = []
    for some in (subs[:1], subs[1:]):
        make(world, some, 0)
        for sub in some:
            world.use(sub, utc(2026, 1, 6), 1)
    world.now = utc(2026, 3, 1)
    for some in (subs[:1], subs[1:]):
        with statements() as sent:
            made = make(world, some, 1)
        assert [len(one.lines) for one in made] == [3] * len(some), "its usage, in advance, and a late one"
        assert all(one.prepaid_total == 0 for one in made), "the credits went to the first"
        counts.append(len(sent))
    assert counts[0] == counts[1] < 35
    assert sorted(one.number or 0 for one in world.all()) == list(range(1, 83))


def test_as_many_statements_issue_one_draft_as_issue_forty(world: World) -> None:
    stock(world, 41)
    world.now = utc(2026, 2, 1)
    drafts = [one for one in world.generate() if one.ordinal == 0]
    counts = []
    for some in (drafts[:1], drafts[1:]):
        with statements() as sent:
            ids = [one.invoice_id for one in some]
            issued = issue_invoices(world.run, world.tenant_id, ids, world.now)
        assert all(isinstance(one, Invoice) and one.state is State.ISSUED for one in issued)
        counts.append(len(sent))
    assert counts[0] == counts[1] < 35


def test_two_subscriptions_of_a_customer_share_its_credits_in_one_transaction(world: World) -> None:
    first = world.subscribe(world.plan(flat("7")), utc(2026, 1, 1))
    second = world.subscribe(world.plan(flat("9")), utc(2026, 1, 1), customer_id=first.customer_id)
    with world.db.tenant(world.tenant_id) as tx:
        make_lot(tx, LotDraft(first.customer_key, Decimal(10)), LotKind.GRANTED, world.now)
    world.now = utc(2026, 2, 1)
    made = make(world, [first, second], 0)
    assert [one.prepaid_total for one in made] == [7, 3]
    with world.db.engine() as conn:
        assert list(credit_ledger.faults(conn, world.tenant_id)) == []


def test_a_defect_over_one_customer_leaves_its_neighbours_billed_and_is_told(world: World) -> None:
    plan = world.plan(unit("1"))
    subs = [world.subscribe(plan, utc(2026, 1, 1)) for _ in range(5)]

    def measure(questions: Sequence[Question]) -> list[Measured]:
        if any(question.customer_id == subs[2].customer_id for question in questions):
            raise ZeroDivisionError
        return world.measure(questions)

    world.run = replace(world.run, measure=measure)
    world.now = utc(2026, 2, 1)
    with pytest.raises(PreconditionError, match=f"1 of 5 .*{subs[2].subscription_id}"):
        world.generate(issue=True)
    assert sorted(one.number or 0 for one in world.all()) == [1, 2, 3, 4]
    with world.db.tenant(world.tenant_id) as tx:
        states = tx.conn.execute(sa.text("SELECT state FROM operations")).scalars().all()
    assert states == [OperationState.FAILED.value]
