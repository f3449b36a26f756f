"""Prepaid credits against a real Postgres: they pay at issue, come back with a void, expire by the minute."""

from datetime import timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from ammeter.domain.credit_lot import CreditLot, LotDraft, LotKind, MoveKind, Transaction
from ammeter.domain.invoice import Invoice
from ammeter.domain.lifecycle import amount_due
from ammeter.domain.profile import TaxRule
from ammeter.domain.subscription import Subscription
from ammeter.domain.top_up import TopUpRule
from ammeter.errors import InvalidInputError, PreconditionError
from ammeter.store import credit_ledger, credit_lots, notifications, top_ups
from ammeter.store.db import Database
from ammeter.usecases.credit_balance import credit_balance
from ammeter.usecases.credit_lots import expire_credits, make_lot, void_lot
from ammeter.usecases.top_up import check_top_ups, set_rule
from tests.usecases.billing_world import World, flat, unit, utc


@pytest.fixture
def world(db: Database) -> World:
    return World(db)


@pytest.fixture(scope="module")
def db(database_url: str) -> Any:  # noqa: ANN401 - a generator fixture
    database = Database(database_url)
    yield database
    database.close()


def credit(world: World, sub: Subscription, amount: str, **fields: Any) -> CreditLot:  # noqa: ANN401 - fields of LotDraft
    kind = LotKind.PURCHASED if fields.pop("paid", False) else LotKind.GRANTED
    with world.db.tenant(world.tenant_id) as tx:
        return make_lot(tx, LotDraft(sub.customer_key, Decimal(amount), **fields), kind, world.now)


def left(world: World, lot: CreditLot) -> str:
    with world.db.tenant(world.tenant_id) as tx:
        return f"{credit_lots.get(tx, lot.credit_lot_id).remaining:f}"


def moves(world: World, lot: CreditLot) -> list[str]:
    with world.db.tenant(world.tenant_id) as tx:
        return [one.kind.value for one in credit_ledger.page(tx, None, lot.credit_lot_id, None, 100)][::-1]


def balance(world: World, sub: Subscription) -> tuple[str, str, str]:
    found = credit_balance(world.run, world.tenant_id, sub.customer_key, world.now)
    return f"{found.remaining:f}", f"{found.pending:f}", f"{found.available:f}"


def faults(world: World) -> list[str]:
    with world.db.engine() as conn:
        return [fault.what for fault in credit_ledger.faults(conn, world.tenant_id)]


def month(world: World, *prices: str, **fields: Any) -> Subscription:  # noqa: ANN401 - fields of World.plan
    return world.subscribe(world.plan(*(flat(price) for price in prices), **fields), utc(2026, 1, 1))


def issued(world: World) -> Invoice:
    world.now = utc(2026, 2, 1)
    (made,) = world.generate(issue=True)
    return world.get(made)


def test_credits_come_off_last_and_say_which_lot_paid_which_line(world: World) -> None:
    sub = month(world, "10.00", "20.00")
    world.tax_rate("vat", "19")
    world.profile(tax_rules=(TaxRule("", ("vat",)),))
    second = credit(world, sub, "100", priority=1)
    first = credit(world, sub, "15", paid=True)
    made = issued(world)
    assert (made.subtotal, made.total, made.prepaid_total) == (
        Decimal(30),
        Decimal("35.70"),
        Decimal("35.70"),
    )
    assert amount_due(made) == 0
    by_line = {line.line_id: line.rate_card_key for line in made.lines}
    assert [(one.credit_lot_id, by_line[one.line_id], str(one.amount)) for one in made.prepaid] == [
        (first.credit_lot_id, "card0", "11.90"),
        (first.credit_lot_id, "card1", "3.10"),
        (second.credit_lot_id, "card1", "20.70"),
    ]
    assert (left(world, first), left(world, second)) == ("0.00", "79.30")
    assert not faults(world)


def test_a_lot_for_some_features_pays_their_lines_only(world: World) -> None:
    sub = month(world, "10.00", "20.00")
    feature = world.plan(flat("1")).rate_cards[0].feature_key
    others = credit(world, sub, "50", feature_keys=(feature,))
    draft = world.preview(sub)
    made_for = credit(world, sub, "50", feature_keys=(draft.lines[1].feature_key,))
    made = issued(world)
    assert [(one.line_id, one.amount) for one in made.prepaid] == [(made.lines[1].line_id, Decimal("20.00"))]
    assert amount_due(made) == Decimal("10.00")
    assert (left(world, others), left(world, made_for)) == ("50.00", "30.00")


def test_a_draft_takes_nothing_and_a_preview_says_what_would_be_taken(world: World) -> None:
    sub = month(world, "10.00")
    lot = credit(world, sub, "4")
    assert world.preview(sub).prepaid_total == Decimal("4.00")
    assert left(world, lot) == "4.00"
    world.now = utc(2026, 2, 1)
    (draft,) = world.generate()
    assert (draft.prepaid, left(world, lot)) == ((), "4.00")
    assert world.issue(draft).prepaid_total == Decimal("4.00")
    assert left(world, lot) == "0.00"


def test_a_void_invoice_gives_back_and_its_successor_takes_again(world: World) -> None:
    sub = month(world, "10.00")
    lot = credit(world, sub, "15", paid=True)
    made = issued(world)
    assert left(world, lot) == "5.00"
    void = world.void(made)
    assert left(world, lot) == "15.00"
    world.void(void)
    assert left(world, lot) == "15.00", "once"
    assert world.get(made).prepaid_total == Decimal("10.00"), "the paper stays what it was"
    assert amount_due(world.get(made)) == 0
    world.generate(issue=True)
    assert left(world, lot) == "5.00"
    assert moves(world, lot) == ["purchase", "apply", "return", "apply"]
    assert not faults(world)


@pytest.mark.parametrize("fate", ["expire", "void"])
def test_what_comes_back_to_a_lot_that_is_over_goes_its_way_at_once(world: World, fate: str) -> None:
    sub = month(world, "10.00")
    end = utc(2026, 2, 2) if fate == "expire" else None
    lot = credit(world, sub, "15", expire_time=end)
    made = issued(world)
    world.now = utc(2026, 2, 3)
    if fate == "void":
        with world.db.tenant(world.tenant_id) as tx:
            void_lot(tx, lot.credit_lot_id, world.now)
    else:
        assert expire_credits(world.db, world.now, lambda: False) == 1
    world.void(made)
    assert left(world, lot) == "0.00"
    assert moves(world, lot) == ["grant", "apply", fate, "return", fate]
    world.generate(issue=True)
    assert world.all(standing=True)[-1].prepaid == ()
    assert not faults(world)


def test_a_lot_expires_by_the_minute_booked_or_not(world: World) -> None:
    sub = month(world, "10.00")
    lot = credit(world, sub, "15", expire_time=utc(2026, 2, 1))
    kept = credit(world, sub, "3", expire_time=utc(2026, 2, 1, 0, 1))
    made = issued(world)
    assert [one.credit_lot_id for one in made.prepaid] == [kept.credit_lot_id]
    world.now += timedelta(seconds=59)
    assert expire_credits(world.db, world.now, lambda: False) == 1
    assert expire_credits(world.db, world.now, lambda: False) == 0
    with world.db.tenant(world.tenant_id) as tx:
        booked = credit_ledger.page(tx, None, lot.credit_lot_id, None, 1)[0]
    assert (booked.kind, booked.book_time, booked.create_time) == (
        MoveKind.EXPIRE,
        utc(2026, 2, 1),
        world.now,
    )
    with world.db.tenant(world.tenant_id) as tx, pytest.raises(PreconditionError, match="has expired"):
        void_lot(tx, lot.credit_lot_id, world.now)
    assert not faults(world)


def test_the_balance_is_less_what_drafts_and_the_present_period_would_take(world: World) -> None:
    sub = month(world, "10.00")
    metered = world.subscribe(world.plan(unit("0.50")), utc(2026, 1, 1), customer_id=sub.customer_id)
    credit(world, sub, "100")
    world.now = utc(2026, 1, 15)
    assert balance(world, sub) == ("100.00", "10.00", "90.00")
    world.use(metered, utc(2026, 1, 15), 7)
    assert balance(world, sub) == ("100.00", "13.50", "86.50")
    world.now = utc(2026, 2, 10)
    assert balance(world, sub) == ("100.00", "23.50", "76.50"), "the ended period and the present one"
    world.generate()
    world.use(metered, utc(2026, 1, 31), 2)
    assert balance(world, sub) == ("100.00", "24.50", "75.50"), "drafts with what came late for them"
    for draft in world.all():
        world.issue(draft)
    assert balance(world, sub) == ("85.50", "10.00", "75.50"), "to issue moves it from pending to gone"
    world.use(metered, utc(2026, 2, 10), 1000)
    assert balance(world, sub) == ("85.50", "85.50", "0.00")


def test_what_is_billed_in_advance_is_pending_once(world: World) -> None:
    sub = world.subscribe(world.plan(flat("10.00"), advance=[0]), utc(2026, 1, 1))
    credit(world, sub, "100")
    world.now = utc(2026, 3, 15)
    pending = balance(world, sub)[1]
    world.generate(issue=True)
    assert balance(world, sub) == ("70.00", "10.00", "60.00")
    assert pending == "40.00", "January to March by what began, April by the present month"


def test_a_rule_tells_a_fall_below_its_threshold_once(world: World) -> None:
    metered = world.subscribe(world.plan(unit("1")), utc(2026, 1, 1))
    with world.db.tenant(world.tenant_id) as tx:
        set_rule(tx, metered.customer_key, TopUpRule(Decimal(20), Decimal(50)), world.now)
    credit(world, metered, "60")
    told = []
    for day, used in ((2, 30), (3, 10), (4, 1), (5, 5)):
        world.now = utc(2026, 1, day)
        world.use(metered, world.now, used)
        told.append(check_top_ups(world.run, world.now, lambda: False).total())
    assert told == [0, 0, 1, 0]
    credit(world, metered, "50", paid=True)
    assert not check_top_ups(world.run, world.now, lambda: False)
    world.use(metered, world.now, 50)
    assert not check_top_ups(world.run, world.now, lambda: False), "looked at once a minute"
    world.now += timedelta(minutes=1)
    assert check_top_ups(world.run, world.now, lambda: False) == {world.tenant_id: 1}
    with world.db.tenant(world.tenant_id) as tx:
        events = top_ups.page_events(tx, None, "", 10)
        told_of = [one.top_up for one in notifications.page(tx, notifications.Wanted(0, "", "", ""), 10)]
    assert [one.credit_event_id for one in told_of if one] == [one.credit_event_id for one in events[::-1]]
    assert [(str(event.available), str(event.amount)) for event in events] == [
        ("14.00", "50.00"),
        ("19.00", "50.00"),
    ]


def test_a_feature_that_is_not_there_is_named(world: World) -> None:
    sub = month(world, "10.00")
    with pytest.raises(InvalidInputError, match=r"credit_lot.feature_keys\[0\]: there is no feature 'none'"):
        credit(world, sub, "1", feature_keys=("none",))


def test_the_currency_stays_once_there_are_credits(world: World) -> None:
    yen = world.subscribe(world.plan(flat("1000"), currency="JPY"), utc(2026, 1, 1))
    with pytest.raises(InvalidInputError, match="at most 0 digits"):
        credit(world, yen, "0.5")
    assert left(world, credit(world, yen, "5")) == "5"


def test_the_database_refuses_what_does_not_balance_and_every_change(world: World) -> None:
    sub = month(world, "10.00")
    lot = credit(world, sub, "10")
    book = (
        "INSERT INTO credit_transactions (tenant_id, kind, customer_id, book_time, create_time) "
        "VALUES (:tenant, 'grant', :customer, now(), now()) RETURNING transaction_id"
    )
    entry = "INSERT INTO credit_entries VALUES (:tenant, :id, :n, :account, :lot, '', :amount, 0)"

    def attempt(*entries: tuple[str, int]) -> None:
        with world.db.tenant(world.tenant_id) as tx:
            values = {"tenant": world.tenant_id, "customer": sub.customer_id, "lot": lot.credit_lot_id}
            number = tx.conn.execute(sa.text(book), values).scalar_one()
            for n, (account, amount) in enumerate(entries):
                more = {"id": number, "n": n, "account": account, "amount": amount}
                tx.conn.execute(sa.text(entry), values | more)

    for wrong in ((), (("lot", -1),), (("lot", -1), ("applied", 2))):
        with pytest.raises(DBAPIError, match="does not balance"):
            attempt(*wrong)
    with pytest.raises(DBAPIError, match="credit_lots_check"):
        attempt(("lot", -11), ("applied", 11))
    attempt(("lot", -1), ("applied", 1))
    with world.db.tenant(world.tenant_id) as tx:
        number = credit_ledger.page(tx, None, lot.credit_lot_id, None, 1)[0].transaction_id
        values = {"tenant": world.tenant_id, "lot": lot.credit_lot_id, "id": number, "n": 7}
        with pytest.raises(DBAPIError, match="is closed"):
            tx.conn.execute(sa.text(entry), values | {"account": "lot", "amount": 1})
    with psycopg.connect(
        world.db.url.set(drivername="postgresql").render_as_string(hide_password=False)
    ) as owner:
        for statement in (
            "UPDATE credit_entries SET amount = 1",
            "DELETE FROM credit_transactions",
            "UPDATE credit_lots SET remaining = 0 WHERE remaining > 0",
            "UPDATE credit_lots SET amount = amount + 1",
            "DELETE FROM credit_lots",
        ):
            with pytest.raises(psycopg.errors.RestrictViolation), owner.transaction():
                owner.execute(statement.encode())
    assert left(world, lot) == "9.00"


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("UPDATE credit_entries SET amount = amount + 1 WHERE account = 'lot' AND", "does not balance"),
        ("UPDATE credit_entries SET cost = cost + 1 WHERE account = 'applied' AND", "its costs to"),
        ("DELETE FROM credit_entries WHERE account = 'applied' AND", "does not balance"),
        ("UPDATE credit_lots SET remaining = 6 WHERE", "says that 6 remains, its entries say 5.00"),
        ("UPDATE credit_lots SET amount = 16 WHERE", "is of 16, the ledger filled it with 15.00"),
        ("UPDATE credit_lots SET cost_basis = 14 WHERE", "at another cost"),
        ("UPDATE invoices SET prepaid_total = 9 WHERE", "says that credits paid 9, the ledger says 10.00"),
        ("UPDATE invoices SET state = 'void' WHERE", "of which 0 came back"),
    ],
)
def test_verify_sees_what_somebody_changed_behind_the_triggers(world: World, damage: str, said: str) -> None:
    sub = month(world, "10.00")
    credit(world, sub, "15", paid=True)
    issued(world)
    assert not faults(world)
    superuser = sa.create_engine(world.db.url)
    with superuser.connect() as conn:
        conn.execute(sa.text("SET session_replication_role = replica"))
        conn.execute(sa.text(f"{damage} tenant_id = {world.tenant_id}"))
        found = [fault.what for fault in credit_ledger.faults(conn, world.tenant_id)]
        conn.rollback()
    superuser.dispose()
    assert any(said in what for what in found), found


def test_a_transaction_says_what_it_is(world: World) -> None:
    sub = month(world, "10.00")
    lot = credit(world, sub, "10", paid=True, cost_basis=Decimal(8))
    issued(world)
    with world.db.tenant(world.tenant_id) as tx:
        apply, purchase = credit_ledger.page(tx, sub.customer_id, lot.credit_lot_id, None, 10)
    assert isinstance(apply, Transaction)
    assert [(e.account.value, str(e.amount), str(e.cost)) for e in purchase.entries] == [
        ("lot", "10.00", "8.00"),
        ("purchased", "-10.00", "-8.00"),
    ]
    assert [(e.account.value, str(e.amount), str(e.cost)) for e in apply.entries] == [
        ("lot", "-10.00", "-8.00"),
        ("applied", "10.00", "8.00"),
    ]
