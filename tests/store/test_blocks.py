"""What is read for a query grows with what it asks for, not with what there is."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa

from ammeter.domain.customer import CustomerDraft
from ammeter.domain.meter import Meter
from ammeter.store import blocks, meters
from ammeter.store.db import Database
from ammeter.usecases import customers
from ammeter.usecases.engine import Engine
from ammeter.usecases.keys import create_tenant
from ammeter.usecases.live import Live

_NOW = datetime(2026, 1, 1, tzinfo=UTC)
_DAYS = 90
_BLOCKS_PER_DAY = 200
_MONTH = (30, 60)
# Ranges of a thousand subjects each, side by side; a payload is kept out of line, as real ones are.
_FILL = """
INSERT INTO blocks (tenant_id, revision_id, day, level, run, subject_min, subject_max, row_count, payload)
SELECT :tenant, :revision, day, 0, day, convert_to('s' || lpad((1000 * part)::text, 7, '0'), 'UTF8'),
  convert_to('s' || lpad((1000 * part + 999)::text, 7, '0'), 'UTF8'), 1,
  convert_to(day || ' ' || part || ' ' || repeat('x', 3000), 'UTF8')
FROM generate_series(0, :days - 1) day, generate_series(0, :parts - 1) part
"""


class Shelf:
    """Ninety days of a meter's blocks, and a customer with two subjects."""

    def __init__(self, url: str) -> None:
        self.db = Database(url)
        self.tenant_id = create_tenant(self.db, b"p" * 32, "t", _NOW)[0]
        with self.db.tenant(self.tenant_id) as tx:
            meters.insert(tx, Meter("used", "", "", "use", "COUNT", "", (), ()), _NOW)
            made = meters.get_meter(tx, "used")
        assert made.build is not None
        self.revision_id = made.build.revision_id
        engine = Engine(
            hash_key=bytes(16), horizon_past_seconds=1, horizon_future_seconds=1, max_pending_bytes=1
        )
        engine.open_tenant(self.tenant_id, 0, bytes(32))
        live = Live(self.db, engine)
        with self.db.tenant(self.tenant_id) as tx:
            customers.create_customer(tx, live, CustomerDraft("c"), ["s0005500", "s0150001"], _NOW)
        superuser = sa.create_engine(self.db.url)
        with superuser.begin() as conn:
            wanted = {"tenant": self.tenant_id, "revision": self.revision_id}
            conn.execute(sa.text(_FILL), wanted | {"days": _DAYS, "parts": _BLOCKS_PER_DAY})
            self.customer_id: int = conn.execute(sa.text("SELECT customer_id FROM customers")).scalar_one()
        with superuser.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
            conn.execute(sa.text("ANALYZE"))
        superuser.dispose()

    def read(self, **wanted: Any) -> int:  # noqa: ANN401 - parameters of blocks.read by name
        with self.db.tenant(self.tenant_id) as tx:
            found, _ = blocks.read(tx.conn, self.tenant_id, self.revision_id, *_MONTH, **wanted)
        return len(found)

    def read_in_order(self, course: blocks.Course) -> list[tuple[int, int]]:
        """Days and parts of the blocks of a page that needs all of them."""
        statement = blocks.reading(self.tenant_id, self.revision_id, *_MONTH, course=course)
        with self.db.tenant(self.tenant_id, snapshot=True) as tx:
            read = [
                payload for found, _ in blocks.read_in_order(tx.conn, statement, 500) for payload in found
            ]
        return [(int(day), int(part)) for day, part, _ in (payload.split() for payload in read)]

    def explain(self, **wanted: Any) -> list[dict[str, Any]]:  # noqa: ANN401 - as read
        """The plan that the application role gets, and what each of its nodes looked at."""
        statement = blocks.reading(self.tenant_id, self.revision_id, *_MONTH, **wanted)
        with self.db.tenant(self.tenant_id) as tx:
            compiled = statement.compile(tx.conn, compile_kwargs={"render_postcompile": True})
            raw = tx.conn.connection.driver_connection
            assert raw is not None
            query = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {compiled}"
            row = raw.execute(query, compiled.construct_params()).fetchone()
        return list(_nodes(row[0][0]["Plan"]))


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for inner in plan.get("Plans", ()):
        yield from _nodes(inner)


@pytest.fixture(scope="module")
def shelf(new_database: Callable[[], str]) -> Iterator[Shelf]:
    shelf = Shelf(new_database())
    yield shelf
    shelf.db.close()


def test_a_month_of_one_customer_is_a_block_a_day_for_each_subject(shelf: Shelf) -> None:
    days = _MONTH[1] - _MONTH[0]
    assert shelf.read() == days * _BLOCKS_PER_DAY
    assert shelf.read(customers=[shelf.customer_id]) == 2 * days
    assert shelf.read(subjects=["s0005500"]) == days
    assert shelf.read(subjects=["s0005500"], customers=[shelf.customer_id]) == days
    assert shelf.read(subjects=["nobody"]) == 0


def test_a_month_of_one_customer_looks_at_no_other_month(shelf: Shelf) -> None:
    month = (_MONTH[1] - _MONTH[0]) * _BLOCKS_PER_DAY
    nodes = shelf.explain(customers=[shelf.customer_id])
    looked_at = [node["Actual Rows"] for node in nodes if node.get("Relation Name") == "blocks"]
    assert 0 < sum(looked_at) <= month < _DAYS * _BLOCKS_PER_DAY
    # Their ranges, that is: payloads are kept elsewhere, and only those of the answer are fetched.
    assert nodes[0]["Actual Rows"] == shelf.read(customers=[shelf.customer_id])
    assert nodes[0]["Shared Hit Blocks"] + nodes[0]["Shared Read Blocks"] < month / 10
    used = [
        node["Index Cond"] for node in nodes if "(day >= 30) AND (day < 60)" in node.get("Index Cond", "")
    ]
    assert used, "the days are found by an index"


def test_blocks_of_a_page_come_once_in_order_without_those_that_it_has_passed(shelf: Shelf) -> None:
    days, parts = range(*_MONTH), range(_BLOCKS_PER_DAY)
    every = sorted((part, day) for day in days for part in parts)
    whole = shelf.read_in_order(blocks.Course([30], 30, b""))
    assert [part for _, part in whole] == [part for part, _ in every]
    assert sorted((part, day) for day, part in whole) == every
    in_two = shelf.read_in_order(blocks.Course([30, 45], 30, b""))
    assert in_two[: len(every) // 2] == [(day, part) for day, part in in_two if day < 45]
    assert sorted((part, day) for day, part in in_two) == every
    later = shelf.read_in_order(blocks.Course([30, 45], 45, b"s0150999"))
    assert {(day, part) for day, part in later if day >= 45} == {
        (d, p) for d in days if d >= 45 for p in parts
    }
    assert {part for day, part in later if day < 45} == set(range(150, 200))
