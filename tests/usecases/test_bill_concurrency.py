from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from ammeter.domain.invoice import Invoice, State
from ammeter.store.db import Database
from ammeter.store.invoice_writing import insert_invoices
from tests.usecases.billing_world import World, flat, lines, unit, utc


@pytest.fixture
def worlds(database_url: str) -> Iterator[Callable[[], World]]:
    """A function that gives the same tenant to one more process: with its own connections."""
    opened: list[Database] = []
    first: list[World] = []

    def another() -> World:
        db = Database(database_url)
        opened.append(db)
        first.append(World(db) if not first else replace(first[0], db=db))
        return first[-1]

    yield another
    for db in opened:
        db.close()


def at_once(*calls: Callable[[], list[Invoice]]) -> list[Invoice]:
    with ThreadPoolExecutor(len(calls)) as pool:
        return [one for future in [pool.submit(call) for call in calls] for one in future.result()]


@pytest.mark.parametrize("issue", [False, True])
def test_runs_at_the_same_time_make_each_invoice_once(worlds: Callable[[], World], issue: bool) -> None:  # noqa: FBT001
    one = worlds()
    plan = one.plan(flat("5"), unit("1"))
    subs = [one.subscribe(plan, utc(2026, 1, 1), end=utc(2026, 3, 10)) for _ in range(12)]
    for sub in subs:
        one.use(sub, utc(2026, 2, 5), 2)
    one.now = utc(2026, 4, 1)
    runs = [one, worlds(), worlds()]
    made = at_once(*(lambda run=run: run.generate(issue=issue) for run in runs))
    slots = Counter((invoice.subscription_id, invoice.period_index, invoice.ordinal) for invoice in made)
    assert slots == Counter((sub.subscription_id, index, 0) for sub in subs for index in range(3))
    assert sorted(one.all(), key=lambda i: i.invoice_id) == sorted(made, key=lambda i: i.invoice_id)
    if issue:
        assert sorted(invoice.number or 0 for invoice in made) == list(range(1, 37))


def test_runs_at_the_same_time_bill_late_usage_once(worlds: Callable[[], World]) -> None:
    one = worlds()
    plan = one.plan(unit("1"))
    subs = [one.subscribe(plan, utc(2026, 1, 1), end=utc(2026, 2, 1)) for _ in range(8)]
    one.now = utc(2026, 2, 1)
    one.generate(issue=True)
    for sub in subs:
        one.use(sub, utc(2026, 1, 5), 3)
    runs = [one, worlds(), worlds()]
    made = at_once(*(lambda run=run: run.generate(issue=True) for run in runs))
    assert len(made) == 8
    assert all(lines(invoice) == [("late_usage", "card0", 0, "3", "3.00")] for invoice in made)


def test_issuing_at_the_same_time_numbers_without_gaps_and_each_invoice_once(
    worlds: Callable[[], World],
) -> None:
    one = worlds()
    plan = one.plan(unit("1"))
    for _ in range(3):
        sub = one.subscribe(plan, utc(2026, 1, 1))
        one.use(sub, utc(2026, 1, 5), 2)
    one.now = utc(2026, 7, 1)
    drafts = one.generate()
    two = worlds()
    calls = [(lambda run=run, draft=draft: [run.issue(draft)]) for draft in drafts for run in (one, two)]
    issued = at_once(*calls)
    assert sorted({invoice.number or 0 for invoice in issued}) == list(range(1, len(drafts) + 1))
    assert len({(invoice.invoice_id, invoice.number) for invoice in issued}) == len(drafts)


def test_issuing_and_voiding_at_the_same_time_leaves_one_outcome(worlds: Callable[[], World]) -> None:
    one = worlds()
    plan = one.plan(flat("1"))
    for _ in range(10):
        one.subscribe(plan, utc(2026, 1, 1))
    one.now = utc(2026, 2, 1)
    drafts = one.generate()
    two = worlds()

    def issue(draft: Invoice) -> list[Invoice]:
        try:
            return [one.issue(draft)]
        except Exception as error:  # noqa: BLE001 - which is the point
            assert "is void" in str(error)  # noqa: PT017
            return []

    at_once(
        *(lambda draft=draft: issue(draft) for draft in drafts),
        *(lambda draft=draft: [two.void(draft)] for draft in drafts),
    )
    found = one.all()
    assert {invoice.state for invoice in found} == {State.VOID}
    numbers = sorted(invoice.number for invoice in found if invoice.number is not None)
    assert numbers == list(range(1, len(numbers) + 1))


def test_a_slot_that_is_taken_is_not_taken_twice_whatever_the_locks_do(worlds: Callable[[], World]) -> None:
    one = worlds()
    one.subscribe(one.plan(flat("1")), utc(2026, 1, 1))
    one.now = utc(2026, 2, 1)
    [made] = one.generate()
    with one.db.tenant(one.tenant_id) as tx:
        assert not insert_invoices(tx, [made._replace(invoice_id="inv_other")])
    one.void(made)
    with one.db.tenant(one.tenant_id) as tx:
        assert insert_invoices(tx, [made._replace(invoice_id="inv_other")]) == {"inv_other"}
