"""Measures ammeter beside what it is compared with, prints the table and keeps it in bench/results.

A few minutes; `--full` has more rounds, more events, and engines of others where they can be installed.
"""

import argparse
import json
import shutil
import tempfile
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg

from ammeter.client import Client
from bench import calls, checks, peers, recovery, throughput
from bench.child import Child
from bench.core import Core
from bench.ingest import Ingest, Target
from bench.load import Load
from bench.machine import Server, describe, load_average, new_database, postgres
from bench.report import render
from bench.sql import Sql
from bench.tenant import set_up

_RESULTS = Path(__file__).parent / "results"
SECTIONS = ("throughput", "calls", "memory", "recovery", "peers")


def main() -> None:
    """Run the sections asked for."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--full", action="store_true", help="take half an hour rather than minutes")
    parser.add_argument("--rounds", type=int, help="interleaved rounds (5, or 9 if full)")
    parser.add_argument("--name", default="", help="a word for the names of the files of results")
    given = parser.parse_args()
    rounds = given.rounds or (9 if given.full else 5)
    directory = Path(tempfile.mkdtemp(prefix="ammeter-bench-"))
    directory.chmod(0o711)  # Postgres may run as another account
    found: dict[str, Any] = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": describe(),
        "rounds": rounds,
        "full": given.full,
        "load_before": load_average(),
    }
    try:
        with postgres(directory) as running:
            found |= _on_server(running.url, running.pid or 0, directory, rounds, full=given.full)
            for millions in (10, 50) if given.full else (10,):
                url = new_database(running.url, f"recovery_{millions}")
                found[f"recovery-{millions}"] = recovery.measure(url, directory / f"r{millions}", millions)
                print(f"recovery: {millions} M done", flush=True)
        with Child(Core) as core:
            core.ask("prepare", 200_000, 1)
            found["memory"] = core.ask("memory", 50 if given.full else 10)
        if given.full:
            found["peers"] = peers.measure(directory)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    found["load_after"] = load_average()
    _keep(found, given.name or ("full" if given.full else "small"))


def _on_server(url: str, postmaster_pid: int, directory: Path, rounds: int, *, full: bool) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with ExitStack() as stack:
        with psycopg.connect(url) as conn:
            row = conn.execute("SHOW server_version").fetchone()
            found["postgres"] = row[0] if row else ""
        load = stack.enter_context(Child(Load))
        sql = stack.enter_context(Child(Sql))
        server = Server(url, directory)
        stack.callback(server.kill)
        server.start()
        client = stack.enter_context(Client(server.address))
        set_up(client)
        target = Target(server, client, postmaster_pid)
        cases = throughput.cases(4 if full else 1)
        ingest = Ingest(load, cases, seed=1)
        sql.ask("prepare", url, 400_000 if full else 100_000, throughput.ROW_BATCHES, 1)
        found["throughput"] = throughput.measure(ingest, target, sql, url, rounds)
        feeder = stack.enter_context(Child(Load))
        checks.prepare(feeder)
        ceiling = found["throughput"]["unary-1000"]["events_per_second"]
        found["checks"] = checks.measure(load, feeder, target, rounds, 6000 if full else 3000, ceiling)
        # Last: what it sends is counted by no gate.
        name = str(cases[0].events)
        found["latency"] = calls.latency(load, target, sql, name, 3, 1500 if full else 400)
        print("calls: done", flush=True)
        server.stop()
    return found


def _keep(found: dict[str, Any], name: str) -> None:
    text = render(found)
    print(text)
    stem = f"{datetime.now(UTC):%Y-%m-%d}-{found['machine']['commit'].rstrip('+')}-{name}"
    _RESULTS.mkdir(exist_ok=True)
    (_RESULTS / f"{stem}.json").write_text(json.dumps(found, indent=1) + "\n")
    (_RESULTS / f"{stem}.txt").write_text(text)
    print(f"kept in bench/results/{stem}.txt and .json")


if __name__ == "__main__":
    main()
