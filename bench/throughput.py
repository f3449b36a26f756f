"""Durable events per second, beside a row per event and beside the same bytes inserted raw."""

from collections import defaultdict
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


def measure(ingest: Ingest, target: Target, sql: Child, url: str, rounds: int) -> dict[str, Any]:
    """Run everything in turn, `rounds` times and once to warm up; returns medians."""
    rows: dict[tuple[str, int], list[float]] = defaultdict(list)
    rows_cpu: dict[tuple[str, int], list[float]] = defaultdict(list)
    wal: dict[str, list[float]] = defaultdict(list)
    raw: dict[str, list[float]] = defaultdict(list)
    stored: dict[str, list[tuple[float, float]]] = defaultdict(list)
    with psycopg.connect(url, autocommit=True) as conn:
        for number in range(rounds + 1):
            if number == 1:  # what came before was to warm up
                for kept in (target.rounds, rows, rows_cpu, wal, raw, stored):
                    kept.clear()
            for case in ingest.cases:
                before, first = _wal(conn), _head(conn) + 1
                sent = ingest.run(target, case)
                expected = ingest.expected[str(case.events)].accepted
                wal[case.name].append((_wal(conn) - before) / expected)
                stored[case.name].append(_segments(conn, first, sent.position))
                if case.name in _RAW:
                    raw[case.name].append(sql.ask("raw", first, sent.position) / sent.seconds)
            for turn, (way, size) in enumerate(product(ROW_WAYS, ROW_BATCHES)):
                used = cpu(sql.pid, sql.pid, target.postmaster_pid)
                rate, inserted = sql.ask(way, size, number * 10 + turn)
                used = cpu(sql.pid, sql.pid, target.postmaster_pid) - used
                rows[way, size].append(rate)
                rows_cpu[way, size].append((used.client + used.postgres) * 1e6 / inserted)
            print(f"throughput: round {number} of {rounds}", flush=True)
    ingest.send_again(target, ingest.cases[-1])
    ingest.require(target, groups=True)
    found: dict[str, Any] = {
        way: {
            str(size): {"events_per_second": median(rows[way, size]), "cpu": median(rows_cpu[way, size])}
            for size in ROW_BATCHES
        }
        for way in ROW_WAYS
    }
    best = {way: max(one["events_per_second"] for one in found[way].values()) for way in ROW_WAYS}
    least_cpu = {way: min(one["cpu"] for one in found[way].values()) for way in ROW_WAYS}
    for case in ingest.cases:
        middling = middle(target.rounds[case.name])
        rates = [one.events_per_second for one in target.rounds[case.name]]
        found[case.name] = {
            **vars(middling),
            "least": min(rates),
            "greatest": max(rates),
            "times_rows": {way: middling.events_per_second / best[way] for way in ROW_WAYS},
            "cpu_of_rows": {way: sum(middling.cpu.values()) / least_cpu[way] for way in ROW_WAYS},
            "of_raw_bytea": median(raw[case.name]) if raw[case.name] else None,
            "wal_bytes_per_event": median(wal[case.name]),
            "segment_bytes_per_event": median(one for one, _ in stored[case.name]),
            "events_per_segment": median(one for _, one in stored[case.name]),
        }
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
