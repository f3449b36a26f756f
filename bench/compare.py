"""Compares variants of the server on the same events, in interleaved rounds.

    python -m bench.compare codec=lz4 codec=zstd codec=none
    python -m bench.compare "" switch_interval=0.0005 --cases unary-1,unary-100
    python -m bench.compare "" source=../other-checkout

A variant is settings of ammeter.config (comma-separated), or switch_interval or gc (see bench.serve),
or another checkout to run, `source`.
"""

import argparse
import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path

from ammeter.client import Client
from bench.child import Child
from bench.ingest import Case, Ingest, Target, middle
from bench.kinds import LlmGateway
from bench.load import Load
from bench.machine import Server, new_database, postgres
from bench.tenant import set_up

CASES = (
    Case("unary", 1, 64, 4_000),
    Case("unary", 100, 32, 60_000),
    Case("unary", 1000, 16, 200_000),
    Case("unary", 8000, 6, 400_000),
    Case("stream", 1000, 1, 200_000),
)
_TUNED_BY_SERVE = {"switch_interval", "gc"}


def main() -> None:
    """Run the variants against each other and print medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("variants", nargs="+")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cases", default=",".join(case.name for case in CASES))
    given = parser.parse_args()
    cases = [case for case in CASES if case.name in given.cases.split(",")]
    directory = Path(tempfile.mkdtemp(prefix="ammeter-bench-"))
    directory.chmod(0o711)
    try:
        with ExitStack() as stack:
            running = stack.enter_context(postgres(directory))
            load = stack.enter_context(Child(Load))
            targets = {}
            for number, variant in enumerate(given.variants):
                url = new_database(running.url, f"variant_{number}")
                server = _server(url, directory / str(number), variant)
                stack.callback(server.kill)
                server.start()
                client = stack.enter_context(Client(server.address))
                set_up(client)
                targets[variant] = Target(server, client, running.pid or 0)
            _run(Ingest(load, LlmGateway(), cases, seed=1), targets, given.rounds)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _run(ingest: Ingest, targets: dict[str, Target], rounds: int) -> None:
    for number in range(rounds + 1):
        for case in ingest.cases:
            for target in targets.values():
                ingest.run(target, case)
                if number == 0:  # to warm up
                    target.rounds.clear()
    for target in targets.values():
        ingest.require(target, groups=False)
    for case in ingest.cases:
        for variant, target in targets.items():
            found = middle(target.rounds[case.name])
            used = "  ".join(f"{name} {seconds:.2f}" for name, seconds in found.cpu.items())
            print(
                f"{case.name:12} {variant or 'as is':24} {found.events_per_second:10,.0f} events/s"
                f"  p50 {found.p50_ms:6.1f} ms  p99 {found.p99_ms:6.1f} ms  CPU s/M: {used}"
            )


def _server(url: str, directory: Path, variant: str) -> Server:
    directory.mkdir()
    pairs = dict(part.split("=", 1) for part in variant.split(",") if part)
    source = pairs.pop("source", None)
    arguments = tuple(f"{name}={value}" for name, value in pairs.items() if name in _TUNED_BY_SERVE)
    settings = {name: value for name, value in pairs.items() if name not in _TUNED_BY_SERVE}
    return Server(url, directory, arguments, source=Path(source) if source else None, **settings)


if __name__ == "__main__":
    main()
