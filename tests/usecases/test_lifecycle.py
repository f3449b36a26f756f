"""What becomes of an invoice after it was made, and what never changes about it."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from decimal import Decimal

import psycopg
import pytest

from ammeter.domain.invoice import Invoice, State
from ammeter.domain.lifecycle import Action, amount_due, next_actions
from ammeter.errors import InvalidInputError, PreconditionError
from ammeter.store.db import Database
from tests.usecases.billing_world import World, flat, lines, unit, utc

HOUR = timedelta(hours=1)


@pytest.fixture
def db(database_url: str) -> Iterator[Database]:
    one = Database(database_url)
    yield one
    one.close()


@pytest.fixture
def world(db: Database) -> World:
    return World(db)


def draft(world: World) -> Invoice:
    sub = world.subscribe(world.plan(flat("20"), unit("0.5")), utc(2026, 1, 1))
    world.use(sub, utc(2026, 1, 5), 7)
    world.now = utc(2026, 2, 1)
    [made] = world.generate(sub.customer_key)
    return made


def test_next_actions_are_what_succeeds_and_all_else_is_refused(world: World) -> None:
    def issued() -> Invoice:
        return world.issue(draft(world))

    def credited(one: Invoice) -> Invoice:
        world.credit(one, amount="1")
        return one

    made: dict[str, Callable[[], Invoice]] = {
        "draft": lambda: draft(world),
        "issued": issued,
        "partly credited": lambda: credited(issued()),
        "paid": lambda: world.pay(issued()),
        "uncollectible": lambda: world.write_off(issued()),
        "void": lambda: world.void(issued()),
    }
    do: dict[Action, Callable[[Invoice], object]] = {
        Action.ISSUE: world.issue,
        Action.VOID: world.void,
        Action.MARK_PAID: lambda one: world.pay(one, "other"),
        Action.MARK_UNCOLLECTIBLE: world.write_off,
        Action.CREDIT: lambda one: world.credit(one, amount="1"),
    }
    # Repeating what was done answers the invoice as it is.
    same = {
        ("issued", Action.ISSUE),
        ("partly credited", Action.ISSUE),
        ("paid", Action.ISSUE),
        ("uncollectible", Action.ISSUE),
        ("uncollectible", Action.MARK_UNCOLLECTIBLE),
        ("void", Action.VOID),
    }
    for state, make in made.items():
        for action, act in do.items():
            one = world.get(make())
            if action in next_actions(one):
                act(one)
                assert world.get(one) != one
            elif (state, action) in same:
                assert act(one) == one
            else:
                with pytest.raises(PreconditionError, match=one.invoice_id):
                    act(one)
                assert world.get(one) == one, (state, action)


def test_a_paid_invoice_keeps_when_and_by_what_and_owes_nothing(world: World) -> None:
    issued = world.issue(draft(world))
    assert amount_due(issued) == issued.total == Decimal("23.50")
    paid = world.pay(issued, "ch_1", world.now - HOUR)
    assert (paid.state, paid.payment_reference, paid.paid_time) == (State.PAID, "ch_1", world.now - HOUR)
    assert amount_due(world.get(paid)) == 0
    world.now += HOUR
    assert world.pay(issued, "ch_1") == world.pay(issued, "ch_1", paid.paid_time) == paid == world.get(paid)
    for reference, time in (("ch_2", None), ("ch_1", world.now)):
        with pytest.raises(PreconditionError, match="paid already, with reference 'ch_1'"):
            world.pay(issued, reference, time)
    with pytest.raises(InvalidInputError, match="lies ahead"):
        world.pay(world.issue(draft(world)), "", world.now + HOUR)


def test_what_was_written_off_can_still_be_paid(world: World) -> None:
    written_off = world.write_off(world.issue(draft(world)))
    assert (written_off.uncollectible_time, amount_due(written_off)) == (world.now, written_off.total)
    paid = world.pay(written_off)
    assert (paid.state, paid.uncollectible_time) == (State.PAID, written_off.uncollectible_time)


@pytest.mark.parametrize("what", ["pay", "write_off", "credit"])
def test_late_usage_follows_an_invoice_whatever_became_of_it(world: World, what: str) -> None:
    sub = world.subscribe(world.plan(unit("0.5")), utc(2026, 1, 1))
    world.use(sub, utc(2026, 1, 5), 7)
    world.now = utc(2026, 2, 1)
    [first] = world.generate(issue=True)
    getattr(world, what)(first)
    world.use(sub, utc(2026, 1, 6), 3)
    world.now = utc(2026, 3, 1)
    [second] = world.generate(issue=True)
    # What was credited stays billed: it is not billed again.
    assert lines(second) == [("usage", "card0", 1, "0", "0.00"), ("late_usage", "card0", 0, "3", "1.50")]


def test_the_invoice_after_a_void_one_says_what_it_replaces(world: World) -> None:
    issued = world.issue(draft(world))
    world.void(issued)
    [again] = world.generate(issue=True)
    assert (again.replaces_invoice_id, again.total) == (issued.invoice_id, issued.total)
    assert world.get(again).replaces_invoice_id == issued.invoice_id
    assert issued.replaces_invoice_id == ""


def test_credit_notes_have_numbers_of_their_own_and_lower_what_is_due(world: World) -> None:
    issued = world.issue(draft(world))
    other = world.issue(draft(world))
    line = issued.lines[1].line_id
    first = world.credit(issued, (line, "1.50"))
    second = world.credit(other, amount="3")
    third = world.credit(issued)
    assert [note.number for note in (first, second, third)] == [1, 2, 3]
    assert [str(note.total) for note in (first, second, third)] == ["1.50", "3.00", "22.00"]
    assert [str(each.amount) for each in third.lines] == ["20.00", "2.00"]
    assert amount_due(world.get(issued)) == 0
    assert amount_due(world.get(other)) == Decimal("20.50")
    with pytest.raises(PreconditionError):
        world.credit(issued)
    with pytest.raises(InvalidInputError, match="reason"):
        world.credit(other, reason="")
    with pytest.raises(InvalidInputError, match="cannot go with lines"):
        world.credit(other, (other.lines[0].line_id, None), amount="1")


@pytest.fixture
def superuser(database_url: str) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    with psycopg.connect(database_url, autocommit=True) as conn:
        yield conn


def test_the_database_itself_refuses_to_change_what_was_issued(
    world: World, superuser: psycopg.Connection[tuple[object, ...]]
) -> None:
    # Whoever asks: this is the owner of the tables, whom no right and no policy binds.
    issued, open_one = world.issue(draft(world)), draft(world)
    mine = f"invoice_id = '{issued.invoice_id}'"
    other = f"invoice_id = '{open_one.invoice_id}'"
    statements = [
        f"UPDATE invoice_lines SET amount = amount + 1 WHERE {mine}",
        f"DELETE FROM invoice_lines WHERE {mine}",
        f"UPDATE invoice_lines SET invoice_id = '{open_one.invoice_id}' WHERE {mine}",
        f"UPDATE invoice_lines SET {mine}, line_id = '-' WHERE {other} AND ordinal = 0",
        (
            'INSERT INTO invoice_lines SELECT (jsonb_populate_record(one, jsonb \'{"line_id": "+"}\')).*'
            f" FROM invoice_lines one WHERE {mine} AND ordinal = 0"
        ),
        f"UPDATE invoices SET total = total + 1 WHERE {mine}",
        f"UPDATE invoices SET number = number + 1 WHERE {mine}",
        f"UPDATE invoices SET terms = '{{}}' WHERE {mine}",
        f"UPDATE invoices SET issue_time = now() WHERE {mine}",
        f"UPDATE invoices SET state = 'draft' WHERE {mine}",
        f"DELETE FROM invoices WHERE {mine}",
    ]
    before = world.get(issued)
    for statement in statements:
        with pytest.raises(psycopg.errors.RestrictViolation, match="never change"):
            superuser.execute(statement.encode())
    assert world.get(issued) == before
    void = world.void(issued)
    with pytest.raises(psycopg.errors.RestrictViolation):
        superuser.execute(f"UPDATE invoices SET state = 'issued' WHERE {mine}".encode())
    assert world.get(void).state is State.VOID
    world.issue(open_one)  # and drafts are free


def test_lines_are_of_a_draft_and_a_rate_card_that_there_are_and_stay(
    world: World, superuser: psycopg.Connection[tuple[object, ...]]
) -> None:
    # No foreign key says so: it is checked once for a statement.
    one = draft(world)
    with world.db.tenant(world.tenant_id) as tx:
        before = tx.conn.exec_driver_sql("SELECT count(*) FROM invoice_lines").scalar_one()
    mine = f"tenant_id = {world.tenant_id} AND invoice_id = '{one.invoice_id}'"
    copied = "INSERT INTO invoice_lines SELECT (jsonb_populate_record(one, %s)).* FROM invoice_lines one"
    for change, why in (
        ('{"line_id": "+", "ordinal": 9, "invoice_id": "inv_none"}', "invoice that is not there"),
        ('{"line_id": "+", "ordinal": 9, "tenant_id": 2000000000}', "invoice that is not there"),
        ('{"line_id": "+", "ordinal": 9, "rate_card_id": 999999999}', "rate card that is not there"),
    ):
        with pytest.raises(psycopg.errors.ForeignKeyViolation, match=why):
            superuser.execute(f"{copied} WHERE {mine} AND ordinal = 0".encode(), [change])
    for changed, why in (
        ("invoice_id = 'inv_none'", "invoice that is not there"),
        ("rate_card_id = 999999999", "rate card that is not there"),
    ):
        with pytest.raises(psycopg.errors.ForeignKeyViolation, match=why):
            superuser.execute(
                f"UPDATE invoice_lines SET {changed} WHERE {mine} AND kind <> 'minimum'".encode()
            )
    for statement in (
        f"DELETE FROM invoices WHERE {mine}",
        f"UPDATE invoices SET invoice_id = 'inv_other' WHERE {mine}",
        "TRUNCATE invoices CASCADE",
        f"DELETE FROM rate_cards WHERE tenant_id = {world.tenant_id}",
        f"UPDATE rate_cards SET tenant_id = tenant_id + 1000000 WHERE tenant_id = {world.tenant_id}",
        "TRUNCATE rate_cards CASCADE",
    ):
        with pytest.raises(psycopg.errors.RestrictViolation, match="none is ever deleted"):
            superuser.execute(statement.encode())
    with world.db.tenant(world.tenant_id) as tx:
        assert tx.conn.exec_driver_sql("SELECT count(*) FROM invoice_lines").scalar_one() == before
    world.issue(one)


def test_credit_notes_cannot_be_changed_by_the_application(
    world: World, superuser: psycopg.Connection[tuple[object, ...]]
) -> None:
    world.credit(world.issue(draft(world)))
    for statement in (
        "UPDATE credit_notes SET total = 0",
        "DELETE FROM credit_notes",
        "UPDATE credit_note_lines SET amount = 0",
        "DELETE FROM credit_note_lines",
    ):
        with superuser.transaction():
            superuser.execute("SET LOCAL ROLE ammeter_app")
            with pytest.raises(psycopg.errors.InsufficientPrivilege), superuser.transaction():
                superuser.execute(statement.encode())
