"""Invoices with coupons: late use, in advance, void and anew, taxes, and who gets what for how long."""

from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal

import pytest

from ammeter.domain.coupon import AttachedCoupon, CouponDraft
from ammeter.domain.invoice import Invoice
from ammeter.domain.profile import IssueMode, TaxRule
from ammeter.domain.subscription import Subscription
from ammeter.errors import InvalidInputError, NotFoundError, PreconditionError
from ammeter.store.db import Database
from ammeter.usecases.coupons import attach_coupon, create_coupon, detach_coupon
from tests.usecases.billing_world import World, flat, lines, unit, utc
from tests.usecases.test_bill_prices import explained


@pytest.fixture
def db(database_url: str) -> Iterator[Database]:
    one = Database(database_url)
    yield one
    one.close()


@pytest.fixture
def world(db: Database) -> World:
    return World(db)


def coupon(world: World, key: str = "off", **fields: object) -> str:
    with world.db.tenant(world.tenant_id) as tx:
        create_coupon(tx, CouponDraft(key, **fields), world.now)  # type: ignore[arg-type]
    return key


def attach(
    world: World, key: str, sub: Subscription, time: datetime | None = None, *, customer: bool = False
) -> AttachedCoupon:
    with world.db.tenant(world.tenant_id) as tx:
        names = (sub.customer_key, "") if customer else ("", sub.subscription_id)
        return attach_coupon(tx, key, *names, time or world.now, world.now)


def detach(world: World, attached: AttachedCoupon) -> AttachedCoupon:
    with world.db.tenant(world.tenant_id) as tx:
        return detach_coupon(tx, attached.attached_coupon_id, world.now, world.now)


def off(invoice: Invoice) -> list[tuple[str, int, str]]:
    return [
        (line.feature_key and line.feature_key[-1], line.period_index, str(line.amount))
        for line in invoice.lines
        if line.kind.value == "coupon"
    ]


def test_a_percentage_is_taken_off_each_feature_and_again_off_what_comes_late(world: World) -> None:
    sub = world.subscribe(world.plan(flat("20"), unit("0.1")), utc(2026, 1, 1))
    attach(world, coupon(world, percentage="25"), sub)
    world.use(sub, utc(2026, 1, 5), 101, "model1")
    world.now = utc(2026, 2, 1)
    [first] = world.generate(issue=True)
    assert off(first) == [("0", 0, "-5.00"), ("1", 0, "-2.53")]
    assert str(first.total) == "22.57"
    assert explained(first.lines[2]) == [("25 percent of 20.00", "", "", "-5.00")]
    assert first.lines[2].description == "Coupon off"
    assert world.get(first) == first
    world.use(sub, utc(2026, 1, 6), 3, "model1")
    world.now = utc(2026, 3, 1)
    [second] = world.generate(issue=True)
    # of 30.40 in all 7.60 are off: 5.00 and 2.60, less 2.53 before
    assert off(second) == [("0", 1, "-5.00"), ("1", 0, "-0.07")]
    assert explained(second.lines[-1])[-1] == ("taken off before", "", "", "2.53")


def test_an_amount_takes_at_most_what_there_is_and_the_rest_of_late_use(world: World) -> None:
    sub = world.subscribe(world.plan(unit("1")), utc(2026, 1, 1))
    attach(world, coupon(world, amount="10", currency="USD", period_count=1), sub)
    world.use(sub, utc(2026, 1, 5), 7)
    world.now = utc(2026, 2, 1)
    [first] = world.generate(issue=True)
    assert (off(first), str(first.total)) == ([("0", 0, "-7.00")], "0.00")
    world.use(sub, utc(2026, 1, 6), 8)
    world.use(sub, utc(2026, 2, 6), 8)
    world.now = utc(2026, 3, 1)
    [second] = world.generate(issue=True)
    assert lines(second) == [
        ("usage", "card0", 1, "8", "8.00"),
        ("late_usage", "card0", 0, "8", "8.00"),
        ("coupon", "", 0, "0", "-3.00"),
    ]
    world.use(sub, utc(2026, 1, 7), -12)
    world.now = utc(2026, 4, 1)
    third = world.generate(issue=True)[0]
    assert lines(third)[-2:] == [("late_usage", "card0", 0, "-12", "-12.00"), ("coupon", "", 0, "0", "7.00")]


def test_a_void_invoice_is_made_again_with_the_same_discount(world: World) -> None:
    sub = world.subscribe(world.plan(flat("20"), unit("1")), utc(2026, 1, 1))
    attach(world, coupon(world, percentage="50", period_count=1), sub)
    world.use(sub, utc(2026, 1, 5), 7, "model1")
    world.now = utc(2026, 2, 1)
    [first] = world.generate(issue=True)
    assert world.generate(issue=True) == []
    world.void(first)
    [again] = world.generate(issue=True)
    assert again.lines == first.lines
    world.use(sub, utc(2026, 1, 6), 1, "model1")
    world.now = utc(2026, 3, 1)
    [second] = world.generate(issue=True)
    assert off(second) == [("1", 0, "-0.50")]
    world.void(second)
    [redone] = world.generate(issue=True)
    assert redone.lines == second.lines


def test_what_is_billed_in_advance_is_less_in_advance_and_charged_back_when_it_ends(world: World) -> None:
    sub = world.subscribe(world.plan(flat("20"), advance=[0]), utc(2026, 1, 1))
    attached = attach(world, coupon(world, percentage="10"), sub)
    opening, *_ = world.generate(issue=True)
    assert off(opening) == [("0", 0, "-2.00")]
    world.now = utc(2026, 2, 1)
    [first] = world.generate(issue=True)
    assert lines(first) == [("flat", "card0", 1, "1", "20.00"), ("coupon", "", 1, "0", "-2.00")]
    world.now = utc(2026, 2, 20)
    assert detach(world, attached).to_time == world.now
    world.now = utc(2026, 3, 1)
    [second] = world.generate(issue=True)
    assert lines(second) == [("coupon", "", 1, "0", "2.00"), ("flat", "card0", 2, "1", "20.00")]


def test_coupons_apply_one_after_the_other_and_a_customers_to_each_subscription(world: World) -> None:
    sub = world.subscribe(world.plan(flat("100")), utc(2026, 1, 1))
    other = world.subscribe(world.plan(flat("40")), utc(2026, 1, 16), customer_id=sub.customer_id)
    attach(world, coupon(world, "half", percentage="50", period_count=1), sub, customer=True)
    world.now = utc(2026, 1, 1, 0, 1)
    attach(world, coupon(world, "ten", amount="10", currency="USD"), sub)
    world.now = utc(2026, 2, 16)
    made = {(one.subscription_id, one.period_index): one for one in world.generate(issue=True)}
    assert off(made[sub.subscription_id, 0]) == [("0", 0, "-50.00"), ("0", 0, "-10.00")]
    assert off(made[other.subscription_id, 0]) == [("0", 0, "-20.00")]
    world.now = utc(2026, 3, 16)
    made = {(one.subscription_id, one.period_index): one for one in world.generate(issue=True)}
    assert off(made[sub.subscription_id, 1]) == [("0", 1, "-10.00")]
    assert off(made[other.subscription_id, 1]) == []


def test_a_coupon_comes_after_the_minimum_and_before_tax_at_each_features_rate(world: World) -> None:
    plan = world.plan(unit("1"), unit("1"), minimum="50")
    sub = world.subscribe(plan, utc(2026, 1, 1))
    features = [card.feature_key for card in plan.rate_cards]
    high, low = (world.tax_rate(*each).tax_rate_key for each in (("high", "20"), ("low", "10")))
    rules = (TaxRule(features[0], (high,)), TaxRule("", (low,)))
    world.profile(tax_rules=rules)
    attach(world, coupon(world, percentage="50"), sub)
    world.use(sub, utc(2026, 1, 5), 10, "model0")
    world.use(sub, utc(2026, 1, 5), 20, "model1")
    world.now = utc(2026, 2, 1)
    [made] = world.generate(issue=True)
    assert off(made) == [("", 0, "-10.00"), ("0", 0, "-5.00"), ("1", 0, "-10.00")]
    assert [(tax.tax_rate_key, str(tax.covered_amount), str(tax.amount)) for tax in made.taxes] == [
        (high, "5.00", "1.00"),
        (low, "20.00", "2.00"),
    ]
    assert str(made.total) == "28.00"


def test_a_coupon_attached_for_the_past_comes_off_the_next_invoice(world: World) -> None:
    sub = world.subscribe(world.plan(flat("20")), utc(2026, 1, 1))
    for month in (2, 3, 4):
        world.now = utc(2026, month, 1)
        world.generate(issue=True)
    world.now = utc(2026, 4, 20)
    attach(world, coupon(world, percentage="10", period_count=2), sub, utc(2026, 2, 10))
    world.now = utc(2026, 5, 1)
    [made] = world.generate(issue=True)
    assert lines(made) == [
        ("flat", "card0", 3, "1", "20.00"),
        ("coupon", "", 1, "0", "-2.00"),
        ("coupon", "", 2, "0", "-2.00"),
    ]
    world.now = utc(2026, 6, 1)
    assert off(world.generate(issue=True)[0]) == []


def test_the_worker_gives_back_what_a_coupon_takes_off_after_the_end(world: World) -> None:
    world.profile(issue_mode=IssueMode.AUTOMATIC)
    sub = world.subscribe(world.plan(flat("20")), utc(2026, 1, 1), end=utc(2026, 2, 1))
    world.now = utc(2026, 2, 1)
    assert world.due() == (1, 1)
    world.now = utc(2026, 6, 1)
    world.due()
    attach(world, coupon(world, percentage="10"), sub, utc(2026, 1, 31))
    assert world.due() == (1, 1)
    assert lines(world.all()[-1]) == [("coupon", "", 0, "0", "-2.00")]


def test_a_preview_shows_what_will_be_off(world: World) -> None:
    sub = world.subscribe(world.plan(flat("20")), utc(2026, 1, 1))
    attach(world, coupon(world, percentage="10"), sub)
    world.now = utc(2026, 1, 10)
    assert off(world.preview(sub)) == [("0", 0, "-2.00")]


def test_what_cannot_be_attached_is_refused(world: World) -> None:
    sub = world.subscribe(world.plan(flat("20")), utc(2026, 1, 1))
    euro = coupon(world, "euro", amount="10", currency="EUR")
    with pytest.raises(PreconditionError, match="'euro' is in EUR, the customer pays in USD"):
        attach(world, euro, sub)
    ten = coupon(world, "ten", percentage="10")
    attach(world, ten, sub)
    with pytest.raises(PreconditionError, match="attached there already"):
        attach(world, ten, sub)
    attach(world, ten, sub, customer=True)
    with pytest.raises(InvalidInputError) as refused:
        attach(world, ten, sub, utc(2024, 12, 1))
    assert refused.value.violations[0].field == "from_time"
    with world.db.tenant(world.tenant_id) as tx:
        for names in (("", ""), (sub.customer_key, sub.subscription_id)):
            with pytest.raises(InvalidInputError):
                attach_coupon(tx, ten, *names, world.now, world.now)
        with pytest.raises(NotFoundError):
            attach_coupon(tx, "none", sub.customer_key, "", world.now, world.now)
        with pytest.raises(NotFoundError):
            attach_coupon(tx, ten, "nobody", "", world.now, world.now)


def test_a_coupon_that_was_detached_may_be_attached_again(world: World) -> None:
    sub = world.subscribe(world.plan(flat("20")), utc(2026, 1, 1))
    ten = coupon(world, percentage="10")
    first = attach(world, ten, sub)
    ended = detach(world, first)
    assert detach(world, first) == ended
    attach(world, ten, sub)
    world.now = utc(2026, 2, 1)
    [made] = world.generate()
    assert off(made) == [("0", 0, "-2.00")]
    assert made.subtotal == Decimal("18.00")
