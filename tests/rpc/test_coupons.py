"""Coupons over the wire and on the command line."""

import pytest

from ammeter.v1 import coupon_pb2, customer_pb2, invoice_pb2
from tests.rpc.shop import Shop, flat, minutes_ago, per_unit, stamp, unique
from tests.rpc.terminal import Terminal
from tests.rpc.wire import refusal
from tests.serving import ServerProcess, Stubs

Kind = invoice_pb2.InvoiceLine.Kind


@pytest.fixture(scope="module")
def shop(stubs: Stubs) -> Shop:
    return Shop(stubs, "coupon")


@pytest.fixture(scope="module")
def terminal(server: ServerProcess) -> Terminal:
    return Terminal(server.address)


def issued(shop: Shop, customer: str) -> invoice_pb2.Invoice:
    request = invoice_pb2.GenerateInvoicesRequest(customer_key=customer, issue=True)
    return next(iter(shop.stubs.invoices.GenerateInvoices(request))).invoice


def test_an_invoice_says_which_coupon_took_what_off(shop: Shop) -> None:
    subject = unique("s")
    customer = shop.customer(subject)
    plan = shop.plan(flat("20"), per_unit(shop.feature(shop.meter()), "0.1"), billing_cadence="P1D")
    sub = shop.subscribe(customer, plan, minutes_ago(60 * 25))
    shop.record(shop.event(subject, 101, time=stamp(minutes_ago(60 * 20))))
    key = shop.coupon("25", period_count=1)
    attached = shop.attach(key, subscription_id=sub.subscription_id, from_time=stamp(minutes_ago(60 * 24)))
    assert (attached.customer_key, attached.subscription_id) == (customer, sub.subscription_id)
    invoice = issued(shop, customer)
    found = [line for line in invoice.lines if line.kind == Kind.KIND_COUPON]
    assert [(line.amount, line.coupon_key, line.attached_coupon_id) for line in found] == [
        ("-5.00", key, attached.attached_coupon_id),
        ("-2.53", key, attached.attached_coupon_id),
    ]
    assert (found[0].description, found[0].details[0].description) == (
        f"Coupon {shop.mark}",
        "25 percent of 20.00",
    )
    assert invoice.total == "22.57"


def test_coupons_are_read_back_listed_and_closed(shop: Shop) -> None:
    key = shop.coupon(amount="10.50", currency="USD", period_count=3)
    made = shop.stubs.coupons.GetCoupon(coupon_pb2.GetCouponRequest(coupon_key=key)).coupon
    assert (made.amount, made.currency, made.period_count, made.percentage) == ("10.5", "USD", 3, "")
    assert made in shop.stubs.coupons.ListCoupons(coupon_pb2.ListCouponsRequest()).coupons
    closed = shop.stubs.coupons.ArchiveCoupon(coupon_pb2.ArchiveCouponRequest(coupon_key=key)).coupon
    assert closed.HasField("archive_time")
    attach = coupon_pb2.AttachCouponRequest(coupon_key=key, customer_key=shop.customer())
    failed = refusal(shop.stubs.coupons.AttachCoupon, attach)
    assert (failed.code, failed.reason) == ("FAILED_PRECONDITION", "WRONG_STATE")


def test_what_is_wrong_with_a_coupon_is_told_with_its_path(shop: Shop) -> None:
    wrong = coupon_pb2.Coupon(coupon_key="X", percentage="101", currency="USD", period_count=-1)
    failed = refusal(shop.stubs.coupons.CreateCoupon, coupon_pb2.CreateCouponRequest(coupon=wrong))
    assert (failed.code, set(failed.fields)) == (
        "INVALID_ARGUMENT",
        {"coupon.coupon_key", "coupon.percentage", "coupon.currency", "coupon.period_count"},
    )
    failed = refusal(
        shop.stubs.coupons.AttachCoupon, coupon_pb2.AttachCouponRequest(coupon_key=shop.coupon())
    )
    assert list(failed.fields) == ["customer_key"]
    attached = shop.attach(shop.coupon(), customer_key=shop.customer())
    past = coupon_pb2.DetachCouponRequest(
        attached_coupon_id=attached.attached_coupon_id, to_time=stamp(minutes_ago(5))
    )
    assert list(refusal(shop.stubs.coupons.DetachCoupon, past).fields) == ["to_time"]


def test_a_customer_with_a_coupon_keeps_the_currency(shop: Shop) -> None:
    customer = shop.customer()
    shop.attach(shop.coupon(amount="1", currency="USD"), customer_key=customer)
    change = customer_pb2.Customer(customer_key=customer, currency="EUR")
    failed = refusal(shop.stubs.customers.UpdateCustomer, customer_pb2.UpdateCustomerRequest(customer=change))
    assert failed.code == "FAILED_PRECONDITION"
    euro = shop.coupon(amount="1", currency="EUR")
    failed = refusal(
        shop.stubs.coupons.AttachCoupon,
        coupon_pb2.AttachCouponRequest(coupon_key=euro, customer_key=customer),
    )
    assert "is in EUR, the customer pays in USD" in failed.message


def test_the_command_line_makes_attaches_and_detaches_coupons(shop: Shop, terminal: Terminal) -> None:
    made = terminal.json("coupon", "create", "cli", "--percent", "10", "--periods", "2", "--name", "Ten")
    assert (made["percentage"], made["period_count"]) == ("10", 2)
    assert "2 periods" in terminal.run("coupon", "get", "cli").stdout
    customer = shop.customer()
    attached = terminal.json("coupon", "attach", "cli", "--customer", customer, "--from", "1d")
    assert "cli" in terminal.run("coupon", "attached", "--customer", customer).stdout
    ended = terminal.json("coupon", "detach", attached["attached_coupon_id"])
    assert ended["to_time"]
    terminal.run("coupon", "create", "both", "--percent", "1", "--amount", "1", code=2)
    terminal.run("coupon", "archive", "cli")
    assert "cli" in terminal.run("coupon", "list").stdout
