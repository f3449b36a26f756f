"""Measures ammeter beside what it is compared with, prints the table and keeps it in bench/results.

Some eight minutes; `--full` has more rounds and events. Then the tables and charts of
docs/performance.md are made anew from the newest results, unless `--results` names another directory.
"""

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg

from ammeter.client import Client
from bench import calls, checks, curves, engines, invoices, page, recovery
from bench.beside import CASE, PlainService
from bench.child import Child
from bench.core import Core
from bench.ingest import Ingest, Target
from bench.kinds import ApiGateway, LlmGateway, Traces, traces_folder
from bench.load import Load
from bench.machine import Server, describe, load_average, new_database, postgres
from bench.report import render
from bench.sql import Sql
from bench.tenant import set_up, set_up_meters
from bench.throughput import ROW_BATCHES, Comparison, cases, some_cases

SECTIONS = ("throughput", "recovery", "memory", "engines", "curves", "invoices")
_Found = dict[str, Any]


class Run:
    """One run over one Postgres; each method is a section and returns its part of the results."""

    def __init__(self, url: str, postmaster_pid: int, directory: Path, rounds: int, *, full: bool) -> None:
        """Use a database's URL, and a directory for what is passing."""
        self._url = url
        self._postmaster_pid = postmaster_pid
        self._directory = directory
        self._rounds = rounds
        self._full = full

    def throughput(self) -> _Found:
        """Send the workloads, with checks and latencies while the server is there."""
        full, url, found = self._full, self._url, _Found()
        with ExitStack() as stack:
            load, sql = stack.enter_context(Child(Load)), stack.enter_context(Child(Sql))
            plain = PlainService(new_database(url, "plain"), self._directory)
            stack.callback(plain.stop)
            server = Server(url, self._directory)
            stack.callback(server.kill)
            server.start()
            client = stack.enter_context(Client(server.address))
            kind = LlmGateway()
            set_up(client, kind)
            target = Target(server, client, self._postmaster_pid)
            ingest = Ingest(load, kind, cases(4 if full else 1), seed=1)
            ingest.encode([CASE])
            sql.ask("prepare", url, kind, 400_000 if full else 100_000, ROW_BATCHES, 1)
            beside = plain.target(client, self._postmaster_pid)
            compared = Comparison(ingest, target, sql, beside=(beside, CASE))
            found["throughput"] = compared.measure(url, self._rounds)
            plain.require(ingest, beside)
            plain.stop()
            by_thousands = next(case for case in ingest.cases if case.name == "unary-1000")
            ceiling = found["throughput"][by_thousands.name]["events_per_second"]
            found["under_load"] = calls.under_load(ingest, target, by_thousands, ceiling, 15 if full else 4)
            ingest.require(target, groups=False)
            feeder = stack.enter_context(Child(Load))
            checks.prepare(feeder)
            count = 6000 if full else 3000
            found["checks"] = checks.measure(load, feeder, target, self._rounds, count, ceiling)
            # Last: what it sends is counted by no gate.
            name = ingest.name(ingest.cases[0].events)
            found["latency"] = calls.latency(load, target, sql, name, 3, 1500 if full else 400)
            found["workloads"] = self._workloads(load, sql, target)
            server.stop()
        return found

    def _workloads(self, load: Child, sql: Child, first: Target) -> _Found:
        """Send the other workloads, beside rows of the same events."""
        found = _Found()
        for kind in (ApiGateway(), Traces()):
            if isinstance(kind, Traces) and not traces_folder().is_dir():
                found[kind.name] = f"skipped: the traces are not in {traces_folder()}"
                continue
            set_up_meters(first.client, kind)
            target = Target(first.server, first.client, first.postmaster_pid)
            ingest = Ingest(load, kind, some_cases(4 if self._full else 1), seed=2)
            sql.ask("prepare", self._url, kind, 100_000, (1000,), 2)
            rounds = self._rounds if self._full else min(3, self._rounds)
            compared = Comparison(ingest, target, sql, row_batches=(1000,))
            found[kind.name] = compared.measure(self._url, rounds)
        return found

    def recovery(self) -> _Found:
        """Start on a long history."""
        found = _Found()
        for millions in (10, 50) if self._full else (10,):
            url = new_database(self._url, f"recovery_{millions}")
            found[f"recovery-{millions}"] = recovery.measure(url, self._directory / f"r{millions}", millions)
        return found

    def memory(self) -> _Found:
        """Count what identities take."""
        with Child(Core) as core:
            core.ask("prepare", LlmGateway(), 200_000, 1)
            return {"memory": core.ask("memory", 50 if self._full else 10)}

    def engines(self) -> _Found:
        """Compare the engine alone."""
        events, rounds = (1_000_000, 5) if self._full else (300_000, 3)
        return {"engines": engines.measure(self._directory, events, rounds)}

    def curves(self) -> _Found:
        """Find what ten times as much of something costs."""
        return {"curves": curves.measure(self._url, self._postmaster_pid, self._directory, full=self._full)}

    def invoices(self) -> _Found:
        """Bill many customers, beside one SQL transaction that prices the same."""
        return {"invoices": invoices.measure(100_000, 1_000_000, in_blocks=False, processes=2)}


def main() -> None:
    """Run the sections asked for."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--full", action="store_true", help="take an hour rather than minutes")
    parser.add_argument("--rounds", type=int, help="interleaved rounds (5, or 9 if full)")
    parser.add_argument("--name", default="", help="a word for the names of the files of results")
    parser.add_argument("--results", type=Path, default=page.RESULTS, help="where results are kept")
    parser.add_argument(
        "--only", choices=SECTIONS, action="append", help="measure this alone (may be repeated)"
    )
    given = parser.parse_args()
    rounds = given.rounds or (9 if given.full else 5)
    directory = Path(tempfile.mkdtemp(prefix="ammeter-bench-"))
    directory.chmod(0o711)  # Postgres may run as another account
    found: _Found = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": describe(),
        "rounds": rounds,
        "full": given.full,
        "load_before": load_average(),
        "seconds": {},
    }
    try:
        with postgres(directory) as running:
            with psycopg.connect(running.url) as conn:
                row = conn.execute("SHOW server_version").fetchone()
                found["postgres"] = row[0] if row else ""
            run = Run(running.url, running.pid or 0, directory, rounds, full=given.full)
            for section in given.only or SECTIONS:
                measure: Callable[[], _Found] = getattr(run, section)
                started = time.monotonic()
                found |= measure()
                found["seconds"][section] = round(time.monotonic() - started)
                print(f"{section}: {found['seconds'][section]} s", flush=True)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    found["load_after"] = load_average()
    _keep(found, given.results, given.name or ("full" if given.full else "small"))
    if given.results == page.RESULTS:
        page.write()


def _keep(found: _Found, results: Path, name: str) -> None:
    text = render(found)
    print(text)
    stem = f"{datetime.now(UTC):%Y-%m-%d}-{found['machine']['commit'].rstrip('+')}-{name}"
    results.mkdir(parents=True, exist_ok=True)
    (results / f"{stem}.json").write_text(json.dumps(found, indent=1) + "\n")
    (results / f"{stem}.txt").write_text(text)
    print(f"kept in {stem}.txt and .json")


if __name__ == "__main__":
    main()
