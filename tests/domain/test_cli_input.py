"""What people type and put into files, read without a server."""

import json
from contextlib import suppress
from decimal import Decimal
from typing import Any

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.main import get_command

from ammeter.cli import app
from ammeter.cli.lines import LineError, read_event, read_lines
from ammeter.cli.root import hoist
from ammeter.cli.times import parse_time
from ammeter.cli.view import thousands

EVENT = {"id": "1", "source": "s", "type": "t", "subject": "u"}


def line(**facts: object) -> bytes:
    return json.dumps({**EVENT, **facts}).encode()


@given(st.decimals(allow_nan=False, allow_infinity=False, places=12, min_value=-(10**26), max_value=10**26))
def test_a_number_keeps_its_value_digit_by_digit(number: Decimal) -> None:
    text = f'{{"id": "1", "source": "s", "type": "t", "subject": "u", "properties": {{"v": {number}}}}}'
    read = read_event(text.encode()).properties["v"]
    assert Decimal(read).compare_total(Decimal(format(number, "f"))) == 0
    assert "e" not in read.lower()


def test_an_exponent_that_would_fill_memory_stays_an_exponent() -> None:
    assert read_event(line()[:-1] + b', "properties": {"v": 1e999999999}}').properties["v"] == "1e999999999"


@given(
    st.binary()
    | st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists)
    .map(json.dumps)
    .map(str.encode)
)
def test_whatever_a_line_holds_it_is_an_event_or_a_line_error(raw: bytes) -> None:
    with suppress(LineError):
        assert read_event(raw).id


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"[]", "not a JSON object"),
        (b'{"id": "1", "id": "2"}', "'id' is there twice"),
        (line(id=7), "id is not a text"),
        (line(subjct="u"), "unknown field 'subjct'"),
        (line(time="yesterday"), "is not RFC 3339"),
        (line(time=12), "is not RFC 3339"),
        (line(properties=[]), "properties is not an object"),
        (line(properties={"v": None}), "properties[v] is not"),
        (line(properties={"v": float("nan")}), "NaN is not a number"),
        (line(subject="\ud800"), "not Unicode"),
        (line(id=""), "--assign-ids"),
        (line(type="t" * 2_000_000), "more than a server takes"),
    ],
)
def test_a_line_that_is_no_event_says_why(raw: bytes, why: str) -> None:
    with pytest.raises(LineError) as caught:
        read_event(raw)
    assert why in str(caught.value)


def test_ids_are_made_from_the_place_in_the_file_and_only_where_one_is_missing() -> None:
    raw = [line(), b"\n", line(id=""), b"{"]
    found = [
        (each.number, each.event.id if each.event else None) for each in read_lines(raw, "f.jsonl") if each
    ]
    assert found == [(1, "1"), (3, "f.jsonl:3"), (4, None)]


def test_global_options_move_to_the_front_and_what_follows_dashes_stays() -> None:
    given_line = ["meter", "list", "--json", "--key", "k", "--address=a:1", "--", "--tls"]
    assert hoist(given_line) == ["--json", "--key", "k", "--address=a:1", "meter", "list", "--", "--tls"]


@pytest.mark.parametrize("text", ["soon", "2026-01-31T12:00:00", "7y", "2026-13-01", ""])
def test_a_time_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        parse_time(text)


def test_times_are_read_as_written() -> None:
    assert parse_time("2026-01-31").ToJsonString() == "2026-01-31T00:00:00Z"
    assert parse_time("2026-01-31T12:00:00+02:00").ToJsonString() == "2026-01-31T10:00:00Z"
    hour = parse_time("now").seconds - parse_time("60m").seconds
    assert hour in (3600, 3540)  # a minute may pass between the two
    assert parse_time("+1d").seconds > parse_time("now").seconds > parse_time("1d ago").seconds


def test_digits_are_grouped_without_touching_the_value() -> None:
    assert [thousands(text) for text in ("1234.50", "-1234567", "999", "", "0.000000000001")] == [
        "1,234.50",
        "-1,234,567",
        "999",
        "",
        "0.000000000001",
    ]


def test_every_verb_explains_itself() -> None:
    root = get_command(app)
    pending: list[tuple[tuple[str, ...], Any]] = [(("ammeter",), root)]
    while pending:
        path, command = pending.pop()
        assert command.help, path
        pending += [((*path, name), sub) for name, sub in getattr(command, "commands", {}).items()]
