"""Burn-down, against the slow model and at its traps."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from itertools import accumulate

from hypothesis import given, settings
from hypothesis import strategies as st

from ammeter.domain.grant import Grant, State, Step, Terms, Timeline, burn_down, history_start, make_timeline
from ammeter.domain.minute import END, minute_of
from ammeter.domain.usage_period import Reset, Rhythm, Schedule
from tests import model

DAY = 1440
START = minute_of(datetime(2025, 3, 1, tzinfo=UTC))
UNTIL = START + 6 * DAY


def moment(minute: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(minutes=minute)


def rhythm(days: int, anchor: int) -> Rhythm:
    return Rhythm(moment(anchor), "UTC", f"P{days}D")


@dataclass(frozen=True)
class History:
    """Terms, grants and uses, for both sides."""

    terms: Terms
    grants: tuple[Grant, ...]
    uses: tuple[tuple[int, int | str], ...]
    unique: bool = False

    def running(self, timeline: Timeline, until: int) -> list[int]:
        """What the counters would say: each period's usage up to the end of each span."""
        found = []
        for span in timeline.spans:
            first, last = span.period.start_minute, min(span.end_minute, until)
            values = [what for minute, what in self.uses if first <= minute < last]
            numbers = [what for what in values if isinstance(what, int)]
            if self.terms.level:
                found.append(numbers[-1] if numbers else 0)
            else:
                found.append(len(set(values)) if self.unique else sum(numbers))
        return found

    def answer(self, until: int, first: int | None = None) -> tuple[int, dict[str, int]]:
        """What is left at a minute, and of each grant."""
        timeline, steps = self.steps(until, first)
        last = steps[-1].opened
        names = [timeline.grants[one].grant_id or "allowance" for one in timeline.spans[-1].active]
        closed = steps[-1].closed
        assert last.left - steps[-1].used == closed.left or not names
        return closed.left, dict(zip(names, closed.balances, strict=True))

    def steps(self, until: int, first: int | None = None) -> tuple[Timeline, list[Step]]:
        start = START if first is None else first
        timeline = make_timeline(self.terms, self.grants, start, until + 1)
        return timeline, burn_down(timeline, self.running(timeline, until))

    def expected(self, until: int) -> tuple[Fraction, dict[str, Fraction]]:
        schedule = self.terms.schedule
        grants = [
            model.ModelGrant(
                one.grant_id,
                Fraction(one.amount),
                one.priority,
                one.from_minute,
                one.expire_minute,
                one.end_minute,
                Fraction(one.rollover_minimum),
                None if one.rollover_maximum is None else Fraction(one.rollover_maximum),
                0 if one.recurrence is None else int(one.recurrence.billing_cadence[1:-1]) * DAY,
                0 if one.recurrence is None else minute_of(one.recurrence.anchor_time),
                one.created,
            )
            for one in self.grants
        ]
        resets = model.ModelResets(
            minute_of(schedule.rhythm.anchor_time),
            int(schedule.rhythm.billing_cadence[1:-1]) * DAY,
            {one.minute: (one.moves_anchor, one.preserve_overage) for one in schedule.resets},
        )
        allowed = model.Allowed(
            START,
            resets,
            grants,
            None if self.terms.allowance is None else Fraction(self.terms.allowance),
            self.terms.preserve_overage,
            self.terms.level,
            allowances={minute: Fraction(amount) for minute, amount in self.terms.changes},
        )
        uses = [(minute, what if isinstance(what, str) else Fraction(what)) for minute, what in self.uses]
        return allowed.live(uses, until)


# Few instants, so that changes meet: starts, ends, resets and uses at the same minute.
INSTANTS = st.sampled_from([START + step * DAY // 2 for step in range(12)]) | st.integers(START, UNTIL - 1)
AMOUNTS = st.integers(1, 12)


@st.composite
def grants(draw: st.DrawFn, number: int) -> Grant:
    start = draw(INSTANTS)
    expire = draw(
        st.just(END) | st.integers(start + 1, UNTIL + DAY) | INSTANTS.map(lambda each: max(each, start + 1))
    )
    void = draw(st.just(END) | st.just(END) | INSTANTS)
    least = draw(st.just(0) | AMOUNTS)
    return Grant(
        f"g{number}",
        draw(AMOUNTS),
        start,
        expire,
        min(expire, void),
        draw(st.integers(-1, 2)),
        least,
        draw(st.none() | st.integers(least, 14)),
        draw(st.none() | st.builds(rhythm, st.integers(1, 3), INSTANTS)),
        draw(st.integers(0, 1)),
    )


@st.composite
def histories(draw: st.DrawFn) -> History:
    kind = draw(st.sampled_from(["sum", "sum", "sum", "unique", "level"]))
    anchor = draw(INSTANTS)
    minutes = sorted(set(draw(st.lists(INSTANTS.filter(lambda each: each > START), max_size=2))))
    resets = tuple(
        Reset(minute, draw(st.booleans()), draw(st.sampled_from([None, True, False]))) for minute in minutes
    )
    schedule = Schedule(START, END, rhythm(draw(st.integers(1, 4)), anchor), resets)
    allowance = draw(st.none() | st.integers(0, 9))
    # A change of plan is a reset by which the allowance becomes another one.
    changed = [] if allowance is None else [minute for minute in minutes if draw(st.booleans())]
    terms = Terms(
        schedule,
        allowance,
        preserve_overage=draw(st.booleans()),
        level=kind == "level",
        changes=tuple((minute, draw(st.integers(0, 9))) for minute in changed),
    )
    what: st.SearchStrategy[int | str] = (
        st.sampled_from("abcdef") if kind == "unique" else st.integers(-6, 15)
    )
    minutes_of_use = sorted(draw(st.lists(INSTANTS, max_size=12)))
    uses: tuple[tuple[int, int | str], ...] = tuple((minute, draw(what)) for minute in minutes_of_use)
    count = draw(st.integers(0, 4))
    return History(terms, tuple(draw(grants(number)) for number in range(count)), uses, kind == "unique")


@settings(max_examples=1000)
@given(histories(), INSTANTS)
def test_what_is_left_is_what_the_model_leaves(history: History, until: int) -> None:
    left, balances = history.answer(until)
    expected_left, expected = history.expected(until)
    if balances or expected_left <= 0:
        assert left == expected_left
    assert balances == expected


@settings(max_examples=300)
@given(histories(), INSTANTS)
def test_the_last_reset_that_nothing_shines_through_is_as_good_as_the_beginning(
    history: History, until: int
) -> None:
    first = history_start(history.terms, history.grants, until)
    assert first is not None
    assert history.answer(until, first) == history.answer(until)


@settings(max_examples=300)
@given(histories(), INSTANTS, st.integers(1, 9))
def test_late_use_corrects_balances_from_its_own_span_on(history: History, minute: int, amount: int) -> None:
    timeline, before = history.steps(UNTIL)
    what = "z" if history.unique else amount
    uses = sorted([*history.uses, (minute, what)], key=lambda use: use[0])
    late = replace(history, uses=tuple(uses))
    running = late.running(timeline, UNTIL)
    after = burn_down(timeline, running, before)
    assert after == burn_down(timeline, running)
    touched = timeline.index(minute)
    assert touched is not None
    assert all(old is new for old, new in zip(before[:touched], after[:touched], strict=True))


@settings(max_examples=200)
@given(histories())
def test_nothing_is_made_or_lost_in_burning(history: History) -> None:
    _, steps = history.steps(UNTIL)
    for step in steps:
        if step.opened.balances:
            assert step.opened.left - step.used == step.closed.left
        assert step.closed.debt >= 0
        assert all(balance >= 0 for balance in step.closed.balances)


# Traps


def daily(*grants: Grant, allowance: int | None = None, **terms: object) -> History:
    resets = terms.pop("resets", ())
    schedule = Schedule(START, END, rhythm(1, START), resets)  # type: ignore[arg-type]
    return History(Terms(schedule, allowance, **terms), grants, ())  # type: ignore[arg-type]


def used(history: History, *uses: tuple[int, int]) -> History:
    return replace(history, uses=tuple((START + minute, amount) for minute, amount in uses))


def test_an_allowance_is_whole_again_after_each_reset_and_its_overage_gone() -> None:
    history = used(daily(allowance=10), (5, 14), (DAY, 3))
    assert history.answer(START + DAY - 1) == (-4, {"allowance": 0})
    assert history.answer(START + DAY) == (10, {"allowance": 10})
    assert history.answer(START + DAY + 1) == (7, {"allowance": 7})


def test_preserved_overage_burns_the_new_period_first() -> None:
    history = used(daily(allowance=10, preserve_overage=True), (5, 14))
    assert history.answer(START + DAY) == (6, {"allowance": 6})
    twice = used(history, (5, 35))
    assert twice.answer(START + DAY) == (-15, {"allowance": 0})
    assert twice.answer(START + 2 * DAY) == (-5, {"allowance": 0})
    assert twice.answer(START + 3 * DAY) == (5, {"allowance": 5})


def test_a_top_up_in_overage_pays_the_debt_first() -> None:
    history = used(daily(Grant("g", 10, START + 60)), (5, 4))
    assert history.answer(START + 59) == (-4, {})
    assert history.answer(START + 60) == (6, {"g": 6})


def test_an_allowance_burns_before_what_lasts_longer_and_after_what_ends_sooner() -> None:
    longer, sooner = Grant("longer", 10, START), Grant("sooner", 10, START, START + 600, START + 600)
    history = used(daily(longer, sooner, allowance=10), (5, 15))
    assert history.answer(START + 10) == (15, {"sooner": 0, "allowance": 5, "longer": 10})
    first = replace(longer, priority=-1)
    assert used(daily(first, allowance=10), (5, 15)).answer(START + 10)[1] == {"longer": 0, "allowance": 5}


def test_ties_go_by_creation_and_then_by_id() -> None:
    same = [Grant("b", 5, START, created=1), Grant("a", 5, START, created=1), Grant("z", 5, START, created=0)]
    assert list(used(daily(*same), (1, 8)).answer(START + 2)[1].items()) == [("z", 0), ("a", 2), ("b", 5)]


def test_an_expiry_is_exclusive_and_takes_what_is_left() -> None:
    history = used(daily(Grant("g", 10, START, START + 60, START + 60)), (5, 3), (60, 2))
    assert history.answer(START + 59) == (7, {"g": 7})
    assert history.answer(START + 60) == (0, {})
    assert history.answer(START + 61) == (-2, {})


def test_an_expiry_at_the_instant_of_a_reset_leaves_nothing_to_roll_over() -> None:
    grant = Grant("g", 10, START, START + DAY, START + DAY, rollover_minimum=5)
    assert daily(grant).answer(START + DAY) == (0, {})
    later = replace(grant, expire_minute=START + DAY + 1, end_minute=START + DAY + 1)
    assert daily(later).answer(START + DAY) == (10, {"g": 10})


def test_a_grant_at_the_instant_of_a_reset_starts_whole() -> None:
    grant = Grant("g", 10, START + DAY, rollover_maximum=1)
    assert daily(grant).answer(START + DAY) == (10, {"g": 10})
    assert daily(grant).answer(START + 2 * DAY) == (1, {"g": 1})


def test_a_recurrence_on_the_period_start_sets_to_the_amount_after_rollover() -> None:
    grant = Grant("g", 10, START, rollover_maximum=3, recurrence=rhythm(2, START))
    history = used(daily(grant), (5, 4))
    assert history.answer(START + DAY) == (3, {"g": 3})
    assert history.answer(START + 2 * DAY) == (10, {"g": 10})
    assert history.answer(START + 3 * DAY) == (3, {"g": 3})


def test_a_recurrence_sets_and_never_accumulates() -> None:
    weekly = Schedule(START, END, rhythm(30, START))
    grant = Grant("g", 10, START, recurrence=rhythm(1, START + 60))
    history = used(History(Terms(weekly, None), (grant,), ()), (30, 4), (DAY, 1))
    assert history.answer(START + 59) == (6, {"g": 6})
    assert history.answer(START + 60) == (10, {"g": 10})
    assert history.answer(START + DAY + 60) == (10, {"g": 10})


def test_rollover_keeps_at_least_the_minimum_and_at_most_the_maximum() -> None:
    for spent, kept in ((0, 6), (3, 6), (5, 5), (8, 2), (10, 2), (13, 2)):
        history = used(daily(Grant("g", 10, START, rollover_minimum=2, rollover_maximum=6)), (5, spent))
        assert history.answer(START + DAY) == (kept, {"g": kept})


def test_a_void_leaves_burnt_what_was_burnt_before_it() -> None:
    voided = Grant("g", 10, START, end_minute=START + 60)
    history = used(daily(voided, Grant("later", 10, START, created=1)), (5, 4), (60, 3))
    assert history.answer(START + 61) == (7, {"later": 7})


def test_a_void_back_inside_the_period_moves_later_use_to_the_next_grant() -> None:
    grants = [Grant("g", 10, START), Grant("later", 10, START, created=1)]
    history = used(daily(*grants), (5, 4), (60, 3))
    assert history.answer(START + 90) == (13, {"g": 3, "later": 10})
    voided = replace(history, grants=(replace(grants[0], end_minute=START + 30), grants[1]))
    assert voided.answer(START + 90) == (7, {"later": 7})


def test_a_back_dated_reset_counts_from_its_own_time() -> None:
    history = used(daily(allowance=10), (5, 6), (60, 2))
    assert history.answer(START + 90) == (2, {"allowance": 2})
    schedule = replace(history.terms.schedule, resets=(Reset(START + 30, moves_anchor=False),))
    reset = replace(history, terms=replace(history.terms, schedule=schedule))
    assert reset.answer(START + 90) == (8, {"allowance": 8})
    period = schedule.around(START + 90)
    assert period == (START + 30, START + DAY, START + DAY)


def test_a_reset_that_moves_the_anchor_moves_all_that_follow() -> None:
    schedule = Schedule(START, END, rhythm(1, START), (Reset(START + 30, moves_anchor=True),))
    assert [period.start_minute - START for period in schedule.periods(START, START + 3 * DAY)] == [
        0,
        30,
        DAY + 30,
        2 * DAY + 30,
    ]


def test_a_reset_does_not_change_who_burnt_before_it() -> None:
    # The allowance was due to outlast the grant when it burnt; that a reset cut it short came later.
    grant = Grant("g", 10, START, START + 600, START + 600)
    history = used(daily(grant, allowance=10), (5, 4))
    assert history.answer(START + 10)[1] == {"g": 6, "allowance": 10}
    schedule = replace(history.terms.schedule, resets=(Reset(START + 30, moves_anchor=False),))
    reset = replace(history, terms=replace(history.terms, schedule=schedule))
    assert reset.answer(START + 30)[1] == {"g": 6, "allowance": 10}


def test_a_level_is_there_or_not_and_comes_back_at_each_change() -> None:
    history = used(daily(Grant("g", 5, START), Grant("more", 5, START + 60, created=1), level=True), (5, 8))
    assert history.answer(START + 10) == (-3, {"g": 0})
    assert history.answer(START + 60) == (2, {"g": 0, "more": 2})
    assert history.answer(START + DAY)[0] == 2


def test_corrections_pay_debt_and_give_the_rest_back_even_beyond_the_amount() -> None:
    assert used(daily(allowance=10), (5, -4)).answer(START + 6) == (14, {"allowance": 14})
    history = used(daily(allowance=10), (5, 13), (6, -5))
    assert history.answer(START + 7) == (2, {"allowance": 2})


def test_without_a_grant_there_is_nothing_and_use_is_overage() -> None:
    assert used(daily(), (5, 3)).answer(START + 6) == (-3, {})
    assert burn_down(make_timeline(daily().terms, (), START, START + 9), [0])[0].opened == State((), 0)


def test_running_sums_are_what_counters_say() -> None:
    history = used(daily(Grant("g", 9, START + 10)), (5, 3), (11, 4))
    timeline, _ = history.steps(START + 20)
    assert history.running(timeline, START + 20) == list(accumulate([3, 4]))
