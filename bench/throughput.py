"""Durable events per second, beside a row per event and beside the same bytes inserted raw."""

from collections import defaultdict
from collections.abc import Sequence
from itertools import product
from statistics import median
from typing import Any

import psycopg

from bench.child import Child
from bench.ingest import Case, Ingest, Target, middle
from bench.machine import cpu

ROW_BATCHES = (100, 1000)
# As services do it, and as fast as we know.
ROW_WAYS = ("rows", "rows_ahead")
_RAW = {"unary-1000", "unary-8000", "stream-1000", "stream-8000"}


def cases(scale: float) -> tuple[Case, ...]:
    """Say what is sent; at `scale` 1 a run takes about half a second."""
    return (
        Case("unary", 1, 64, int(2_000 * scale)),
        Case("unary", 100, 32, int(40_000 * scale)),
        Case("unary", 1000, 16, int(200_000 * scale)),
        Case("unary", 8000, 6, int(400_000 * scale)),
        Case("stream", 100, 1, int(40_000 * scale)),
        Case("stream", 1000, 1, int(200_000 * scale)),
        Case("stream", 8000, 1, int(400_000 * scale)),
    )


def some_cases(scale: float) -> tuple[Case, ...]:
    """Say what is sent of a further workload."""
    return (
        Case("unary", 1000, 16, int(200_000 * scale)),
        Case("unary", 8000, 6, int(400_000 * scale)),
    )


class Comparison:
    """One server, and what it is compared with, in interleaved rounds.

    `beside` is another server that takes the same kind of events, and what it is sent.
    """

    def __init__(
        self,
        ingest: Ingest,
        target: Target,
        sql: Child,
        *,
        row_batches: Sequence[int] = ROW_BATCHES,
        beside: tuple[Target, Case] | None = None,
    ) -> None:
        """Begin with no rounds."""
        self._ingest = ingest
        self._target = target
        self._sql = sql
        self._row_batches = row_batches
        self._beside = beside
        self._forget()

    def _forget(self) -> None:
        self._rows: dict[tuple[str, int], list[float]] = defaultdict(list)
        self._rows_cpu: dict[tuple[str, int], list[float]] = defaultdict(list)
        self._wal: dict[str, list[float]] = defaultdict(list)
        self._raw: dict[str, list[float]] = defaultdict(list)
        self._raw_sent: dict[str, list[float]] = defaultdict(list)
        self._stored: dict[str, list[tuple[float, float]]] = defaultdict(list)
        self._target.rounds.clear()
        if self._beside:
            self._beside[0].rounds.clear()

    def measure(self, url: str, rounds: int) -> dict[str, Any]:
        """Run everything in turn, `rounds` times and once to warm up; returns medians."""
        with psycopg.connect(url, autocommit=True) as conn:
            for number in range(rounds + 1):
                if number == 1:  # what came before was to warm up
                    self._forget()
                if self._beside:
                    self._ingest.run(*self._beside)
                for case in self._ingest.cases:
                    self._run(conn, case)
                for turn, (way, size) in enumerate(product(ROW_WAYS, self._row_batches)):
                    self._run_rows(way, size, number * 10 + turn)
                print(f"{self._ingest.kind.name}: round {number} of {rounds}", flush=True)
        self._ingest.send_again(self._target, self._ingest.cases[-1])
        self._ingest.require(self._target, groups=True)
        return self._found()

    def _run(self, conn: "psycopg.Connection[Any]", case: Case) -> None:
        before, first = _wal(conn), _head(conn) + 1
        sent = self._ingest.run(self._target, case)
        expected = self._ingest.expected[self._ingest.name(case.events)].accepted
        self._wal[case.name].append((_wal(conn) - before) / expected)
        self._stored[case.name].append(_segments(conn, first, sent.position))
        if case.name in _RAW:
            for found, way in (self._raw, "raw"), (self._raw_sent, "raw_as_sent"):
                found[case.name].append(self._sql.ask(way, first, sent.position) / sent.seconds)

    def _run_rows(self, way: str, size: int, source: int) -> None:
        sql, postmaster = self._sql, self._target.postmaster_pid
        used = cpu(sql.pid, sql.pid, postmaster)
        rate, inserted = sql.ask(way, size, source)
        used = cpu(sql.pid, sql.pid, postmaster) - used
        self._rows[way, size].append(rate)
        self._rows_cpu[way, size].append((used.client + used.postgres) * 1e6 / inserted)

    def _found(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            way: {
                str(size): {
                    "events_per_second": median(self._rows[way, size]),
                    "cpu": median(self._rows_cpu[way, size]),
                }
                for size in self._row_batches
            }
            for way in ROW_WAYS
        }
        best = {way: max(one["events_per_second"] for one in found[way].values()) for way in ROW_WAYS}
        least_cpu = {way: min(one["cpu"] for one in found[way].values()) for way in ROW_WAYS}
        for case in self._ingest.cases:
            middling = middle(self._target.rounds[case.name])
            rates = [one.events_per_second for one in self._target.rounds[case.name]]
            raw, stored = self._raw[case.name], self._stored[case.name]
            found[case.name] = {
                **vars(middling),
                "least": min(rates),
                "greatest": max(rates),
                "times_rows": {way: middling.events_per_second / best[way] for way in ROW_WAYS},
                "cpu_of_rows": {way: sum(middling.cpu.values()) / least_cpu[way] for way in ROW_WAYS},
                "of_raw_bytea": median(raw) if raw else None,
                "of_raw_as_sent": median(self._raw_sent[case.name]) if raw else None,
                "wal_bytes_per_event": median(self._wal[case.name]),
                "segment_bytes_per_event": median(one for one, _ in stored),
                "events_per_segment": median(one for _, one in stored),
            }
        if self._beside:
            other, case = self._beside
            pairs = zip(self._target.rounds[case.name], other.rounds[case.name], strict=True)
            times = median(one.events_per_second / two.events_per_second for one, two in pairs)
            found["plain"] = {case.name: {**vars(middle(other.rounds[case.name])), "ammeter_times": times}}
        return found


def _wal(conn: "psycopg.Connection[Any]") -> float:
    row = conn.execute("SELECT pg_current_wal_lsn() - '0/0'").fetchone()
    return float(row[0]) if row else 0.0


def _head(conn: "psycopg.Connection[Any]") -> int:
    row = conn.execute("SELECT max(position) FROM heads").fetchone()
    return int(row[0]) if row else 0


def _segments(conn: "psycopg.Connection[Any]", first: int, last: int) -> tuple[float, float]:
    """Bytes per event, events per segment."""
    query = (
        "SELECT sum(length(payload)), sum(event_count), count(*) FROM segments "
        "WHERE position BETWEEN %s AND %s"
    )
    row = conn.execute(query, [first, last]).fetchone()
    assert row is not None
    return float(row[0]) / float(row[1]), float(row[1]) / float(row[2])
