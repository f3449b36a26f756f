"""The book of holds: what two decisions may give away, before, while and after they become durable."""

from datetime import UTC, datetime, timedelta
from math import inf

import pytest

from ammeter.domain.book import Book, Change, Now
from ammeter.domain.reservation import Key, Renewal, Standing, State, Wish
from ammeter.errors import ConflictError, PreconditionError

KEY = Key(1, 7, "tokens")
WALL = datetime(2026, 1, 31, 12, tzinfo=UTC)
END = WALL + timedelta(days=1)
MINUTE = timedelta(minutes=1)


def at(seconds: float) -> Now:
    return Now(WALL + timedelta(seconds=seconds), 1000.0 + seconds)


def stands(book: Book, left: int, *, soft: bool = False) -> Standing:
    return Standing(left, book.held(KEY), soft, END)


def hold(
    book: Book, name: str, amount: int, left: int = 10, *, lease: bool = False, soft: bool = False
) -> Change | None:
    wish = Wish(amount, None, MINUTE, lease)
    return book.reserve(name, KEY, ("acme", ""), wish, stands(book, left, soft=soft), at(0))


def held(book: Book, name: str, amount: int, **kind: bool) -> None:
    change = hold(book, name, amount, **kind)
    assert change is not None
    book.finish(change)


def test_a_hold_counts_before_it_is_durable() -> None:
    book = Book()
    first = hold(book, "a", 7)
    assert first is not None
    assert book.held(KEY) == 7
    assert hold(book, "b", 4) is None
    assert hold(book, "c", 3) is not None
    book.finish(first)
    assert book.held(KEY) == 10


def test_what_is_given_back_counts_until_that_is_durable() -> None:
    book = Book()
    held(book, "a", 7)
    change = book.release(book.entries[1, "a"], at(1))
    assert change is not None
    assert hold(book, "b", 4) is None
    book.finish(change)
    assert book.held(KEY) == 0
    assert not book.entries
    assert hold(book, "b", 4) is not None


def test_usage_takes_the_place_of_a_hold_at_its_position() -> None:
    book = Book()
    held(book, "a", 7)
    change = book.settle(book.entries[1, "a"], 5, at(1))
    assert not book.swapping(KEY)
    book.swap(change, 42)
    assert book.swapping(KEY)
    assert (book.held_at(KEY, 41), book.held_at(KEY, 42), book.held_at(KEY, 43)) == (7, 0, 0)
    book.finish(change)
    assert not book.swapping(KEY)
    assert book.held(KEY) == 0


def test_several_swaps_of_one_key_end_one_by_one() -> None:
    book = Book()
    held(book, "a", 3)
    held(book, "b", 4)
    first = book.settle(book.entries[1, "a"], 3, at(1))
    second = book.settle(book.entries[1, "b"], 4, at(1))
    book.swap(first, 42)
    book.swap(second, 43)
    assert [book.held_at(KEY, position) for position in (41, 42, 43)] == [7, 4, 0]
    book.finish(first)
    assert [book.held_at(KEY, position) for position in (42, 43)] == [4, 0]
    book.finish(second)
    assert book.held(KEY) == 0


def test_time_lets_go_of_what_ran_out_and_of_nothing_else() -> None:
    book = Book()
    held(book, "a", 7)
    assert book.next_end == at(60).mono
    assert book.expire(at(59.9).mono) == 0
    assert book.held(KEY) == 7
    assert book.expire(at(60).mono) == 1
    assert book.held(KEY) == 0
    assert book.next_end == inf


def test_what_is_being_settled_does_not_run_out_meanwhile() -> None:
    book = Book()
    held(book, "a", 7)
    change = book.settle(book.entries[1, "a"], 5, at(59))
    assert not change.after.late
    assert book.expire(at(600).mono) == 0
    assert book.held(KEY) == 7
    book.finish(change)
    assert book.held(KEY) == 0


def test_an_extension_in_flight_keeps_it() -> None:
    book = Book()
    held(book, "a", 7)
    change = book.extend(book.entries[1, "a"], Wish(0, None, 2 * MINUTE, lease=False), at(30))
    assert book.expire(at(100).mono) == 0
    book.finish(change)
    assert book.expire(at(149).mono) == 0
    assert book.expire(at(150).mono) == 1


def test_settled_after_its_end_it_gives_nothing_back() -> None:
    book = Book()
    held(book, "a", 7)
    stored = book.entries[1, "a"].reservation
    book.expire(at(60).mono)
    entry = book.recover(stored, at(61))
    change = book.settle(entry, 5, at(61))
    assert (change.after.late, change.removed, book.held(KEY)) == (True, 0, 0)
    book.finish(change)
    assert not book.entries


def test_what_was_written_down_counts_again_after_a_restart() -> None:
    book, again = Book(), Book()
    held(book, "a", 7)
    stored = book.entries[1, "a"].reservation
    entry = again.recover(stored, Now(WALL + timedelta(seconds=50), 5.0))
    assert again.held(KEY) == 7
    assert entry.hold_at == pytest.approx(15.0)
    assert again.expire(15.0) == 1
    over = Book()
    over.recover(stored, Now(WALL + timedelta(seconds=60), 5.0))
    assert over.held(KEY) == 0


def test_a_wall_clock_that_jumps_ends_nothing() -> None:
    book = Book()
    held(book, "a", 7)
    late = Now(WALL + timedelta(days=300), at(1).mono)
    assert book.expire(late.mono) == 0
    assert not book.settle(book.entries[1, "a"], 5, late).after.late


def test_a_lease_on_a_hard_limit_counts_until_it_is_settled_or_the_period_ends() -> None:
    book = Book()
    held(book, "a", 7, lease=True)
    book.expire(at(3600).mono)
    assert book.held(KEY) == 7, "what its holder used is known to nobody else"
    assert book.entries[1, "a"].reservation.state_at(at(61).wall) is State.EXPIRED
    change = book.settle(book.entries[1, "a"], 2, at(3600))
    assert not change.after.late
    book.finish(change)
    assert book.held(KEY) == 0
    held(book, "b", 7, lease=True)
    assert book.expire(at(86_400).mono) == 1
    assert book.held(KEY) == 0


def test_a_lease_on_a_soft_limit_runs_out() -> None:
    book = Book()
    held(book, "a", 7, lease=True, soft=True)
    assert book.expire(at(60).mono) == 1
    assert book.held(KEY) == 0


def test_a_renewal_tops_up_from_what_is_free_and_holds_both_meanwhile() -> None:
    book = Book()
    held(book, "a", 7, lease=True)
    entry = book.entries[1, "a"]
    renewal = Renewal(1, 5, Wish(7, None, MINUTE, lease=True), recorded=False)
    change = book.renew(entry, renewal, stands(book, 10), at(30))
    assert (change.after.held, change.after.generation, change.after.settled) == (5, 2, 5)
    assert book.held(KEY) == 10, "what was used is held until its usage counts"
    book.swap(change, 42)
    assert book.held_at(KEY, 42) == 5
    book.finish(change)
    assert book.held(KEY) == 5
    with pytest.raises(ConflictError):
        book.renew(entry, renewal, stands(book, 5), at(31))


def test_usage_that_was_recorded_before_is_not_taken_twice() -> None:
    book = Book()
    held(book, "a", 10, lease=True)
    renewal = Renewal(1, 10, Wish(10, None, MINUTE, lease=True), recorded=True)
    change = book.renew(book.entries[1, "a"], renewal, Standing(10, book.held(KEY), False, END), at(1))  # noqa: FBT003 - soft_limit
    assert change.after.held == 10, "20 were allowed, 10 are used and recorded"


def test_stale_ends_are_swept_out() -> None:
    book = Book()
    for number in range(5000):
        held(book, f"r{number}", 1)
        change = book.release(book.entries[1, f"r{number}"], at(0))
        assert change is not None
        book.finish(change)
    assert len(book._ends) < 1100


def test_what_has_ended_ends_once() -> None:
    book = Book()
    held(book, "a", 7)
    entry = book.entries[1, "a"]
    book.finish(book.settle(entry, 5, at(1)))
    with pytest.raises(PreconditionError):
        book.settle(entry, 5, at(2))
    with pytest.raises(PreconditionError):
        book.release(entry, at(2))
