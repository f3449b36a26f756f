"""The checker finds every way of losing and doubling, or its silence would mean nothing."""

from pathlib import Path

import pytest

from tests.crash.checker import Stored, Window, problems
from tests.crash.journal import Journal, Sent

A = Sent("a", "alice", 10, 5)
A2 = Sent("a", "alice", 10, 6)
B = Sent("b", "alice", 10, 7)
C = Sent("c", "bob", 11, 1)
BAD = Sent("bad", "bob", 11, None)
STORED = [Stored(*A, 1), Stored(*B, 2)]
WINDOWS = [Window("alice", 10, 12, 2)]


def _journal(directory: Path) -> list[Path]:
    """A is accepted, B accepted on a retry, C is unknown, BAD is refused."""
    path = directory / "client.jsonl"
    journal = Journal(path)
    journal.answer(journal.intent([A, BAD]), ["ACCEPTED", "REJECTED"], 1)
    journal.failure(journal.intent([B]), "UNAVAILABLE")
    journal.answer(journal.intent([B, A]), ["ACCEPTED", "DUPLICATE"], 2)
    journal.answer(journal.intent([A2]), ["CONFLICT"], 2)
    journal.intent([C])
    journal.close()
    return [path]


def test_a_true_history_passes_whichever_way_the_unknown_went(tmp_path: Path) -> None:
    journals = _journal(tmp_path)
    assert problems(journals, STORED, WINDOWS) == []
    with_c = [*STORED, Stored(*C, 3)]
    assert problems(journals, with_c, [*WINDOWS, Window("bob", 11, 1, 1)]) == []


def test_an_event_without_a_number_is_stored_and_counts_for_nothing(tmp_path: Path) -> None:
    path = tmp_path / "client.jsonl"
    journal = Journal(path)
    journal.answer(journal.intent([BAD]), ["ACCEPTED"], 1)
    assert problems([path], [Stored(*BAD, 1)], []) == []


@pytest.mark.parametrize(
    ("stored", "windows", "said"),
    [
        (STORED[1:], [Window("alice", 10, 7, 1)], "a: acknowledged, and not stored"),
        (STORED[:1], [Window("alice", 10, 5, 1)], "b: acknowledged, and not stored"),
        ([*STORED, Stored(*A, 3)], [Window("alice", 10, 17, 3)], "a: stored 2 times"),
        ([*STORED, Stored(*BAD, 3)], WINDOWS, "bad: refused, and stored"),
        ([*STORED, Stored("z", "bob", 1, 1, 3)], [*WINDOWS, Window("bob", 1, 1, 1)], "z: stored, and nobody"),
        ([Stored(*A2, 1), STORED[1]], [Window("alice", 10, 13, 2)], "a: acknowledged as"),
        ([STORED[0], Stored("b", "alice", 10, 70, 2)], [Window("alice", 10, 75, 2)], "b: stored as"),
        ([STORED[0], Stored(*B, 3)], WINDOWS, "b: acknowledged at position 2, stored at 3"),
        (STORED, [Window("alice", 10, 24, 4)], "alice at 10: counted [24, 4]"),
        (STORED, [Window("alice", 11, 12, 2)], "alice at 10: counted None"),
        (STORED, [*WINDOWS, Window("bob", 11, 1, 1)], "bob at 11: counted [1, 1], stored None"),
        (STORED, [], "alice at 10: counted None"),
    ],
)
def test_answers_that_contradict_the_journals_are_found(
    tmp_path: Path, stored: list[Stored], windows: list[Window], said: str
) -> None:
    found = problems(_journal(tmp_path), stored, windows)
    assert any(problem.startswith(said) for problem in found), found


def test_an_event_accepted_twice_is_found(tmp_path: Path) -> None:
    path = tmp_path / "client.jsonl"
    journal = Journal(path)
    journal.answer(journal.intent([A]), ["ACCEPTED"], 1)
    journal.answer(journal.intent([A]), ["ACCEPTED"], 2)
    assert problems([path], STORED[:1], [Window("alice", 10, 5, 1)]) == ["a: accepted 2 times"]


def test_a_duplicate_of_nothing_is_found(tmp_path: Path) -> None:
    path = tmp_path / "client.jsonl"
    journal = Journal(path)
    journal.answer(journal.intent([A]), ["DUPLICATE"], 1)
    found = problems([path], STORED[:1], [Window("alice", 10, 5, 1)])
    assert found == ["a: called a duplicate, and nothing was sent before"]


def test_a_conflict_with_itself_is_found(tmp_path: Path) -> None:
    path = tmp_path / "client.jsonl"
    journal = Journal(path)
    journal.failure(journal.intent([A]), "UNAVAILABLE")
    journal.answer(journal.intent([A]), ["CONFLICT"], 1)
    found = problems([path], STORED[:1], [Window("alice", 10, 5, 1)])
    assert found == ["a: called a conflict, and only one content was ever sent"]


def test_an_answer_out_of_thin_air_is_found(tmp_path: Path) -> None:
    path = tmp_path / "client.jsonl"
    journal = Journal(path)
    journal.answer(99, ["ACCEPTED"], 1)
    assert problems([path], [], []) == ["client.jsonl: call 99 was answered, and nothing was asked"]


def test_an_answer_with_too_few_outcomes_is_found(tmp_path: Path) -> None:
    path = tmp_path / "client.jsonl"
    journal = Journal(path)
    journal.answer(journal.intent([A, C]), ["ACCEPTED"], 1)
    found = problems([path], STORED[:1], [Window("alice", 10, 5, 1)])
    assert found == ["client.jsonl: call 1 had 2 events, 1 outcomes"]


def test_a_line_torn_by_the_clients_own_death_is_an_intent_that_was_not_sent(tmp_path: Path) -> None:
    journals = _journal(tmp_path)
    with journals[0].open("ab") as file:
        file.write(b'{"call": 99, "answ')
    assert problems(journals, STORED, WINDOWS) == []
