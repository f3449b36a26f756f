"""An import changes what it says and nothing else, once; a file is read to the last digit."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ammeter.cli.price_file import PriceFileError, read_prices
from ammeter.domain.minute import END
from ammeter.domain.price_import import EntryDraft, find_changes, read_entries
from ammeter.domain.price_list import Entry, Layer, holding
from ammeter.errors import InvalidInputError

amounts = st.sampled_from([None, Decimal(0), Decimal(1), Decimal(2)])
entries = st.dictionaries(
    st.tuples(st.sampled_from("ab"), st.sampled_from(["input", "output"]), st.integers(0, 9)),
    amounts,
    max_size=8,
).map(lambda found: [Entry(*key, amount) for key, amount in found.items()])


def applied(existing: list[Entry], wanted: list[Entry], missing_at: int | None = None) -> list[Entry]:
    found = {entry[:3]: entry for entry in existing}
    changes = find_changes(existing, wanted, missing_at, Layer.LIST).changes
    return list((found | {change.entry[:3]: change.entry for change in changes}).values())


def price(existing: list[Entry], key: tuple[str, str], minute: int) -> Decimal | None:
    return {entry[:2]: entry.unit_amount for entry in holding(existing, minute)}.get(key)


@given(entries, entries, st.one_of(st.none(), st.integers(0, 9)))
def test_an_import_says_what_it_wants_and_a_second_time_changes_nothing(
    existing: list[Entry], wanted: list[Entry], missing_at: int | None
) -> None:
    after = applied(existing, wanted, missing_at)
    for entry in wanted:
        assert price(after, entry[:2], entry.effective_minute) == entry.unit_amount
    again = find_changes(after, wanted, missing_at, Layer.LIST)
    assert not again.changes
    assert again.unchanged_count == len(wanted)
    if missing_at is not None:
        named = {entry[:2] for entry in wanted}
        assert all(key in named for key in (entry[:2] for entry in holding(after, missing_at)))


@given(entries, entries)
def test_a_diff_tells_what_held_before_and_until_when_it_will(
    existing: list[Entry], wanted: list[Entry]
) -> None:
    after = applied(existing, wanted)
    found = find_changes(existing, wanted, None, Layer.LIST)
    assert len(found.changes) + found.unchanged_count == len(wanted)
    for change in found.changes:
        minute = change.entry.effective_minute
        assert change.before != change.entry.unit_amount
        for each in range(minute, min(change.until, 20)):
            assert price(after, change.entry[:2], each) == change.entry.unit_amount
        assert change.until == END or any(one[:3] == (*change.entry[:2], change.until) for one in after)


def test_every_fault_of_an_import_is_told_with_its_path() -> None:
    drafts = [
        EntryDraft("", "input", "1"),
        EntryDraft("a" * 257, "In", "-1"),
        EntryDraft("a", "input", "0.0000000000001"),
        EntryDraft("b", "input", "1", 5),
        EntryDraft("b", "input", "2", 5),
        EntryDraft("b", "input", "1e3"),
    ]
    with pytest.raises(InvalidInputError) as refused:
        read_entries(drafts, 7, Layer.LIST)
    assert [one.field for one in refused.value.violations] == [
        "entries[0].model",
        "entries[1].model",
        "entries[1].token_type",
        "entries[1].unit_amount",
        "entries[2].unit_amount",
        "entries[4]",
        "entries[5].unit_amount",
    ]
    with pytest.raises(InvalidInputError):
        read_entries([EntryDraft("a", "input", "1")] * 10_001, 7, Layer.LIST)


CSV = (
    "model,token_type,unit_amount,per,effective_time\ngpt,input,2.50,1000000,2026-02-01\n gpt , output ,,,\n"
)


def test_a_csv_file_is_read_exactly() -> None:
    first, second = read_prices(CSV)
    assert (first.model, first.token_type, first.unit_amount) == ("gpt", "input", "0.0000025")
    assert first.effective_time.ToJsonString() == "2026-02-01T00:00:00Z"
    assert (second.model, second.token_type, second.unit_amount) == ("gpt", "output", "")
    assert not second.HasField("effective_time")


def test_a_json_file_is_read_exactly() -> None:
    rows = '{"model": "gpt", "token_type": "input", "unit_amount": 2.5e-06}'
    for text in (f"[{rows}]", f'{{"entries": [{rows}]}}'):
        assert [entry.unit_amount for entry in read_prices(text)] == ["0.0000025"]
    row = '"model": "g", "token_type": "i", "unit_amount": "0.1"'
    quoted = f'[{{{row}, "effective_time": "2026-01-01T01:00:00+01:00"}}]'
    assert read_prices(quoted)[0].effective_time.ToJsonString() == "2026-01-01T00:00:00Z"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("model,token_type\n", "line 1: unit_amount is missing"),
        ("model,token_type,unit_amount,cost\n", "line 1: 'cost' is none of"),
        ("model,token_type,unit_amount\na,b\n", "line 2: has not as many columns"),
        ("model,token_type,unit_amount\na,b,1,2\n", "line 2: has not as many columns"),
        ("model,token_type,unit_amount\na,b,x\n", "line 2: unit_amount 'x' is not a decimal number"),
        ("model,token_type,unit_amount\na,b,nan\n", "line 2: per must be more than zero, and"),
        ("model,token_type,unit_amount,per\na,b,1,3\n", "line 2: 1 per 3 does not end as a decimal"),
        ("model,token_type,unit_amount,per\na,b,1,0\n", "line 2: per must be more than zero"),
        ("model,token_type,unit_amount,per\na,b,0.0000001,1000000\n", "more than 12 digits"),
        ("model,token_type,unit_amount,effective_time\na,b,1,soon\n", "line 2: effective_time 'soon' is not"),
        ("model,token_type,unit_amount,effective_time\na,b,1,2026-01-01T00:00:00\n", "has no zone"),
        ("[1]", "entries[0]: is no object"),
        ("[{}]", "entries[0]: model, token_type is missing"),
        ('{"prices": []}', "is no list of prices"),
        ("[", "is not JSON"),
    ],
)
def test_a_file_that_is_no_price_file_says_where_and_why(text: str, why: str) -> None:
    with pytest.raises(PriceFileError) as refused:
        read_prices(text)
    assert why in str(refused.value)
