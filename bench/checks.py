"""Checks beside an empty handler of the same server: alone, and while events come in at half their ceiling.

`python -m bench.checks [--rounds N] [--calls N]` runs this part alone. On a busy machine read the CPU-seconds
of a call: they are the server's own, and move less than rates do.
"""

import argparse
import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from ammeter.client import Client
from bench.child import Child
from bench.ingest import Case, Ingest, Target
from bench.kinds import LlmGateway
from bench.load import CHECK, Load
from bench.machine import Server, load_average, postgres
from bench.serve import EMPTY, FILLED
from bench.tenant import CUSTOMERS, batch, checks, require_access, set_up, watched_customer

_BATCH = "/ammeter.v1.EntitlementService/BatchCheckEntitlements"
_IN_FLIGHT = 32
_AT_ONCE = 100
_INGEST = Case("unary", 1000, 16, 200_000)
_SOURCE = 80_000_000


def measure(
    load: Child, feeder: Child, target: Target, rounds: int, count: int, ceiling: float
) -> dict[str, Any]:
    """Ask single checks, batches of 100 and nothing in turn; `ceiling` is the ingest rate, events/s."""
    require_access(target.client)
    quiet = _rounds(load, target, rounds, count)
    visible = load.ask("visible", target.server.address, watched_customer(target.client), count // 10)
    requests = int(ceiling / 2 / _INGEST.size * quiet.pop("seconds") * 2)
    feeder.begin(
        "feed",
        target.server.address,
        str(_INGEST.events),
        _INGEST.size,
        _SOURCE,
        ceiling / 2,
        max(10, requests),
    )
    busy = _rounds(load, target, rounds, count)
    busy_visible = load.ask(
        "visible", target.server.address, watched_customer(target.client), max(50, count // 20)
    )
    fed = feeder.result()
    for name in ("seconds", "cpu_us", "cpu_of_empty_handler", "cpu_of_batch_of_100"):
        del busy[name]  # the CPU would be that of the events, too
    return {
        **quiet,
        "ack_to_visible_p50_ms": _percentile(visible, 50),
        "ack_to_visible_p99_ms": _percentile(visible, 99),
        "while_ingesting": {
            "events_per_second": fed,
            **busy,
            "ack_to_visible_p50_ms": _percentile(busy_visible, 50),
            "ack_to_visible_p99_ms": _percentile(busy_visible, 99),
        },
    }


def _rounds(load: Child, target: Target, rounds: int, count: int) -> dict[str, Any]:
    """Run all in turn; ratios are of neighbours in time."""
    bodies, several = checks(CUSTOMERS), batch(_AT_ONCE)
    empty: list[tuple[float, float]] = []
    filled: list[tuple[float, float]] = []
    single: list[tuple[float, float]] = []
    batched: list[tuple[float, float]] = []
    for _ in range(rounds):
        empty.append(_calls(load, target, EMPTY, bodies, count))
        single.append(_calls(load, target, CHECK, bodies, count))
        filled.append(_calls(load, target, FILLED, bodies, count))
        batched.append(_calls(load, target, _BATCH, [several], max(_IN_FLIGHT, count // 4)))
    three = list(zip(empty, single, batched, strict=True))
    alike = list(zip(filled, single, strict=True))
    return {
        "empty_calls_per_second": 1 / median(wall for wall, _ in empty),
        "checks_per_second": 1 / median(wall for wall, _ in single),
        "batched_checks_per_second": _AT_ONCE / median(wall for wall, _ in batched),
        "of_empty_handler": median(nothing[0] / one[0] for nothing, one, _ in three),
        "of_one_that_answers_as_much": median(other[0] / one[0] for other, one in alike),
        "batch_of_100_times_single": median(_AT_ONCE * one[0] / many[0] for _, one, many in three),
        "cpu_us": {
            "empty": median(used for _, used in empty) * 1e6,
            "as_much_answered": median(used for _, used in filled) * 1e6,
            "check": median(used for _, used in single) * 1e6,
            "batch_of_100": median(used for _, used in batched) * 1e6,
        },
        "cpu_of_empty_handler": median(nothing[1] / one[1] for nothing, one, _ in three),
        "cpu_of_batch_of_100": median(_AT_ONCE * one[1] / many[1] for _, one, many in three),
        "seconds": sum(wall * count for one in (empty, single, filled) for wall, _ in one)
        + sum(wall * max(_IN_FLIGHT, count // 4) for wall, _ in batched),
    }


def _calls(load: Child, target: Target, path: str, bodies: list[bytes], count: int) -> tuple[float, float]:
    """Make calls; returns seconds and CPU-seconds of the server, each per call."""
    server = psutil.Process(target.server.pid)
    before = sum(server.cpu_times()[:2])
    seconds = load.ask("calls", target.server.address, path, bodies, count, _IN_FLIGHT)
    used = sum(server.cpu_times()[:2]) - before
    return seconds / count, used / count


def _percentile(seconds: list[float], percent: int) -> float:
    """Give a percentile in milliseconds."""
    return sorted(seconds)[len(seconds) * percent // 100] * 1000


def main() -> None:
    """Set a server up, find its ceiling, measure."""
    parser = argparse.ArgumentParser(prog="python -m bench.checks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds")
    parser.add_argument("--calls", type=int, default=3000, help="calls of each kind in a round")
    parser.add_argument("--source", type=Path, help="another checkout whose server to run")
    given = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="ammeter-bench-"))
    directory.chmod(0o711)  # Postgres may run as another account
    try:
        with ExitStack() as stack:
            running = stack.enter_context(postgres(directory))
            load, feeder = stack.enter_context(Child(Load)), stack.enter_context(Child(Load))
            server = Server(running.url, directory, source=given.source)
            stack.callback(server.kill)
            server.start()
            client = stack.enter_context(Client(server.address))
            set_up(client)
            target = Target(server, client, running.pid or 0)
            ingest = Ingest(load, LlmGateway(), (_INGEST,), seed=1)
            for _ in range(3):
                ingest.run(target, _INGEST)
            prepare(feeder)
            ceiling = max(one.events_per_second for one in target.rounds[_INGEST.name])
            found = measure(load, feeder, target, given.rounds, given.calls, ceiling)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    print(f"ingest alone: {ceiling:,.0f} events/s; load {load_average():.1f}")
    busy = found.pop("while_ingesting")
    for words, figures in (("alone", found), ("while events come in", busy)):
        print(words)
        for name, value in figures.items():
            text = (
                ", ".join(f"{key} {one:.1f}" for key, one in value.items())
                if name == "cpu_us"
                else f"{value:,.2f}"
            )
            print(f"  {name:30} {text}")


def prepare(feeder: Child) -> None:
    """Have the events encoded that come in meanwhile."""
    feeder.ask("prepare", str(_INGEST.events), LlmGateway(), _INGEST.events, [_INGEST.size], 1)


if __name__ == "__main__":
    main()
