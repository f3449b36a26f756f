"""Many rows in one statement: values arrive as they are, whatever is in them."""

from collections.abc import Iterator
from datetime import UTC
from decimal import Decimal
from typing import Any

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


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(
        st.tuples(
            TEXTS,
            st.none() | TEXTS,
            st.none() | st.decimals(-100, 100, places=2) | st.sampled_from([Decimal(1), Decimal("1.00")]),
            st.lists(TEXTS, max_size=2),
            st.dictionaries(TEXTS, TEXTS | st.none(), max_size=2),
            st.none() | st.lists(st.none() | st.datetimes(timezones=st.just(UTC))),
            st.integers(0, 1),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_rows_arrive_as_they_are_whatever_they_have_alike(conn: sa.Connection, rows: list[Any]) -> None:
    names = ("line_id", "coupon_key", "amount", "unpriced_models", "details", "price_times", "ordinal")
    source = rows_of(invoice_lines, dict(zip(names, zip(*rows, strict=True), strict=True)))
    found = conn.execute(sa.select(*(one.label(name) for name, one in source.items()))).all()
    assert [tuple(row) for row in found] == [tuple(row) for row in rows]
    assert [str(row.amount) for row in found] == [str(row[2]) for row in rows], "1 is not 1.00"
