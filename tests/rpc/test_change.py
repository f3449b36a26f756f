"""Changes of subscriptions over the wire: plan, seats, resume, migration; and their verbs."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ammeter.v1 import catalog_pb2, invoice_pb2
from ammeter.v1 import subscription_pb2 as pb
from tests.rpc.shop import Shop, flat, minutes_ago, stamp
from tests.rpc.terminal import Terminal
from tests.rpc.wire import refusal
from tests.serving import ServerProcess, Stubs


@pytest.fixture(scope="module")
def shop(stubs: Stubs) -> Shop:
    return Shop(stubs, "change")


@pytest.fixture
def terminal(server: ServerProcess) -> Terminal:
    return Terminal(server.address)


def seat(amount: str) -> catalog_pb2.RateCard:
    card = flat(amount, "seats")
    card.price.flat.per_seat = True
    return card


def get(shop: Shop, sub: pb.Subscription) -> pb.Subscription:
    request = pb.GetSubscriptionRequest(subscription_id=sub.subscription_id)
    return shop.stubs.subscriptions.GetSubscription(request).subscription


def publish(shop: Shop, key: str, *cards: catalog_pb2.RateCard) -> None:
    shop.draft(*cards, plan_key=key)
    shop.stubs.catalog.PublishPlan(catalog_pb2.PublishPlanRequest(plan_key=key))


def test_a_price_per_seat_is_read_back(shop: Shop) -> None:
    plan = shop.plan(seat("9"))
    found = shop.stubs.catalog.GetPlan(catalog_pb2.GetPlanRequest(plan_key=plan)).plan
    assert list(found.rate_cards) == [seat("9")]


def test_a_plan_is_changed_now_and_seats_at_the_periods_end(shop: Shop) -> None:
    small, big = shop.plan(seat("9")), shop.plan(seat("19"))
    customer = shop.customer()
    create = pb.CreateSubscriptionRequest(
        customer_key=customer, plan_key=small, quantity=4, start_time=stamp(minutes_ago(90))
    )
    sub = shop.stubs.subscriptions.CreateSubscription(create).subscription
    assert (sub.quantity, sub.plan_key) == (4, small)
    change = pb.ChangeSubscriptionRequest(subscription_id=sub.subscription_id, plan_key=big)
    changed = shop.stubs.subscriptions.ChangeSubscription(change).subscription
    assert (changed.plan_key, changed.quantity, changed.anchor_time) == (big, 4, sub.anchor_time)
    assert [one.plan_key for one in changed.spans] == [small, big]
    assert changed.spans[0].end_time == changed.spans[1].start_time
    assert changed.spans[1].start_time.seconds % 60 == 0
    request = pb.SetSubscriptionQuantityRequest(
        subscription_id=sub.subscription_id, quantity=7, timing=pb.CHANGE_TIMING_PERIOD_END
    )
    more = shop.stubs.subscriptions.SetSubscriptionQuantity(request).subscription
    assert [one.quantity for one in more.spans] == [4, 4, 7]
    assert more.spans[2].start_time == more.period_end_time
    assert get(shop, sub) == more
    assert more.update_time.seconds >= more.create_time.seconds


def test_seats_of_none_and_seats_left_out_are_told_apart(shop: Shop) -> None:
    plan = shop.plan(seat("9"))
    for quantity, expected in ((None, 1), (0, 0)):
        create = pb.CreateSubscriptionRequest(customer_key=shop.customer(), plan_key=plan, quantity=quantity)
        assert shop.stubs.subscriptions.CreateSubscription(create).subscription.quantity == expected


def test_what_cannot_be_changed_is_refused_by_name(shop: Shop) -> None:
    plan = shop.plan(flat("1"))
    sub = shop.subscribe(shop.customer(), plan)
    change = shop.stubs.subscriptions.ChangeSubscription
    yearly, euros = shop.plan(billing_cadence="P1Y"), shop.plan(currency="EUR")
    for key, word in ((plan, "nothing to change"), (yearly, "P1Y"), (euros, "EUR")):
        failed = refusal(
            change, pb.ChangeSubscriptionRequest(subscription_id=sub.subscription_id, plan_key=key)
        )
        assert (failed.code, failed.reason) == ("FAILED_PRECONDITION", "WRONG_STATE")
        assert word in failed.message
    other = shop.plan(flat("2"))
    wrong = [
        ({"timing": pb.CHANGE_TIMING_AT_TIME}, "change_time"),
        ({"timing": 9}, "timing"),
        ({"phase_key": "gold"}, "phase_key"),
        ({"quantity": -1}, "quantity"),
        ({"quantity": 10**10}, "quantity"),
        (
            {
                "timing": pb.CHANGE_TIMING_AT_TIME,
                "change_time": stamp(datetime.now(UTC) + timedelta(days=400)),
            },
            "change_time",
        ),
    ]
    for fields, field in wrong:
        request = pb.ChangeSubscriptionRequest(
            subscription_id=sub.subscription_id,
            plan_key=other,
            **fields,  # type: ignore[arg-type]
        )
        failed = refusal(change, request)
        assert (failed.code, list(failed.fields)) == ("INVALID_ARGUMENT", [field])
    unknown = refusal(change, pb.ChangeSubscriptionRequest(subscription_id="sub_x", plan_key=other))
    assert unknown.code == "NOT_FOUND"
    assert get(shop, sub) == sub


def test_a_cancellation_is_taken_back_once(shop: Shop) -> None:
    sub = shop.subscribe(shop.customer(), shop.plan(flat("1")), minutes_ago(60))
    cancel = pb.CancelSubscriptionRequest(
        subscription_id=sub.subscription_id, timing=pb.CANCEL_TIMING_PERIOD_END
    )
    assert shop.stubs.subscriptions.CancelSubscription(cancel).subscription.HasField("end_time")
    resume = pb.ResumeSubscriptionRequest(subscription_id=sub.subscription_id)
    resumed = shop.stubs.subscriptions.ResumeSubscription(resume).subscription
    assert not resumed.HasField("end_time")
    assert not resumed.HasField("cancel_time")
    again = refusal(shop.stubs.subscriptions.ResumeSubscription, resume)
    assert (again.code, again.reason) == ("FAILED_PRECONDITION", "WRONG_STATE")


def test_a_migration_is_tried_done_and_repeated(shop: Shop) -> None:
    plan = shop.plan(flat("1"))
    subs = [shop.subscribe(shop.customer(), plan, minutes_ago(60)) for _ in range(3)]
    publish(shop, plan, flat("2"))
    request = pb.MigrateSubscriptionsRequest(plan_key=plan, timing=pb.CHANGE_TIMING_NOW, dry_run=True)
    migrate = shop.stubs.subscriptions.MigrateSubscriptions
    planned = list(migrate(request))
    assert [one.subscription_id for one in planned] == [*(one.subscription_id for one in subs), ""]
    assert (planned[-1].moved_count, planned[-1].done_count, planned[-1].total_count) == (3, 3, 3)
    assert [get(shop, one) for one in subs] == subs, "nothing was written"
    request.dry_run = False
    assert [one.moved_count for one in migrate(request)] == [1, 2, 3, 3]
    assert {get(shop, one).plan_version for one in subs} == {2}
    preview = invoice_pb2.PreviewInvoiceRequest(customer_key=subs[0].customer_key)
    lines = shop.stubs.invoices.PreviewInvoice(preview).invoice.lines
    assert [(line.plan_key, line.plan_version) for line in lines] == [(plan, 1), (plan, 2)], "priced by both"
    assert [one.moved_count for one in migrate(request)] == [0]
    for fields, code in (
        ({"plan_key": "nothing"}, "NOT_FOUND"),
        ({"plan_key": plan, "to_version": 9}, "NOT_FOUND"),
        ({"plan_key": plan, "to_version": -1}, "NOT_FOUND"),
        ({"plan_key": plan, "from_version": 2, "to_version": 2}, "INVALID_ARGUMENT"),
        ({"plan_key": plan, "timing": 9}, "INVALID_ARGUMENT"),
    ):
        assert refusal(migrate, pb.MigrateSubscriptionsRequest(**fields)).code == code


def test_a_change_is_previewed_before_it_is_made(shop: Shop, terminal: Terminal) -> None:
    customer, big = shop.customer(), shop.plan(flat("200"))
    sub = shop.subscribe(customer, shop.plan(flat("100"), billing_cadence="P1D"), minutes_ago(60))
    monthly = pb.PlannedChange(plan_key=big)
    preview = shop.stubs.invoices.PreviewInvoice
    request = invoice_pb2.PreviewInvoiceRequest(customer_key=customer, change=monthly)
    failed = refusal(preview, request)
    assert (failed.code, list(failed.fields)) == ("FAILED_PRECONDITION", ["change.plan_key"])
    daily = shop.plan(seat("200"), billing_cadence="P1D")
    request.change.plan_key, request.change.quantity = daily, 3
    invoice = preview(request).invoice
    assert (invoice.plan_key, len(invoice.lines)) == (daily, 2)
    old, new = invoice.lines
    assert old.covered_seconds + new.covered_seconds == old.period_seconds == 86_400
    assert new.quantity == "3"
    assert get(shop, sub) == sub, "nothing was written"
    request.change.timing = 9  # type: ignore[assignment]
    assert list(refusal(preview, request).fields) == ["change.timing"]
    shown = terminal.json("invoice", "preview", customer, "--plan", daily, "--quantity", "3")
    assert shown["lines"][1]["quantity"] == "3"


def test_the_verbs_of_the_command_line(shop: Shop, terminal: Terminal, tmp_path: Path) -> None:
    small, big = shop.plan(seat("9")), shop.plan(seat("19"))
    customer = shop.customer()
    sub = terminal.json("subscribe", customer, small, "--quantity", "2")["subscription_id"]
    assert "a seat and period" in terminal.run("plan", "get", small).stdout
    changed = terminal.run("subscription", "change", sub, big, "--at-period-end").stdout
    assert f"{big}, version 1, 2 seats" in " ".join(changed.split())
    assert terminal.json("subscription", "quantity", sub, "5")["quantity"] == "5"
    terminal.run("cancel", sub, "--at-period-end")
    assert "end_time" not in terminal.json("subscription", "resume", sub)
    file = tmp_path / "plan.json"
    file.write_text(json.dumps({"plan_key": small, "rate_cards": [{"rate_card_key": "No"}]}))
    faulty = " ".join(terminal.run("plan", "draft", str(file)).stdout.split())
    assert "plan.rate_cards[0].rate_card_key" in faulty
    file.write_text(json.dumps({"plan_key": small, "name": "Second"}))
    assert terminal.json("plan", "draft", "--update", str(file))["version"] == 2
    assert terminal.json("plan", "publish", small)["state"] == "STATE_ACTIVE"
    assert "Second" in terminal.run("plan", "list", "--versions", small).stdout
    assert terminal.json("plan", "get", small, "--version", "1")["state"] == "STATE_ARCHIVED"
    listed = " ".join(terminal.run("subscription", "migrate", small, "--now", "--dry-run").stdout.split())
    assert "1 would move, 0 cannot, 1 were looked at" in listed
    assert "1 moved" in terminal.run("subscription", "migrate", small, "--now").stdout
    assert terminal.json("plan", "archive", small)["state"] == "STATE_ARCHIVED"
