"""Who owns a subject when, against the slow model."""

import itertools
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ammeter.domain.customer import CustomerDraft, Span, assign, check_draft, complete, release
from ammeter.domain.minute import BEGINNING, END, minute_of, time_of, truncate
from ammeter.errors import InvalidInputError, PreconditionError
from tests import model

CHANGES = st.lists(
    st.tuples(st.sampled_from(["assign", "release"]), st.integers(1, 3), st.integers(0, 12)), max_size=12
)


def owner(spans: tuple[Span, ...], minute: int) -> str:
    owners = [span.customer_id for span in spans if span.from_minute <= minute < span.to_minute]
    assert len(owners) <= 1
    return str(owners[0]) if owners else ""


@given(CHANGES)
def test_owners_are_those_of_the_model_after_any_changes(changes: list[tuple[str, int, int]]) -> None:
    spans: tuple[Span, ...] = ()
    done: list[tuple[str, str, int]] = []
    for verb, customer, minute in changes:
        wanted = [*done, (verb, str(customer), minute)]
        change = assign if verb == "assign" else release
        try:
            model.owner_after(wanted, 0)
        except model.Refused:
            with pytest.raises(PreconditionError):
                change(spans, "s", customer, minute)
            continue
        before, spans, done = spans, change(spans, "s", customer, minute), wanted
        for earlier in range(-2, minute):
            if before:
                assert owner(spans, earlier) == owner(before, earlier), "rewrote what was decided"
    for minute in range(-2, 15):
        assert owner(spans, minute) == model.owner_after(done, minute)
    for first, second in itertools.pairwise(spans):
        assert first.to_minute <= second.from_minute
        assert first.to_minute < second.from_minute or first.customer_id != second.customer_id
    assert all(span.from_minute < span.to_minute for span in spans)


def test_the_first_mapping_reaches_back_whatever_its_time() -> None:
    assert assign((), "s", 1, 1000) == (Span("s", BEGINNING, END, 1),)


def test_a_move_that_takes_effect_at_the_start_of_a_span_replaces_it() -> None:
    moved = assign(assign((), "s", 1, 0), "s", 2, 10)
    assert assign(moved, "s", 3, 10) == (Span("s", BEGINNING, 10, 1), Span("s", 10, END, 3))
    assert assign(moved, "s", 1, 10) == (Span("s", BEGINNING, END, 1),)


def test_a_released_subject_can_be_taken_from_its_release_on() -> None:
    released = release(assign((), "s", 1, 0), "s", 1, 10)
    with pytest.raises(PreconditionError):
        assign(released, "s", 2, 9)
    assert assign(released, "s", 2, 12)[-1] == Span("s", 12, END, 2)
    assert assign(released, "s", 1, 10) == (Span("s", BEGINNING, END, 1),)
    assert release(released, "s", 1, 10) == released


@pytest.mark.parametrize(
    "zone", ["UTC", "Europe/Berlin", "America/Argentina/Buenos_Aires", "Australia/Lord_Howe"]
)
def test_iana_zones_are_known(zone: str) -> None:
    check_draft(complete(CustomerDraft("acme", time_zone=zone)))


@pytest.mark.parametrize("zone", ["localtime", "../etc/passwd", "America", "utc+1", "\0", "Europe/Atlantis"])
def test_what_is_no_zone_is_refused(zone: str) -> None:
    with pytest.raises(InvalidInputError, match="time_zone"):
        check_draft(complete(CustomerDraft("acme", time_zone=zone)))


@pytest.mark.parametrize("key", ["", "a b", "ä", "x" * 129, "a\n"])
def test_what_is_no_customer_key_is_refused(key: str) -> None:
    with pytest.raises(InvalidInputError, match="customer_key"):
        check_draft(complete(CustomerDraft(key)))


def test_too_many_subjects_are_one_fault() -> None:
    with pytest.raises(InvalidInputError) as caught:
        check_draft(complete(CustomerDraft("acme")), [""] * 1001)
    assert [violation.field for violation in caught.value.violations] == ["subjects"]


@given(st.datetimes(min_value=datetime(2, 1, 1), max_value=datetime(9998, 1, 1), timezones=st.timezones()))  # noqa: DTZ001
def test_minutes_number_what_truncation_cuts_to(time: datetime) -> None:
    cut = truncate(time)
    assert time_of(minute_of(time)) == cut
    assert timedelta(0) <= time - cut < timedelta(minutes=1)


def test_the_ends_of_time_are_no_times() -> None:
    assert time_of(BEGINNING) is None
    assert time_of(END) is None
