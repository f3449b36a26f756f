"""Invoices that are made in processes of their own: who dies when, and what is left of it."""

import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ammeter.config import Settings
from ammeter.domain.operation import OperationState
from ammeter.domain.profile import IssueMode
from ammeter.domain.quantity import to_scaled
from ammeter.domain.subscription import Subscription
from ammeter.errors import OutOfRangeError, UnavailableError
from ammeter.store.db import Database
from ammeter.usecases import generate
from ammeter.usecases.bill_due import Due, bill_due
from ammeter.usecases.billing import Billing, Measured, Question
from ammeter.usecases.measure import Columns, Survey
from ammeter.usecases.operations import claim, run_operation, start_generation
from ammeter.usecases.query import Form
from ammeter.v1 import invoice_pb2
from ammeter.workers.crew import Crew, crew_of
from ammeter.workers.hand import Setting
from tests.rpc.shop import Shop, unique
from tests.rpc.shop import flat as flat_card
from tests.serving import ServerProcess, hands_of
from tests.usecases.billing_world import HORIZON, World, flat, unit, utc


@pytest.fixture
def world(new_database: Callable[[], str], monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(generate, "CHUNK", 3)
    db = Database(new_database())
    yield World(db)
    db.close()


def surveying(measure: Callable[[Sequence[Question]], list[Measured]]) -> Survey:
    """Ask somebody who measures, as processes ask the server."""

    def survey(
        tenant_id: int, revision_id: int, forms: Sequence[Form], asked: Sequence[tuple[int, int]]
    ) -> Columns:
        questions = [
            Question(tenant_id, customer, revision_id, forms[one].filters, forms[one].minutes)
            for customer, one in asked
        ]
        answers = measure(questions)
        rows = [
            (place, window, to_scaled(usage.quantity), usage.event_count)
            for place, answer in enumerate(answers)
            for window, usage in enumerate(answer.usages)
            if usage.event_count
        ]
        places, windows, values, counts = map(list, zip(*rows, strict=True)) if rows else ([], [], [], [])
        position = max((one.position for one in answers), default=0)
        return Columns(places, windows, [[]] * len(rows), values, counts, position)

    return survey


@contextmanager
def crew(
    world: World, measure: Callable[[Sequence[Question]], list[Measured]] | None = None, **more: float
) -> Iterator[Crew]:
    """Processes that make the world's invoices."""
    own = Billing(world.db, measure or world.measure, HORIZON)
    url = world.db.url.render_as_string(hide_password=False)
    made = Crew(2, own, surveying(measure or world.measure), Setting(url, HORIZON, "info", "json"), **more)
    world.run = made.put_to(own)
    try:
        yield made
    finally:
        made.stop()
        assert hands_of(os.getpid()) == []


def stock(world: World, count: int = 10) -> list[Subscription]:
    plan = world.plan(flat("5"), unit("1"))
    subs = [world.subscribe(plan, utc(2026, 1, 1)) for _ in range(count)]
    for number, sub in enumerate(subs):
        world.use(sub, utc(2026, 1, 5), number)
        world.use(sub, utc(2026, 2, 5), 1)
    world.now = utc(2026, 3, 1)
    return subs


def check(world: World, subs: Sequence[Subscription]) -> None:
    made = world.all()
    slots = Counter((one.subscription_id, one.period_index) for one in made)
    assert slots == Counter((sub.subscription_id, index) for sub in subs for index in range(2))
    assert sorted(one.number or 0 for one in made) == list(range(1, 2 * len(subs) + 1))
    assert sum(one.total for one in made) == 2 * 5 * len(subs) + sum(range(len(subs))) + len(subs)


def test_processes_make_what_the_server_would_in_order_and_with_lines(world: World) -> None:
    subs = stock(world)
    with crew(world):
        made = world.generate(issue=True)
        check(world, subs)
        assert sorted(made, key=lambda one: one.invoice_id) == sorted(
            world.all(), key=lambda one: one.invoice_id
        )
        assert world.generate(issue=True) == []


def test_a_process_killed_in_mid_chunk_is_replaced_and_its_chunk_is_made_once(world: World) -> None:
    subs = stock(world)
    killed: list[int] = []

    def measure(questions: Sequence[Question]) -> list[Measured]:
        if len(killed) < 2:
            victim = hands_of(os.getpid())[-1]
            killed.append(victim)
            os.kill(victim, signal.SIGKILL)
        return world.measure(questions)

    with crew(world, measure):
        world.generate(issue=True)
    assert len(killed) == 2
    check(world, subs)


def test_a_chunk_that_ends_every_process_fails_and_is_gone_on_with_later(world: World) -> None:
    subs = stock(world, 4)

    def measure(_: Sequence[Question]) -> list[Measured]:
        for one in hands_of(os.getpid()):
            os.kill(one, signal.SIGKILL)
        return []

    with crew(world, measure), pytest.raises(Exception, match="billing processes ended"):
        world.generate(issue=True)
    with crew(world):
        operation = claim(world.run, world.tenant_id, world.now)
        assert operation is not None
        *_, last = run_operation(world.run, world.tenant_id, operation, lambda: world.now)
        assert last.operation.state is OperationState.SUCCEEDED
    check(world, subs)


def test_errors_are_those_of_the_server(world: World) -> None:
    subs = stock(world, 4)
    blocked = world.subscribe(world.plan(unit("1"), served=False), utc(2026, 1, 1))

    def measure(questions: Sequence[Question]) -> list[Measured]:
        if any(one.customer_id == subs[0].customer_id for one in questions):
            raise OutOfRangeError("too great")
        return world.measure(questions)

    with crew(world, measure), pytest.raises(OutOfRangeError, match="2 of 5 subscriptions") as failure:
        world.generate(issue=True)
    assert blocked.subscription_id in failure.value.message
    assert {one.subscription_id for one in world.all()} == {sub.subscription_id for sub in subs[1:]}

    def away(_: Sequence[Question]) -> list[Measured]:
        raise UnavailableError("the database does not answer", retry_seconds=3)

    with crew(world, away), pytest.raises(UnavailableError, match="does not answer") as unavailable:
        world.generate(issue=True)
    assert unavailable.value.retry_seconds == 3


def test_a_cancelled_run_ends_after_the_rounds_in_hand_and_tells_of_them(world: World) -> None:
    stock(world, 30)
    with crew(world):
        with world.db.tenant(world.tenant_id) as tx:
            start_generation(tx, "op_1", "", issue=True, now=world.now)
        operation = claim(world.run, world.tenant_id, world.now)
        assert operation is not None
        stopping: list[bool] = []
        run = run_operation(world.run, world.tenant_id, operation, lambda: world.now, lambda: bool(stopping))
        made = [next(run)]
        stopping.append(True)
        made += run
    invoices = [one.invoice for one in made if one.invoice]
    assert len(invoices) == len(world.all()) < 60
    assert made[-1].operation.invoice_count == len(invoices)


def test_what_is_due_is_billed_by_processes_and_counted_here(world: World) -> None:
    subs = stock(world)
    world.profile(issue_mode=IssueMode.AUTOMATIC, grace_seconds=0)
    counts: Counter[str] = Counter()
    seconds: list[float] = []

    class Heard:
        def count(self, told: Mapping[str, int]) -> None:
            counts.update(told)

        def time(self, took: float) -> None:
            seconds.append(took)

    with crew(world) as hands:
        hands._tally = Heard()
        assert bill_due(world.run, world.now, lambda: False) == Due(20, 20)
    check(world, subs)
    assert (counts["made"], counts["issued"], counts["failed"]) == (20, 20, 0)
    assert seconds


def test_processes_end_when_there_is_nothing_to_do_and_come_again(world: World) -> None:
    subs = stock(world, 4)
    with crew(world, idle_seconds=0.2):
        world.generate(issue=True)
        deadline = time.monotonic() + 60
        while hands_of(os.getpid()):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        world.now = utc(2026, 4, 1)
        assert len(world.generate(issue=True)) == len(subs)


def test_a_single_core_or_the_setting_has_the_server_make_invoices_itself(world: World) -> None:
    with_none = crew_of(Settings(billing_processes=0), world.run, surveying(world.measure)).put_to(world.run)
    assert with_none.hands is None
    assert crew_of(Settings(billing_processes=3), world.run, surveying(world.measure)).count == 3


def test_the_processes_of_a_killed_or_stopped_server_end(
    new_database: Callable[[], str], tmp_path: Path
) -> None:
    with ServerProcess(new_database(), tmp_path, billing_processes=2) as server:
        shop = Shop(server.stubs(), "ends")
        plan = shop.plan(flat_card("2.40"), billing_cadence="P1D")
        now = datetime.now(UTC).replace(second=0, microsecond=0)
        for end in (server.kill, server.stop):
            shop.subscribe(shop.customer(unique("subject")), plan, now - timedelta(days=3))
            made = list(shop.stubs.invoices.GenerateInvoices(invoice_pb2.GenerateInvoicesRequest()))
            assert made[-1].invoice_count == 3
            hands = server.hands()
            assert hands
            end()
            deadline = time.monotonic() + 60
            while any(_is_a_hand(one) for one in hands):
                assert time.monotonic() < deadline
                time.sleep(0.05)
            server.start()


def _is_a_hand(pid: int) -> bool:
    try:
        return "ammeter.workers.hand" in Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return False
