"""Operations over the wire: they go on, wait their turn, end when told to, and outlive the process."""

import itertools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import grpc
import psycopg
import pytest

from ammeter.store import operations
from ammeter.store.db import Database
from ammeter.v1 import invoice_pb2, subscription_pb2
from ammeter.v1 import operation_pb2 as pb
from tests.rpc.shop import Shop, eventually, flat, minutes_ago
from tests.rpc.terminal import Terminal
from tests.rpc.wire import refusal
from tests.serving import ServerProcess, Stubs

ENDED = {pb.Operation.STATE_SUCCEEDED, pb.Operation.STATE_FAILED, pb.Operation.STATE_CANCELLED}


@pytest.fixture(scope="module")
def shop(stubs: Stubs) -> Shop:
    return Shop(stubs)


def start(stubs: Stubs, customer: str = "", *, issue: bool = True) -> pb.Operation:
    request = invoice_pb2.StartInvoiceGenerationRequest(customer_key=customer, issue=issue)
    return stubs.invoices.StartInvoiceGeneration(request).operation


def get(stubs: Stubs, operation: pb.Operation) -> pb.Operation:
    request = pb.GetOperationRequest(operation_id=operation.operation_id)
    return stubs.operations.GetOperation(request).operation


def ended(stubs: Stubs, operation: pb.Operation) -> pb.Operation:
    eventually(lambda: get(stubs, operation).state in ENDED, 60)
    return get(stubs, operation)


def stock(shop: Shop, customers: int, days: int) -> list[subscription_pb2.Subscription]:
    plan = shop.plan(flat("1"), billing_cadence="P1D")
    return [
        shop.subscribe(shop.customer(), plan, minutes_ago(60 * 24 * days + 720)) for _ in range(customers)
    ]


def numbers(stubs: Stubs) -> list[int]:
    request = invoice_pb2.ListInvoicesRequest(page_size=1000)
    found: list[int] = []
    while True:
        page = stubs.invoices.ListInvoices(request)
        found += [one.number for one in page.invoices]
        if not page.next_page_token:
            return sorted(found)
        request.page_token = page.next_page_token


def test_an_operation_is_forgotten_some_days_after_its_end(
    shop: Shop, stubs: Stubs, server: ServerProcess
) -> None:
    old, young = (ended(stubs, start(stubs, shop.customer())) for _ in range(2))
    change = "UPDATE operations SET end_time = now() - interval '31 days' WHERE operation_id = %s"
    with psycopg.connect(server.database_url, autocommit=True) as conn:
        conn.execute(change, [old.operation_id])
    db = Database(server.database_url)
    with db.engine() as engine:
        assert operations.expire(engine, datetime.now(UTC) - timedelta(days=30)) == 1
    db.close()
    gone = refusal(stubs.operations.GetOperation, pb.GetOperationRequest(operation_id=old.operation_id))
    assert gone.code == "NOT_FOUND"
    assert "some time after its end (AMMETER_OPERATION_DAYS)" in gone.message
    assert get(stubs, young) == young


def test_an_operation_makes_invoices_and_says_how_many(shop: Shop, stubs: Stubs) -> None:
    (sub,) = stock(shop, 1, 5)
    begun = start(stubs, sub.customer_key)
    assert begun.state in {pb.Operation.STATE_WAITING, pb.Operation.STATE_RUNNING}
    assert begun.kind == pb.Operation.KIND_GENERATE_INVOICES
    done = ended(stubs, begun)
    assert (done.state, done.done_count, done.total_count, done.invoice_count) == (
        pb.Operation.STATE_SUCCEEDED,
        1,
        1,
        5,
    )
    assert done.end_time.ToDatetime() >= done.create_time.ToDatetime()
    again = ended(stubs, start(stubs, sub.customer_key))
    assert (again.state, again.invoice_count) == (pb.Operation.STATE_SUCCEEDED, 0)


def test_operations_of_a_tenant_run_one_after_the_other(shop: Shop, stubs: Stubs) -> None:
    stock(shop, 3, 20)
    begun = [start(stubs) for _ in range(5)]
    states = [get(stubs, one).state for one in begun]
    assert states.count(pb.Operation.STATE_RUNNING) <= 1
    done = [ended(stubs, one) for one in begun]
    assert [one.invoice_count for one in done[1:]] == [0] * 4, "the first one made them all"
    for first, second in itertools.pairwise(done):
        assert first.end_time.ToDatetime() <= second.end_time.ToDatetime()
    made = numbers(stubs)
    assert made == list(range(1, len(made) + 1))


def test_the_stream_is_a_view_of_an_operation_that_goes_on_without_it(shop: Shop, stubs: Stubs) -> None:
    (sub,) = stock(shop, 1, 30)
    run = stubs.invoices.GenerateInvoices(
        invoice_pb2.GenerateInvoicesRequest(customer_key=sub.customer_key, issue=True)
    )
    first = next(run)
    run.cancel()
    done = ended(stubs, pb.Operation(operation_id=first.operation_id))
    assert (done.state, done.invoice_count) == (pb.Operation.STATE_SUCCEEDED, 30)


def test_what_waits_is_cancelled_at_once_and_what_runs_before_the_next_subscriptions(
    shop: Shop, stubs: Stubs
) -> None:
    stock(shop, 40, 30)
    running, waiting = start(stubs), start(stubs)
    for one in (waiting, running):
        request = pb.CancelOperationRequest(operation_id=one.operation_id)
        answer = stubs.operations.CancelOperation(request).operation
        assert answer.HasField("cancel_time") or answer.state in ENDED
    assert ended(stubs, waiting).state == pb.Operation.STATE_CANCELLED
    half = ended(stubs, running)
    assert half.state == pb.Operation.STATE_CANCELLED
    assert half.done_count < half.total_count or half.total_count == 0
    request = pb.CancelOperationRequest(operation_id=running.operation_id)
    assert stubs.operations.CancelOperation(request).operation == half, "an ended one stays as it is"
    assert ended(stubs, start(stubs)).state == pb.Operation.STATE_SUCCEEDED
    made = numbers(stubs)
    assert made == list(range(1, len(made) + 1))


def test_a_kill_in_the_midst_is_gone_on_from(
    new_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    with ServerProcess(new_database(), tmp_path_factory.mktemp("server")) as server:
        shop = Shop(server.stubs())
        stock(shop, 20, 30)
        begun = start(server.stubs())
        eventually(lambda: len(numbers(server.stubs())) > 40)
        server.kill()
        server.start()
        stubs = server.stubs()
        done = ended(stubs, begun)
        assert (done.state, done.done_count, done.total_count) == (pb.Operation.STATE_SUCCEEDED, 20, 20)
        assert numbers(stubs) == list(range(1, 601)), "each once"


def test_a_stop_leaves_it_to_the_next_process_and_tells_the_watcher(
    new_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    with ServerProcess(new_database(), tmp_path_factory.mktemp("server"), drain_seconds=1) as server:
        shop = Shop(server.stubs())
        stock(shop, 40, 34)
        run = server.stubs().invoices.GenerateInvoices(invoice_pb2.GenerateInvoicesRequest(issue=True))
        first = next(run)
        server.stop()
        with pytest.raises(grpc.RpcError):
            list(run)
        server.start()
        done = ended(server.stubs(), pb.Operation(operation_id=first.operation_id))
        assert (done.state, done.done_count) == (pb.Operation.STATE_SUCCEEDED, 40)
        assert numbers(server.stubs()) == list(range(1, 1361))


def test_operations_are_listed_by_state_and_a_state_that_is_none_is_refused(stubs: Stubs) -> None:
    done = ended(stubs, start(stubs))
    request = pb.ListOperationsRequest(state=pb.Operation.STATE_SUCCEEDED, page_size=1)
    assert list(stubs.operations.ListOperations(request).operations) == [done]
    failed = refusal(stubs.operations.ListOperations, pb.ListOperationsRequest(state=99))  # type: ignore[arg-type]
    assert list(failed.fields) == ["state"]


def test_the_command_line_starts_waits_for_and_cancels(shop: Shop, server: ServerProcess) -> None:
    terminal = Terminal(server.address)
    (sub,) = stock(shop, 1, 3)
    begun = terminal.json("invoice", "generate", "--customer", sub.customer_key, "--detach")
    done = terminal.json("operation", "wait", begun["operation_id"])
    assert (done["state"], done["invoice_count"]) == ("STATE_SUCCEEDED", "3")
    assert "succeeded" in terminal.run("operation", "get", begun["operation_id"]).stdout
    assert "generate invoices" in terminal.run("operation", "list", "--state", "succeeded").stdout
    assert "succeeded" in terminal.run("operation", "cancel", begun["operation_id"]).stdout
