import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from ammeter.domain.invoice import State
from ammeter.errors import (
    InvalidInputError,
    NotFoundError,
    OutOfRangeError,
    PreconditionError,
    UnavailableError,
)
from ammeter.store.db import Database
from ammeter.usecases.billing import Measured, Question
from ammeter.usecases.generate import generate_invoices
from tests.usecases.billing_world import World, flat, lines, unit, utc

DAY = timedelta(days=1)


@pytest.fixture
def db(database_url: str) -> Iterator[Database]:
    one = Database(database_url)
    yield one
    one.close()


@pytest.fixture
def world(db: Database) -> World:
    return World(db)


def test_each_ended_period_gets_one_draft_in_order_and_a_repeated_run_makes_none(world: World) -> None:
    sub = world.subscribe(world.plan(flat("20"), unit("0.5")), utc(2026, 1, 1))
    world.use(sub, utc(2026, 1, 31, 23, 59), 3)
    world.use(sub, utc(2026, 2, 1), 4)
    world.now = utc(2026, 3, 1)
    steps = world.steps()
    made = [step.invoice for step in steps if step.invoice]
    assert [(one.period_index, one.ordinal, one.state) for one in made] == [
        (0, 0, State.DRAFT),
        (1, 0, State.DRAFT),
    ]
    assert lines(made[0]) == [("flat", "card0", 0, "1", "20.00"), ("usage", "card1", 0, "3", "1.50")]
    assert lines(made[1]) == [("flat", "card0", 1, "1", "20.00"), ("usage", "card1", 1, "4", "2.00")]
    assert [str(one.total) for one in made] == ["21.50", "22.00"]
    assert [(s.done_count, s.total_count, s.invoice_count) for s in (each.operation for each in steps)] == [
        (0, 1, 1),
        (0, 1, 2),
        (1, 1, 2),
    ]
    assert world.generate() == []
    assert world.all() == made


def test_a_period_that_ends_now_has_ended_and_one_minute_earlier_it_has_not(world: World) -> None:
    world.subscribe(world.plan(flat("20")), utc(2026, 1, 1))
    world.now = utc(2026, 1, 31, 23, 59)
    assert world.generate() == []
    world.now = utc(2026, 2, 1)
    assert len(world.generate()) == 1


def test_usage_is_shown_even_when_there_was_none(world: World) -> None:
    world.subscribe(world.plan(unit("0.5"), None), utc(2026, 1, 1))
    world.now = utc(2026, 2, 1)
    [made] = world.generate()
    assert lines(made) == [("usage", "card0", 0, "0", "0.00")]
    assert str(made.total) == "0.00"


def test_a_plan_that_charges_nothing_gives_an_invoice_over_nothing(world: World) -> None:
    world.subscribe(world.plan(None), utc(2026, 1, 1))
    world.now = utc(2026, 2, 1)
    [made] = world.generate(issue=True)
    assert (made.lines, str(made.total), made.number) == ((), "0.00", 1)


def test_short_first_and_last_periods_are_prorated_and_their_usage_is_not(world: World) -> None:
    sub = world.subscribe(
        world.plan(flat("31"), unit("1")), utc(2026, 1, 11), end=utc(2026, 2, 15), anchor=utc(2026, 1, 1)
    )
    world.use(sub, utc(2026, 1, 31, 23, 59), 7)
    world.use(sub, utc(2026, 2, 14, 23, 59), 8)
    world.use(sub, utc(2026, 2, 15), 9)
    world.now = utc(2026, 6, 1)
    first, last = world.generate()
    assert lines(first) == [("flat", "card0", 0, "1", "21.00"), ("usage", "card1", 0, "7", "7.00")]
    assert lines(last) == [("flat", "card0", 1, "1", "15.50"), ("usage", "card1", 1, "8", "8.00")]
    assert (last.lines[0].covered_seconds, last.lines[0].period_seconds) == (14 * 86_400, 28 * 86_400)
    assert (last.period_start_time, last.period_end_time) == (utc(2026, 2, 1), utc(2026, 2, 15))


def test_a_features_filters_decide_what_its_rate_card_bills(world: World) -> None:
    sub = world.subscribe(world.plan(unit("1"), unit("10")), utc(2026, 1, 1))
    world.use(sub, utc(2026, 1, 5), 1, "model0")
    world.use(sub, utc(2026, 1, 5), 2, "model1")
    world.use(sub, utc(2026, 1, 5), 4, "other")
    world.now = utc(2026, 2, 1)
    [made] = world.generate()
    assert lines(made) == [("usage", "card0", 0, "1", "1.00"), ("usage", "card1", 0, "2", "20.00")]


def test_issue_takes_the_quantities_anew_numbers_and_freezes(world: World) -> None:
    sub = world.subscribe(world.plan(unit("0.01")), utc(2026, 1, 1))
    world.use(sub, utc(2026, 1, 5), 100)
    world.now = utc(2026, 2, 1)
    [draft] = world.generate()
    assert (draft.number, draft.position, str(draft.total)) == (None, 1, "1.00")
    world.use(sub, utc(2026, 1, 6), 50)
    world.now = utc(2026, 2, 3)
    issued = world.issue(draft)
    assert (issued.state, issued.number, issued.position) == (State.ISSUED, 1, 2)
    assert (str(issued.total), issued.issue_time) == ("1.50", world.now)
    world.use(sub, utc(2026, 1, 7), 25)
    world.now += DAY
    assert world.issue(draft) == issued == world.get(draft)


def test_generate_and_issue_at_once_numbers_without_gaps(world: World) -> None:
    world.subscribe(world.plan(flat("1")), utc(2026, 1, 1))
    world.now = utc(2026, 7, 1)
    made = world.generate(issue=True)
    assert [one.number for one in made] == [1, 2, 3, 4, 5, 6]
    assert world.all() == made


def test_usage_that_comes_after_issue_rides_on_the_next_invoice(world: World) -> None:
    sub = world.subscribe(world.plan(unit("0.335")), utc(2026, 1, 1))
    world.use(sub, utc(2026, 1, 5), 1)
    world.now = utc(2026, 2, 1)
    world.generate(issue=True)
    world.use(sub, utc(2026, 1, 6), 1)
    world.use(sub, utc(2026, 2, 6), 2)
    world.now = utc(2026, 3, 1)
    [second] = world.generate(issue=True)
    assert lines(second) == [("usage", "card0", 1, "2", "0.67"), ("late_usage", "card0", 0, "1", "0.33")]
    late = second.lines[1]
    assert (int(late.total_quantity), str(late.billed_amount), late.position) == (2, "0.34", 3)
    assert (late.period_start_time, late.period_end_time) == (utc(2026, 1, 1), utc(2026, 2, 1))
    assert late.line_id == f"{sub.subscription_id}.card0.0.late.1.0"
    world.now = utc(2026, 4, 1)
    [third] = world.generate(issue=True)
    assert lines(third) == [("usage", "card0", 2, "0", "0.00")]


def test_usage_that_comes_between_two_invoices_but_inside_the_horizon_is_not_lost(world: World) -> None:
    sub = world.subscribe(world.plan(unit("1")), utc(2026, 1, 1))
    for now in (utc(2026, 2, 1), utc(2026, 3, 1)):
        world.now = now
        world.generate(issue=True)
    world.use(sub, utc(2026, 1, 31), 5)  # accepted on 5 March, 33 days later; the next run is in April
    world.now = utc(2026, 4, 1)
    [made] = world.generate(issue=True)
    assert lines(made) == [("usage", "card0", 2, "0", "0.00"), ("late_usage", "card0", 0, "5", "5.00")]


def test_a_quantity_that_changes_no_amount_is_still_shown(world: World) -> None:
    sub = world.subscribe(world.plan(unit("0.001")), utc(2026, 1, 1))
    world.now = utc(2026, 2, 1)
    world.generate(issue=True)
    world.use(sub, utc(2026, 1, 5), 1)
    world.now = utc(2026, 3, 1)
    [made] = world.generate()
    assert lines(made)[1] == ("late_usage", "card0", 0, "1", "0.00")


def test_usage_that_is_taken_away_becomes_a_credit(world: World) -> None:
    sub = world.subscribe(world.plan(unit("2")), utc(2026, 1, 1))
    world.use(sub, utc(2026, 1, 5), 10)
    world.now = utc(2026, 2, 1)
    world.generate(issue=True)
    world.use(sub, utc(2026, 1, 5), -4)
    world.now = utc(2026, 3, 1)
    [made] = world.generate()
    assert lines(made)[1] == ("late_usage", "card0", 0, "-4", "-8.00")
    assert str(made.total) == "-8.00"


def test_periods_that_cannot_change_any_more_are_not_measured_again(world: World) -> None:
    world.subscribe(world.plan(unit("1")), utc(2026, 1, 1))
    world.now = utc(2027, 1, 1)
    world.generate(issue=True)
    world.now = utc(2027, 2, 1)
    world.questions.clear()
    world.generate(issue=True)
    [minutes] = world.questions
    # The edges of November, December and January: the others ended more than 35 days and a margin ago.
    assert len(minutes) == 4


def test_when_subjects_move_long_after_every_billed_period_is_looked_at_again(world: World) -> None:
    sub = world.subscribe(world.plan(unit("1")), utc(2026, 1, 1))
    world.now = utc(2026, 12, 1)
    world.generate(issue=True)
    world.use(sub, utc(2026, 1, 5), 6)  # attributed now, sent then
    world.now = utc(2026, 12, 15)
    world.subjects_changed(sub)
    world.now = utc(2027, 1, 1)
    [made] = world.generate(issue=True)
    assert lines(made) == [("usage", "card0", 11, "0", "0.00"), ("late_usage", "card0", 0, "6", "6.00")]


def test_after_the_end_late_usage_makes_invoices_that_follow_the_last(world: World) -> None:
    sub = world.subscribe(world.plan(unit("1")), utc(2026, 1, 1), end=utc(2026, 2, 20))
    world.now = utc(2026, 3, 1)
    assert len(world.generate(issue=True)) == 2
    assert world.generate(issue=True) == []
    for ordinal in (1, 2):
        world.use(sub, utc(2026, 1, 30), 1)
        world.use(sub, utc(2026, 2, 19), 2)
        world.now += DAY
        [made] = world.generate(issue=True)
        assert (made.period_index, made.ordinal) == (1, ordinal)
        assert lines(made) == [
            ("late_usage", "card0", 0, "1", "1.00"),
            ("late_usage", "card0", 1, "2", "2.00"),
        ]
        assert (made.period_start_time, made.period_end_time) == (utc(2026, 2, 1), utc(2026, 2, 20))
        assert world.generate(issue=True) == []


def test_a_draft_after_the_end_takes_late_usage_itself_and_gets_no_second(world: World) -> None:
    sub = world.subscribe(world.plan(unit("1")), utc(2026, 1, 1), end=utc(2026, 2, 1))
    world.now = utc(2026, 2, 1)
    [base] = world.generate()
    world.use(sub, utc(2026, 1, 5), 1)
    assert world.generate() == []
    world.issue(base)
    world.use(sub, utc(2026, 1, 5), 2)
    [late] = world.generate()
    world.use(sub, utc(2026, 1, 5), 4)
    assert world.generate() == []
    assert lines(world.issue(late)) == [("late_usage", "card0", 0, "6", "6.00")]


def test_while_a_draft_is_open_later_invoices_leave_its_period_alone(world: World) -> None:
    sub = world.subscribe(world.plan(unit("1")), utc(2026, 1, 1))
    world.use(sub, utc(2026, 1, 5), 1)
    world.now = utc(2026, 2, 1)
    [january] = world.generate()
    world.use(sub, utc(2026, 1, 6), 2)
    world.now = utc(2026, 3, 1)
    [february] = world.generate()
    assert lines(february) == [("usage", "card0", 1, "0", "0.00")]
    assert lines(world.issue(february)) == lines(february)
    assert lines(world.issue(january)) == [("usage", "card0", 0, "3", "3.00")]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_two_open_drafts_share_late_usage_whichever_is_issued_first(
    world: World, order: tuple[int, int]
) -> None:
    sub = world.subscribe(world.plan(unit("1")), utc(2026, 1, 1))
    world.now = utc(2026, 2, 1)
    world.generate(issue=True)
    world.use(sub, utc(2026, 1, 6), 1)
    world.now = utc(2026, 3, 1)
    drafts = world.generate()
    world.use(sub, utc(2026, 1, 7), 2)
    world.now = utc(2026, 4, 1)
    drafts += world.generate()
    assert [lines(draft)[-1] for draft in drafts] == [
        ("late_usage", "card0", 0, "1", "1.00"),
        ("late_usage", "card0", 0, "2", "2.00"),
    ]
    world.use(sub, utc(2026, 1, 8), 4)
    world.now += DAY
    for place in order:
        world.issue(drafts[place])
    issued = [world.get(draft) for draft in drafts]
    assert sum(line.quantity for one in issued for line in one.lines if line.period_index == 0) == 7
    assert lines(issued[order[0]])[-1][3] != lines(drafts[order[0]])[-1][3]


def test_what_a_void_invoice_billed_is_billed_anew_and_its_number_stays(world: World) -> None:
    sub = world.subscribe(world.plan(flat("5"), unit("1")), utc(2026, 1, 1))
    world.use(sub, utc(2026, 1, 5), 3)
    world.now = utc(2026, 2, 1)
    [first] = world.generate(issue=True)
    void = world.void(first)
    assert (void.state, void.number, void.void_time) == (State.VOID, 1, world.now)
    assert world.void(first) == void == world.get(first)
    world.now += DAY
    [again] = world.generate(issue=True)
    assert (lines(again), again.number) == (lines(first), 2)
    assert [line.line_id for line in again.lines] == [line.line_id for line in first.lines]


def test_voiding_a_period_billed_in_two_slices_bills_only_the_first_anew(world: World) -> None:
    sub = world.subscribe(world.plan(unit("1")), utc(2026, 1, 1))
    world.use(sub, utc(2026, 1, 5), 3)
    world.now = utc(2026, 2, 1)
    [january] = world.generate(issue=True)
    world.use(sub, utc(2026, 1, 6), 4)
    world.now = utc(2026, 3, 1)
    world.generate(issue=True)
    world.void(january)
    [again] = world.generate()
    assert lines(again) == [("usage", "card0", 0, "3", "3.00")]
    assert (int(again.lines[0].total_quantity), str(again.lines[0].billed_amount)) == (7, "4.00")


def test_late_lines_of_a_void_invoice_come_back_however_old_their_period_is(world: World) -> None:
    sub = world.subscribe(world.plan(unit("1")), utc(2026, 1, 1))
    world.now = utc(2026, 2, 1)
    world.generate(issue=True)
    world.use(sub, utc(2026, 1, 6), 4)
    world.now = utc(2026, 3, 1)
    [february] = world.generate(issue=True)
    world.now = utc(2026, 12, 1)
    world.generate(issue=True)
    world.void(february)
    world.now = utc(2027, 1, 1)
    again, december = world.generate(issue=True)
    assert lines(again) == [("usage", "card0", 1, "0", "0.00"), ("late_usage", "card0", 0, "4", "4.00")]
    assert lines(december) == [("usage", "card0", 11, "0", "0.00")]


def test_a_void_invoice_cannot_be_issued(world: World) -> None:
    world.subscribe(world.plan(flat("5")), utc(2026, 1, 1))
    world.now = utc(2026, 2, 1)
    [draft] = world.generate()
    world.void(draft)
    with pytest.raises(PreconditionError, match="GenerateInvoices"):
        world.issue(draft)


def test_an_issue_that_fails_takes_no_number(world: World) -> None:
    world.subscribe(world.plan(unit("1")), utc(2026, 1, 1))
    world.now = utc(2026, 3, 1)
    first, second = world.generate()

    def fail(_questions: Sequence[Question]) -> list[Measured]:
        raise UnavailableError("away")

    whole, world.run = world.run, replace(world.run, measure=fail)
    for broken in (first, second):
        with pytest.raises(UnavailableError):
            world.issue(broken)
    world.run = whole
    assert world.get(first).state is State.DRAFT
    assert [world.issue(second).number, world.issue(first).number] == [1, 2]


def test_a_run_for_one_customer_leaves_the_others_alone(world: World) -> None:
    plan = world.plan(flat("5"))
    one, _ = world.subscribe(plan, utc(2026, 1, 1)), world.subscribe(plan, utc(2026, 1, 1))
    world.now = utc(2026, 2, 1)
    assert {made.customer_key for made in world.generate(one.customer_key)} == {one.customer_key}
    assert len(world.generate()) == 1
    with pytest.raises(NotFoundError):
        world.generate("nobody")


def test_a_run_that_is_cut_off_is_continued_by_the_next(world: World) -> None:
    plan = world.plan(flat("5"))
    for _ in range(3):
        world.subscribe(plan, utc(2026, 1, 1))
    world.now = utc(2026, 4, 1)
    run = generate_invoices(world.run, world.tenant_id, "", issue=True, now=world.now)
    first = [step.invoice for step in itertools.islice(run, 5) if step.invoice]
    run.close()  # type: ignore[attr-defined]
    rest = world.generate(issue=True)
    assert (len(first), len(rest)) == (4, 3), "a round is three, one for each subscription"
    assert sorted(one.number or 0 for one in world.all()) == list(range(1, 10))


def test_a_subscription_whose_meter_is_still_built_is_left_out_and_named_at_the_end(world: World) -> None:
    blocked = world.subscribe(world.plan(unit("1"), served=False), utc(2026, 1, 1))
    world.subscribe(world.plan(unit("1")), utc(2026, 1, 1))
    world.now = utc(2026, 2, 1)
    with pytest.raises(PreconditionError, match=blocked.subscription_id) as caught:
        world.generate()
    assert caught.value.reason == "METER_BUILDING"
    assert len(world.all()) == 1


def test_a_quantity_too_great_holds_up_no_other_subscription(world: World) -> None:
    plan = world.plan(unit("1"))
    huge, _ = world.subscribe(plan, utc(2026, 1, 1)), world.subscribe(plan, utc(2026, 1, 1))

    def measure(questions: Sequence[Question]) -> list[Measured]:
        if any(question.customer_id == huge.customer_id for question in questions):
            raise OutOfRangeError("too great")
        return world.measure(questions)

    world.run = replace(world.run, measure=measure)
    world.now = utc(2026, 2, 1)
    with pytest.raises(OutOfRangeError, match=huge.subscription_id):
        world.generate()
    assert len(world.all()) == 1


def test_a_preview_is_the_current_period_with_late_usage_and_writes_nothing(world: World) -> None:
    sub = world.subscribe(world.plan(flat("20"), unit("0.5")), utc(2026, 1, 1))
    world.now = utc(2026, 2, 1)
    world.generate(issue=True)
    world.use(sub, utc(2026, 1, 5), 2)
    world.now = utc(2026, 2, 10, 12, 0)
    world.use(sub, world.now, 3)
    before = world.all()
    shown = world.preview(sub)
    assert (shown.invoice_id, shown.number, shown.state, shown.create_time) == ("", None, State.DRAFT, None)
    assert lines(shown) == [
        ("flat", "card0", 1, "1", "20.00"),
        ("usage", "card1", 1, "3", "1.50"),
        ("late_usage", "card1", 0, "2", "1.00"),
    ]
    assert (shown.period_start_time, shown.period_end_time) == (utc(2026, 2, 1), utc(2026, 3, 1))
    assert world.all() == before


def test_a_preview_is_what_the_invoice_becomes_when_nothing_more_comes(world: World) -> None:
    sub = world.subscribe(world.plan(flat("20"), unit("0.5")), utc(2026, 1, 1))
    world.use(sub, utc(2026, 1, 5), 2)
    world.now = utc(2026, 1, 20)
    shown = world.preview(sub)
    world.now = utc(2026, 2, 1)
    [made] = world.generate()
    assert (made.lines, made.total) == (shown.lines, shown.total)


def test_a_preview_of_a_customer_with_several_subscriptions_asks_which(world: World) -> None:
    one = world.subscribe(world.plan(flat("1")), utc(2026, 1, 1))
    two = world.subscribe(world.plan(flat("2")), utc(2026, 1, 1), customer_id=one.customer_id)
    other = world.subscribe(world.plan(flat("3")), utc(2026, 1, 1))
    with pytest.raises(InvalidInputError) as caught:
        world.preview(one)
    [violation] = caught.value.violations
    assert violation.field == "subscription_id"
    assert one.subscription_id in violation.description
    assert two.subscription_id in violation.description
    assert str(world.preview(one, two.subscription_id).total) == "2.00"
    with pytest.raises(NotFoundError):
        world.preview(one, other.subscription_id)


def test_there_is_no_preview_before_the_start_or_after_the_end(world: World) -> None:
    ahead = world.subscribe(world.plan(flat("1")), utc(2026, 2, 1))
    over = world.subscribe(world.plan(flat("1")), utc(2025, 1, 1), end=utc(2026, 1, 1))
    for sub in (ahead, over):
        with pytest.raises(PreconditionError):
            world.preview(sub)


def test_tenants_do_not_see_or_number_each_others_invoices(world: World, db: Database) -> None:
    world.subscribe(world.plan(flat("1")), utc(2026, 1, 1))
    world.now = utc(2026, 2, 1)
    [mine] = world.generate(issue=True)
    other = World(db, now=world.now)
    other.subscribe(other.plan(flat("1")), utc(2026, 1, 1))
    [theirs] = other.generate(issue=True)
    assert mine.number == theirs.number == 1
    for call in (other.get, other.issue, other.void):
        with pytest.raises(NotFoundError):
            call(mine)


@pytest.mark.parametrize(
    ("currency", "amount"), [("JPY", "1"), ("USD", "1.23"), ("KWD", "1.235"), ("CLF", "1.2345")]
)
def test_amounts_have_the_currencys_digits(world: World, currency: str, amount: str) -> None:
    sub = world.subscribe(world.plan(unit("0.12345"), currency=currency), utc(2026, 1, 1))
    world.use(sub, utc(2026, 1, 5), 10)
    world.now = utc(2026, 2, 1)
    [made] = world.generate()
    assert made == world.get(made)
    assert (str(made.total), str(made.lines[0].amount)) == (amount, amount)
