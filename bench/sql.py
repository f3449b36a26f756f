"""What is compared with, in a process of its own: plain inserts into the same Postgres."""

import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from statistics import median
from typing import Any, LiteralString

import psycopg
from psycopg.types.json import Jsonb

from bench.kinds import Kind
from bench.workload import Row, generate, source_name

_TABLES = """
DROP TABLE IF EXISTS bench_rows, bench_raw, bench_commits;
CREATE TABLE bench_rows (
  source text NOT NULL, id text NOT NULL, type text NOT NULL, subject text NOT NULL,
  time timestamptz NOT NULL, properties jsonb NOT NULL, PRIMARY KEY (source, id)
);
CREATE TABLE bench_raw (number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, payload bytea NOT NULL);
ALTER TABLE bench_raw ALTER COLUMN payload SET STORAGE EXTERNAL;
CREATE TABLE bench_commits (number int NOT NULL);
"""
_INSERT_ROWS = """
INSERT INTO bench_rows (source, id, type, subject, time, properties)
SELECT %s, id, %s, subject, to_timestamp(us / 1e6), properties
FROM unnest(%s::text[], %s::text[], %s::bigint[], %s::jsonb[]) AS sent (id, subject, us, properties)
ON CONFLICT (source, id) DO NOTHING
"""
_INSERT_ROW = """
INSERT INTO bench_rows (source, id, type, subject, time, properties) VALUES (%s, %s, %s, %s, %s, %s)
ON CONFLICT (source, id) DO NOTHING
"""
# Two keep both cores busy; more were not faster.
CONNECTIONS = 2

Batch = tuple[str, str, str, str]
Values = tuple[str, str, str, str, datetime, Jsonb]


class Sql:
    """Holds encoded batches between runs."""

    def __init__(self) -> None:
        """Hold nothing."""
        self._url = ""
        self._type = ""
        self._unique = 0
        self._batches: dict[int, list[Batch]] = {}
        self._rows: list[Row] = []

    def prepare(self, url: str, kind: Kind, count: int, sizes: Sequence[int], seed: int) -> None:
        """Make the tables anew, and array literals of a workload's good events in batches of each size."""
        self._url = url
        self._type = kind.event_type
        work = generate(kind, count, seed)
        self._unique = work.expected.accepted
        self._rows = work.rows
        self._batches = {
            size: [_batch(work.rows[at : at + size]) for at in range(0, len(work.rows), size)]
            for size in sizes
        }
        with psycopg.connect(url) as conn:
            conn.execute(_TABLES.encode())

    def rows(self, size: int, source: int) -> tuple[float, int]:
        """Insert a row per event as a service does, with its driver's `executemany`, a commit per batch.

        Returns events per second, and how many. Each must be there once.
        """
        batches = [self._rows[at : at + size] for at in range(0, len(self._rows), size)]
        name = source_name(source)

        def insert(part: Sequence[Sequence[Row]], own: psycopg.Connection) -> None:
            for batch in part:
                with own.transaction(), own.cursor() as cursor:
                    cursor.executemany(_INSERT_ROW, [_values(name, self._type, row) for row in batch])

        return self._timed(name, insert, [batches])

    def rows_ahead(self, size: int, source: int) -> tuple[float, int]:
        """Insert them as fast as we know: arrays encoded ahead, a statement per batch, two connections.

        Returns as `rows` does.
        """
        batches = self._batches[size]
        name = source_name(source)
        half = -(-len(batches) // CONNECTIONS)

        def insert(part: Sequence[Batch], own: psycopg.Connection) -> None:
            for batch in part:
                own.execute(_INSERT_ROWS, (name, self._type, *batch), prepare=True)

        parts = [batches[at : at + half] for at in range(0, len(batches), half)]
        return self._timed(name, insert, parts)

    def _timed(
        self, name: str, work: Callable[[Any, psycopg.Connection], None], parts: Sequence[Sequence[Any]]
    ) -> tuple[float, int]:
        seconds = self._in_threads(work, parts)
        with psycopg.connect(self._url) as conn:
            query = "SELECT count(*) FROM bench_rows WHERE source = %s"
            found = conn.execute(query, [name]).fetchone()
        assert found == (self._unique,), (found, self._unique)
        return self._unique / seconds, self._unique

    def raw(self, first: int, last: int) -> float:
        """Insert the payloads of segments [first, last] once more, a commit each; returns seconds."""
        query = "SELECT payload FROM segments WHERE position BETWEEN %s AND %s ORDER BY position"
        return self._insert_raw([row[0] for row in self._segments(query, first, last)])

    def raw_as_sent(self, first: int, last: int) -> float:
        """As `raw`, but as many bytes as came in, before they were compressed.

        Which bytes makes no difference: here nothing compresses them.
        """
        query = "SELECT raw_bytes FROM segments WHERE position BETWEEN %s AND %s ORDER BY position"
        return self._insert_raw([os.urandom(row[0]) for row in self._segments(query, first, last)])

    def _segments(self, query: LiteralString, first: int, last: int) -> list[Any]:
        with psycopg.connect(self._url, autocommit=True) as conn:
            rows = conn.execute(query, [first, last], binary=True).fetchall()
        assert len(rows) == last - first + 1
        return rows

    def _insert_raw(self, payloads: Sequence[bytes]) -> float:
        with psycopg.connect(self._url, autocommit=True) as conn:
            started = time.perf_counter()
            for payload in payloads:
                insert = "INSERT INTO bench_raw (payload) VALUES (%b)"
                conn.execute(insert, [payload], prepare=True, binary=True)
            seconds = time.perf_counter() - started
            conn.execute("TRUNCATE bench_raw")
        return seconds

    def commits(self, per_second: float, count: int) -> float:
        """Commit a small row at a fixed pace; returns the median of seconds from when it was due."""
        latencies = []
        with psycopg.connect(self._url, autocommit=True) as conn:
            started = time.perf_counter()
            for number in range(count):
                due = started + number / per_second
                time.sleep(max(0.0, due - time.perf_counter()))
                conn.execute("INSERT INTO bench_commits VALUES (%s)", [number], prepare=True)
                latencies.append(time.perf_counter() - due)
        return median(latencies)

    def _in_threads(
        self, work: Callable[[Any, psycopg.Connection], None], parts: Sequence[Sequence[Any]]
    ) -> float:
        connections = [psycopg.connect(self._url, autocommit=True) for _ in parts]
        pairs = zip(parts, connections, strict=True)
        threads = [threading.Thread(target=work, args=pair) for pair in pairs]
        started = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seconds = time.perf_counter() - started
        for conn in connections:
            conn.close()
        return seconds


def _values(source: str, event_type: str, row: Row) -> Values:
    time = datetime.fromtimestamp(row.time_us / 1e6, UTC)
    return source, row.event_id, event_type, row.subject, time, Jsonb(row.properties)


def _batch(rows: Sequence[Row]) -> Batch:
    properties = [json.dumps(row.properties) for row in rows]
    return (
        _array(row.event_id for row in rows),
        _array(row.subject for row in rows),
        _array(str(row.time_us) for row in rows),
        _array(text.replace('"', '\\"') for text in properties),
    )


def _array(values: Iterable[str]) -> str:
    return "{" + ",".join(f'"{value}"' for value in values) + "}"
