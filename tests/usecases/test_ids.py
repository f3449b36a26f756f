"""Identifiers of our own."""

import re
from datetime import UTC, datetime, timedelta

from ammeter.usecases.ids import new_id

NOW = datetime(2025, 3, 10, 12, 0, 0, 1000, tzinfo=UTC)


def test_an_id_is_a_prefix_and_26_characters_of_crockford() -> None:
    assert re.fullmatch(r"sub_[0-9A-HJKMNP-TV-Z]{26}", new_id("sub", NOW))


def test_ids_sort_by_the_millisecond_they_were_made_in() -> None:
    made = [new_id("x", NOW + timedelta(milliseconds=number)) for number in range(1000)]
    assert made == sorted(made)


def test_the_time_is_that_of_a_ulid() -> None:
    # The example of the specification.
    time = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=1_469_918_176_385)
    assert new_id("x", time)[2:12] == "01ARYZ6S41"


def test_ids_of_one_instant_differ() -> None:
    assert len({new_id("x", NOW) for _ in range(1000)}) == 1000
