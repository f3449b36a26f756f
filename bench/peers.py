"""Engines of others on the same events, one thread each: decode, deduplicate, sum by minute.

They read tab-separated columns, which is less to decode than the protobuf that our engine reads.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from bench.child import Child
from bench.core import Core
from bench.workload import Row, Workload, generate, source_name

_EVENTS = 1_000_000
_HERE = Path(__file__).parent
_PIPELINE = 1000
_DEDUP_SECONDS = 35 * 86_400


def measure(directory: Path) -> dict[str, Any]:
    """Run whoever can be had; the others are named with the reason."""
    work = generate(_EVENTS, 1, bad_share=0)
    unique = {row.event_id: row for row in work.rows}
    totals = [
        len({(row.subject, row.model, row.time_us // 60_000_000) for row in unique.values()}),
        len(unique),
        sum(row.input_tokens for row in unique.values()),
        sum(row.output_tokens for row in unique.values()),
    ]
    with Child(Core) as core:
        expected = core.ask("prepare", _EVENTS, 1)
        assert expected.accepted == len(unique)
        found: dict[str, Any] = {"ammeter": core.ask("windows")}
    return found | _queries(directory, work, totals) | {"redis": _redis(directory, list(unique.values()))}


def _queries(directory: Path, work: Workload, totals: list[int]) -> dict[str, Any]:
    packages = directory / "peers"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(packages)]
    installed = subprocess.run(  # noqa: S603 - our own list
        [*pip, "--requirement", str(_HERE / "peers.txt")], capture_output=True, text=True, check=False
    )
    if installed.returncode != 0:
        why = installed.stderr.strip().splitlines()[-1:]
        return {"chdb, duckdb": f"skipped: cannot be installed: {why}"}
    file = directory / "events.tsv"
    file.write_text("".join(map(_line, work.rows)))
    found: dict[str, Any] = {}
    for kind in ("chdb", "duckdb"):
        run = subprocess.run(  # noqa: S603 - our own program
            [sys.executable, str(_HERE / "peer_query.py"), kind, str(file)],
            env={**os.environ, "PYTHONPATH": str(packages)},
            capture_output=True,
            text=True,
            check=False,
        )
        if run.returncode != 0:
            found[kind] = f"skipped: {run.stderr.strip().splitlines()[-1:]}"
            continue
        seconds, *same = json.loads(run.stdout)
        assert same == totals, (kind, same, totals)
        found[kind] = {"events_per_cpu_second": totals[1] / seconds}
    return found


def _line(row: Row) -> str:
    columns = (source_name(0), row.event_id, row.subject, row.model)
    return "\t".join((*columns, str(row.time_us), str(row.input_tokens), str(row.output_tokens))) + "\n"


def _redis(directory: Path, rows: list[Row]) -> dict[str, Any] | str:
    program = shutil.which("redis-server")
    if program is None:
        return "skipped: no redis-server here"
    path = directory / "redis.sock"
    options = ("--port", "0", "--unixsocket", str(path), "--save", "", "--appendonly", "no")
    server = subprocess.Popen([program, *options], stdout=subprocess.DEVNULL)  # noqa: S603 - found in the path
    try:
        while not path.exists():
            time.sleep(0.02)
        with socket.socket(socket.AF_UNIX) as conn:
            conn.connect(str(path))
            return _set_all(conn, psutil.Process(server.pid), rows)
    finally:
        server.terminate()
        server.wait()


def _set_all(conn: socket.socket, server: psutil.Process, rows: list[Row]) -> dict[str, Any]:
    """Set a key per event if it is new, with an expiry, many in flight."""
    keys = [f"{source_name(0)}/{row.event_id}".encode() for row in rows]
    end = b"$2\r\nNX\r\n$2\r\nEX\r\n$%d\r\n%d\r\n" % (len(str(_DEDUP_SECONDS)), _DEDUP_SECONDS)
    commands = [b"*6\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$1\r\n1\r\n" % (len(key), key) + end for key in keys]
    reader = conn.makefile("rb")
    before = server.memory_info().rss
    started = time.perf_counter()
    for at in range(0, len(commands), _PIPELINE):
        several = commands[at : at + _PIPELINE]
        conn.sendall(b"".join(several))
        for _ in several:
            assert reader.readline() == b"+OK\r\n"
    seconds = time.perf_counter() - started
    return {
        "keys_per_second": len(keys) / seconds,
        "resident_bytes_per_key": (server.memory_info().rss - before) / len(keys),
    }
