"""What ten times as much of something costs: `python -m bench.curves` prints it.

Pairs of servers, one with ten times as much, take the same events and calls in turn. Everything is
CPU-seconds of the server and of Postgres, which other work on the machine changes little.
"""

import argparse
import json
import resource
import shutil
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from ammeter.client import Client
from bench.child import Child
from bench.core import Core
from bench.ingest import Case, Ingest, Target
from bench.kinds import Kind, LlmGateway
from bench.load import CHECK, Idle, Load
from bench.machine import Server, cpu, load_average, new_database, postgres
from bench.month import MONTH_DAYS, blocks_of, customer_month, rows_by_subject, wait_until_written
from bench.tenant import checks, set_up, set_up_meters

_CALLS = 1500
_IN_FLIGHT = 32
_STREAMS = 1000
_CUSTOMERS = 100
_QUERIES = 20


@dataclass(frozen=True)
class Size:
    """How much of everything a server has."""

    kind: LlmGateway
    meters_of_others: int = 0
    """Meters of events that nobody sends."""
    days: int = 0
    """Of history, an event a day and subject."""
    streams: int = 0
    """Open, and idle."""


class Side:
    """One of a pair: a server of one size, and what sends to it."""

    def __init__(
        self, stack: ExitStack, load: Child, name: str, size: Size, place: "Place", seed: int
    ) -> None:
        """Start it with its history."""
        url = new_database(place.url, f"curve_{name}")
        directory = place.directory / name
        directory.mkdir()
        self.url, self.size, self._load, self._place = url, size, load, place
        self.server = Server(url, directory)
        stack.callback(self.server.kill)
        self.server.start()
        with Client(self.server.address) as client:
            set_up(client, size.kind, _CUSTOMERS)
            for number in range(size.meters_of_others // 3):
                meters = {f"other-{number}-{at}": "n" if at else "" for at in range(3)}
                set_up_meters(client, Kind(f"other-{number}", f"other.{number}", meters, ("model",)))
        if size.days:
            self.server.stop()
            with Child(Core) as core:
                core.ask("prepare_day", replace(size.kind, in_turn=True), size.kind.subjects, 3)
                core.ask("days", url, size.days)
            self.server.start()
            wait_until_written(url)
        self._idle = stack.enter_context(Child(Idle)) if size.streams else None
        self._without_streams = self.server.resident_bytes()
        if self._idle:
            self._idle.ask("open", self.server.address, size.streams)
        self.client = stack.enter_context(Client(self.server.address))
        self.target = Target(self.server, self.client, place.postmaster_pid)
        events = place.events
        self.case = Case("unary", 1000, 16, events)
        self.ingest = Ingest(load, size.kind, [self.case], seed)
        self.found: dict[str, list[float]] = {"ingest": [], "check": [], "events_per_second": []}

    def round(self) -> None:
        """Send events, and check, once."""
        self.ingest.run(self.target, self.case)
        last = self.target.rounds[self.case.name][-1]
        self.found["ingest"].append(last.cpu["server"] + last.cpu["postgres"])
        self.found["events_per_second"].append(last.events_per_second)
        before = self._cpu()
        self._load.ask("calls", self.server.address, CHECK, checks(_CUSTOMERS), _CALLS, _IN_FLIGHT)
        self.found["check"].append((self._cpu() - before) * 1e6 / _CALLS)

    def queries(self) -> dict[str, float]:
        """Ask for a month: of one customer, and of everybody."""
        before = self._cpu()
        for _ in range(_QUERIES):
            customer_month(self.client, self.size.kind)
        one = (self._cpu() - before) * 1000 / _QUERIES
        before = self._cpu()
        rows = rows_by_subject(self.client, self.size.kind)
        per_row = (self._cpu() - before) * 1e6 / rows
        return {
            "customer_month_ms": one,
            "query_row_us": per_row,
            "query_rows": rows,
            **blocks_of(self.url, self.size.kind),
        }

    def finish(self) -> dict[str, Any]:
        """Stop unless everything was counted; returns the least of what was measured."""
        self.ingest.require(self.target, groups=False)
        found: dict[str, Any] = {
            "ingest_cpu_seconds_per_million": min(self.found["ingest"]),
            "events_per_second": max(self.found["events_per_second"]),
            "check_cpu_us": min(self.found["check"]),
        }
        if self.size.days:
            found |= self.queries()
        if self.size.streams:
            grown = self.server.resident_bytes() - self._without_streams
            found["resident_kib_per_stream"] = grown / self.size.streams / 1024
        return found

    def _cpu(self) -> float:
        used = cpu(self._load.pid, self.server.pid, self._place.postmaster_pid)
        return used.server + used.postgres


@dataclass(frozen=True)
class Place:
    """Where servers run, and how much they are sent at a time."""

    url: str
    postmaster_pid: int
    directory: Path
    rounds: int
    events: int


def axes(subjects: int) -> dict[str, tuple[Size, Size]]:
    """Name the pairs: as much as that, and ten times of one thing."""
    kind = LlmGateway(subjects=subjects)
    base, month = Size(kind), Size(kind, days=MONTH_DAYS)
    many = replace(kind, models=tuple(f"model-{number:02d}" for number in range(10 * len(kind.models))))
    meters = {f"{key}-{number}": value for number in range(9) for key, value in kind.meters.items()}
    return {
        "subjects": (month, Size(replace(kind, subjects=10 * subjects), days=MONTH_DAYS)),
        "meters": (base, replace(base, meters_of_others=9 * len(kind.meters))),
        "meters of each event": (base, Size(replace(kind, meters=kind.meters | meters))),
        "values": (base, Size(many)),
        "history": (month, replace(month, days=10 * MONTH_DAYS)),
        "connections": (base, replace(base, streams=_STREAMS)),
    }


def measure(url: str, postmaster_pid: int, directory: Path, *, full: bool) -> dict[str, Any]:
    """Measure along every axis; the ratios are of the greater to the smaller."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a connection is a file
    place = Place(url, postmaster_pid, directory, 5 if full else 3, 400_000 if full else 100_000)
    found = {}
    for axis, (small, great) in axes(10_000 if full else 3000).items():
        word = axis.replace(" ", "_")
        with ExitStack() as stack:
            load = stack.enter_context(Child(Load))
            pair = [
                Side(stack, load, f"{word}_{name}", size, place, seed)
                for seed, (name, size) in enumerate((("small", small), ("great", great)))
            ]
            for number in range(place.rounds + 1):
                for side in pair if number % 2 else reversed(pair):
                    side.round()
                    if number == 0:  # to warm up
                        for kept in side.found.values():
                            kept.clear()
            ratios = {name: _ratio(pair, name) for name in ("ingest", "check")}
            one, ten = (side.finish() for side in pair)
        if "query_rows" in one:
            ratios["customer_month"] = ten["customer_month_ms"] / one["customer_month_ms"]
            ratios["query_per_row"] = ten["query_row_us"] / one["query_row_us"]
        found[axis] = {**ratios, "once": one, "ten times": ten}
        print(f"curves: {axis} done", flush=True)
    return found


def _ratio(pair: list[Side], name: str) -> float:
    small, great = (side.found[name] for side in pair)
    return median(ten / one for one, ten in zip(small, great, strict=True))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.curves", description=__doc__)
    parser.add_argument("--full", action="store_true", help="more subjects, events and rounds")
    given = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="ammeter-curves-"))
    directory.chmod(0o711)  # Postgres may run as another account
    before = load_average()
    try:
        with postgres(directory) as running:
            found = measure(running.url, running.pid or 0, directory, full=given.full)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    print(json.dumps(found, indent=1))
    print(f"load before {before:.1f}, after {load_average():.1f}")


if __name__ == "__main__":
    main()
