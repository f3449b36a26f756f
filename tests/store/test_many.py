"""Many rows in one statement: values arrive as they are, whatever is in them."""

import json
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ammeter.store.billing_tables import invoice_lines
from ammeter.store.many import one_of, rows_of
from ammeter.store.tables import customers

# What Postgres takes for text.
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)


@pytest.fixture(scope="module")
def conn(database_url: str) -> Iterator[sa.Connection]:
    engine = sa.create_engine(sa.make_url(database_url).set(drivername="postgresql+psycopg"))
    with engine.connect() as connection:
        yield connection
    engine.dispose()


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(words=st.lists(TEXTS, max_size=5), other=TEXTS)
def test_a_word_is_one_of_those_named_and_of_no_others(
    conn: sa.Connection, words: list[str], other: str
) -> None:
    asked = sa.literal(other, sa.Text).label("customer_key")
    source = sa.select(asked).subquery()
    condition = one_of(customers.c.customer_key, words)
    found = sa.func.array_position(condition.right.element, source.c.customer_key)
    place = conn.execute(sa.select(found)).scalar_one()
    assert place == (words.index(other) + 1 if other in words else None)


def test_numbers_too(conn: sa.Connection) -> None:
    condition = one_of(customers.c.customer_id, {7, -3})
    found = conn.execute(sa.select(condition.right.element)).scalar_one()
    assert sorted(found) == [-3, 7]


@pytest.mark.parametrize("count", [1, 2, 5])
def test_what_rows_have_alike_arrives_in_each(conn: sa.Connection, count: int) -> None:
    rows = [
        {
            "line_id": f"line\\{number}\"'",
            "kind": "usage",
            "unit_price": None,
            "amount": "1.10" if number else None,
            "period_start_time": "2026-01-01T00:00:00+00:00",
            "details": [["one, two", "1", None, "1.10"]],
            "unpriced_models": ["{a}", 'b"'],
        }
        for number in range(count)
    ]
    names = list(rows[0])
    source = rows_of(invoice_lines, names, rows)
    found = conn.execute(sa.select(*(sa.cast(source.c[name], sa.Text) for name in names))).all()
    assert [row[0] for row in found] == [row["line_id"] for row in rows]
    assert all(row[1] == "usage" and row[2] is None for row in found)
    assert [row[3] for row in found] == [row["amount"] for row in rows]
    assert len({row[4] for row in found}) == 1
    assert all(json.loads(row[5]) == rows[0]["details"] for row in found)
    assert len({row[6] for row in found}) == 1
