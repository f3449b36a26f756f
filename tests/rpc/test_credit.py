"""Prepaid credits over the wire and by the command line."""

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from ammeter.v1 import credit_pb2 as pb
from ammeter.v1 import invoice_pb2, notification_pb2
from tests.rpc.shop import Shop, eventually, flat, minutes_ago, per_unit, stamp, unique
from tests.rpc.terminal import Terminal
from tests.rpc.wire import refusal
from tests.serving import ServerProcess, Stubs


@pytest.fixture(scope="module")
def server(
    new_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """A server whose worker looks often."""
    with ServerProcess(
        new_database(), tmp_path_factory.mktemp("server"), billing_interval_seconds=0.2
    ) as process:
        yield process


@pytest.fixture(scope="module")
def shop(stubs: Stubs) -> Shop:
    return Shop(stubs)


@pytest.fixture(scope="module")
def terminal(server: ServerProcess) -> Terminal:
    return Terminal(server.address)


def lot(stubs: Stubs, customer: str, amount: str, **fields: Any) -> pb.CreditLot:  # noqa: ANN401 - fields of CreditLot
    wanted = pb.CreditLot(customer_key=customer, amount=amount, **fields)
    return stubs.credits.PurchaseCredit(pb.PurchaseCreditRequest(credit_lot=wanted)).credit_lot


def balance(stubs: Stubs, customer: str) -> pb.GetCreditBalanceResponse:
    return stubs.credits.GetCreditBalance(pb.GetCreditBalanceRequest(customer_key=customer))


def test_a_prepaid_customer_runs_dry(shop: Shop, stubs: Stubs) -> None:
    subject = unique("subject")
    customer = shop.customer(subject)
    feature = shop.feature(shop.meter())
    shop.subscribe(customer, shop.plan(per_unit(feature, "0.5"), billing_cadence="P1D"), minutes_ago(60 * 30))
    bought = lot(stubs, customer, "10", cost_basis="8", reference="order 1")
    assert (bought.kind, bought.state) == (pb.CreditLot.KIND_PURCHASED, pb.CreditLot.STATE_ACTIVE)
    assert (bought.amount, bought.remaining, bought.cost_basis) == ("10.00", "10.00", "8.00")
    rule = pb.TopUpRule(customer_key=customer, threshold="4", amount="25")
    stubs.credits.SetTopUpRule(pb.SetTopUpRuleRequest(rule=rule))
    shop.record(shop.event(subject, 10, time=stamp(minutes_ago(60 * 29))))
    now = balance(stubs, customer)
    assert (now.remaining, now.pending, now.available, now.cost_basis) == ("10.00", "5.00", "5.00", "8.00")
    assert [(each.credit_lot.credit_lot_id, each.pending) for each in now.lots] == [
        (bought.credit_lot_id, "5.00")
    ]
    run = invoice_pb2.GenerateInvoicesRequest(customer_key=customer, issue=True)
    (first, _) = list(stubs.invoices.GenerateInvoices(run))
    assert (first.invoice.total, first.invoice.prepaid_total, first.invoice.amount_due) == (
        "5.00",
        "5.00",
        "0.00",
    )
    shop.record(shop.event(subject, 4))
    request = pb.ListCreditEventsRequest(customer_key=customer)
    stubs.credits.SetTopUpRule(pb.SetTopUpRuleRequest(rule=rule))  # looked at as soon as can be
    eventually(lambda: len(stubs.credits.ListCreditEvents(request).events) == 1)
    (event,) = stubs.credits.ListCreditEvents(request).events
    assert (event.kind, event.available, event.amount) == (pb.CreditEvent.KIND_TOP_UP_NEEDED, "3.00", "25.00")
    told = stubs.credits.GetTopUpRule(pb.GetTopUpRuleRequest(customer_key=customer)).rule
    assert not told.armed
    buying = pb.PurchaseCreditRequest(
        credit_lot=pb.CreditLot(customer_key=customer, amount=event.amount), request_id=event.credit_event_id
    )
    assert stubs.credits.PurchaseCredit(buying) == stubs.credits.PurchaseCredit(buying)
    assert balance(stubs, customer).available == "28.00"
    preview = stubs.invoices.PreviewInvoice(invoice_pb2.PreviewInvoiceRequest(customer_key=customer)).invoice
    assert (preview.total, preview.prepaid_total, preview.amount_due) == ("2.00", "2.00", "0.00")


def test_the_ledger_tells_every_movement_and_a_void_gives_back(shop: Shop, stubs: Stubs) -> None:
    customer = shop.customer()
    shop.subscribe(customer, shop.plan(flat("10"), billing_cadence="P1D"), minutes_ago(60 * 25))
    bought = lot(stubs, customer, "12")
    run = invoice_pb2.GenerateInvoicesRequest(customer_key=customer, issue=True)
    made = next(iter(stubs.invoices.GenerateInvoices(run))).invoice
    assert [(one.credit_lot_id, one.line_id, one.amount) for one in made.prepaid] == [
        (bought.credit_lot_id, made.lines[0].line_id, "10.00")
    ]
    stubs.invoices.VoidInvoice(invoice_pb2.VoidInvoiceRequest(invoice_id=made.invoice_id))
    gone = stubs.credits.VoidCreditLot(pb.VoidCreditLotRequest(credit_lot_id=bought.credit_lot_id)).credit_lot
    assert (gone.state, gone.remaining) == (pb.CreditLot.STATE_VOID, "0.00")
    page = stubs.credits.ListCreditTransactions(pb.ListCreditTransactionsRequest(customer_key=customer))
    kinds = [pb.CreditTransaction.Kind.Name(one.kind) for one in page.transactions]
    assert kinds == ["KIND_VOID", "KIND_RETURN", "KIND_APPLY", "KIND_PURCHASE"]
    apply = page.transactions[2]
    assert apply.invoice_id == made.invoice_id
    assert [(pb.CreditEntry.Account.Name(e.account), e.amount) for e in apply.entries] == [
        ("ACCOUNT_LOT", "-10.00"),
        ("ACCOUNT_APPLIED", "10.00"),
    ]
    request = pb.ListCreditTransactionsRequest(credit_lot_id=bought.credit_lot_id, page_size=3)
    first = stubs.credits.ListCreditTransactions(request)
    request.page_token = first.next_page_token
    rest = stubs.credits.ListCreditTransactions(request)
    assert [*first.transactions, *rest.transactions] == list(page.transactions)
    assert not rest.next_page_token


def test_a_lot_that_cannot_be_is_refused_with_every_field_at_fault(shop: Shop, stubs: Stubs) -> None:
    customer = shop.customer()
    wrong = pb.CreditLot(
        customer_key=customer,
        amount="0.001",
        cost_basis="1",
        priority=2000,
        feature_keys=["none"],
        effective_time=stamp(minutes_ago(5)),
        expire_time=stamp(minutes_ago(6)),
    )
    failed = refusal(stubs.credits.GrantCredit, pb.GrantCreditRequest(credit_lot=wrong))
    assert failed.code == "INVALID_ARGUMENT"
    assert failed.fields.keys() == {
        f"credit_lot.{name}"
        for name in ("amount", "cost_basis", "priority", "feature_keys[0]", "effective_time", "expire_time")
    }
    for field, request in (
        ("credit_lot.customer_key", pb.CreditLot(amount="1")),
        ("credit_lot.amount", pb.CreditLot(customer_key=customer)),
        ("credit_lot.amount", pb.CreditLot(customer_key=customer, amount="NaN")),
        ("credit_lot.cost_basis", pb.CreditLot(customer_key=customer, amount="1", cost_basis="-1")),
        ("credit_lot.currency", pb.CreditLot(customer_key=customer, amount="1", currency="EUR")),
    ):
        failed = refusal(stubs.credits.PurchaseCredit, pb.PurchaseCreditRequest(credit_lot=request))
        assert list(failed.fields) == [field]
    failed = refusal(
        stubs.credits.SetTopUpRule,
        pb.SetTopUpRuleRequest(rule=pb.TopUpRule(customer_key=customer, threshold="0", amount="0.005")),
    )
    assert failed.fields.keys() == {"rule.threshold", "rule.amount"}
    empty = pb.SetTopUpRuleRequest(rule=pb.TopUpRule(customer_key=customer))
    assert refusal(stubs.credits.SetTopUpRule, empty).fields.keys() == {"rule.threshold", "rule.amount"}
    assert balance(stubs, customer).remaining == "0.00"
    assert refusal(stubs.credits.GetCreditBalance, pb.GetCreditBalanceRequest()).fields.keys() == {
        "customer_key"
    }


def test_a_rule_that_is_deleted_is_not_there(shop: Shop, stubs: Stubs) -> None:
    customer = shop.customer()
    rule = pb.TopUpRule(customer_key=customer, threshold="1", amount="1")
    stubs.credits.SetTopUpRule(pb.SetTopUpRuleRequest(rule=rule))
    stubs.credits.DeleteTopUpRule(pb.DeleteTopUpRuleRequest(customer_key=customer))
    failed = refusal(stubs.credits.GetTopUpRule, pb.GetTopUpRuleRequest(customer_key=customer))
    assert failed.code == "NOT_FOUND"


def test_a_lot_expires_by_itself(shop: Shop, stubs: Stubs, server: ServerProcess) -> None:
    made = lot(stubs, shop.customer(), "5", expire_time=stamp(minutes_ago(-60)))
    with psycopg.connect(server._environment["AMMETER_DATABASE_URL"]) as conn:  # an hour goes by
        conn.execute("SET session_replication_role = replica")
        conn.execute(
            "UPDATE credit_lots SET effective_time = now() - interval '1 hour', expire_time = now() "
            "WHERE credit_lot_id = %s",
            [made.credit_lot_id],
        )
    request = pb.ListCreditTransactionsRequest(credit_lot_id=made.credit_lot_id)
    eventually(lambda: len(stubs.credits.ListCreditTransactions(request).transactions) == 2)
    gone = stubs.credits.GetCreditLot(pb.GetCreditLotRequest(credit_lot_id=made.credit_lot_id)).credit_lot
    assert (gone.state, gone.remaining) == (pb.CreditLot.STATE_EXPIRED, "0.00")
    failed = refusal(stubs.credits.VoidCreditLot, pb.VoidCreditLotRequest(credit_lot_id=made.credit_lot_id))
    assert failed.code == "FAILED_PRECONDITION"


def test_a_top_up_that_is_needed_is_listed_and_watched(shop: Shop, terminal: Terminal) -> None:
    customer, notified = shop.customer(), shop.stubs.notifications
    watching = notification_pb2.WatchNotificationsRequest(customer_key=customer)
    stream = notified.WatchNotifications(watching)
    rule = pb.TopUpRule(customer_key=customer, threshold="20", amount="50.00")
    shop.stubs.credits.SetTopUpRule(pb.SetTopUpRuleRequest(rule=rule))
    told = next(iter(stream)).notification
    stream.cancel()
    [event] = shop.stubs.credits.ListCreditEvents(pb.ListCreditEventsRequest(customer_key=customer)).events
    assert told == notification_pb2.Notification(
        sequence=told.sequence,
        kind=notification_pb2.NOTIFICATION_KIND_TOP_UP_NEEDED,
        customer_key=customer,
        create_time=event.create_time,
        top_up=notification_pb2.TopUpNeeded(
            credit_event_id=event.credit_event_id,
            currency="USD",
            available="0.00",
            threshold="20.00",
            amount="50.00",
        ),
    )
    for kind, expected in ((6, [told]), (3, []), (0, [told])):
        wanted = notification_pb2.ListNotificationsRequest(customer_key=customer, kind=kind)  # type: ignore[arg-type]
        assert list(notified.ListNotifications(wanted).notifications) == expected
    wanted = notification_pb2.ListNotificationsRequest(kind=9)  # type: ignore[arg-type]
    assert list(refusal(notified.ListNotifications, wanted).fields) == ["kind"]
    shown = terminal.run("notification", "list", "--customer", customer, "--kind", "top-up-needed").stdout
    assert "top up needed" in shown
    assert "20.00 USD" in shown
    assert "exhausted" in terminal.run("notification", "list", "--kind", "nothing", code=2).stderr


def test_the_command_line_sells_shows_and_voids_credits(shop: Shop, terminal: Terminal) -> None:
    customer = shop.customer()
    made = terminal.json("credit", "grant", customer, "5", "--priority", "2", "--expires", "+30d")
    terminal.json("credit", "purchase", customer, "20", "--paid", "15", "--reference", "order 2")
    assert "25.00 USD" in terminal.run("credit", "balance", customer).stdout
    assert "order 2" in terminal.run("credit", "list", "--customer", customer, "--json").stdout
    terminal.run("credit", "top-up", "set", customer, "--below", "30", "--amount", "50")
    assert "30.00" in terminal.run("credit", "top-up", "get", customer).stdout
    eventually(lambda: "top up needed" in terminal.run("credit", "events", "--customer", customer).stdout)
    assert "deleted" in terminal.run("credit", "top-up", "delete", customer).stdout
    assert "void" in terminal.run("credit", "void", made["credit_lot_id"]).stdout
    assert "0.00" in terminal.run("credit", "get", made["credit_lot_id"]).stdout
    assert "purchased" in terminal.run("credit", "ledger", "--customer", customer).stdout
    assert "voided" in terminal.run("credit", "ledger", "--lot", made["credit_lot_id"]).stdout
