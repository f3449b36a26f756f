"""The charts of docs/performance.md, from a run's results."""

from collections.abc import Callable
from typing import Any

from bench.goals import number
from bench.svg import OURS, SHADES, THEIRS, Bar, bars, lines

_CASES = {
    "unary-100": "100 a request",
    "unary-1000": "1,000 a request",
    "unary-8000": "8,000 a request",
    "stream-1000": "stream, 1,000 a message",
    "stream-8000": "stream, 8,000 a message",
}
_ROWS = {"rows": "row per event", "rows_ahead": "rows encoded ahead"}
_BOUND = 1.3


def charts(found: dict[str, Any]) -> dict[str, str]:
    """Draw what was measured: SVG by name."""
    drawn: dict[str, Callable[[dict[str, Any]], str]] = {
        "throughput": _throughput,
        "cpu": _cpu,
        "latency": _latency,
        "engines": _engines,
        "curves": _curves,
    }
    needs = {"cpu": "throughput", "latency": "under_load"}
    return {name: draw(found) for name, draw in drawn.items() if needs.get(name, name) in found}


def _throughput(found: dict[str, Any]) -> str:
    table = found["throughput"]
    rows = [_rate(words, table[name], OURS) for name, words in _CASES.items() if name in table]
    for name, one in found.get("workloads", {}).items():
        if isinstance(one, dict):
            rows.append(_rate(f"{name}, 8,000 a request", one["unary-8000"], OURS))
    for way, words in _ROWS.items():
        rows.extend(
            _rate(f"{words}, batches of {int(size):,}", one, THEIRS)
            for size, one in table.get(way, {}).items()
        )
    rows.extend(_rate("plain Python service, 1,000", one, THEIRS) for one in table.get("plain", {}).values())
    return bars("Durable events a second", "acknowledged after the commit; everything on two cores", rows)


def _rate(words: str, one: dict[str, Any], colour: str) -> Bar:
    rate = one["events_per_second"]
    return Bar(words, [(rate, colour)], f"{rate:,.0f}")


def _cpu(found: dict[str, Any]) -> str:
    table = found["throughput"]
    colours = dict(zip(("client", "server", "postgres"), SHADES, strict=False))
    rows = []
    for name, words in _CASES.items():
        if name in table:
            used = table[name]["cpu"]
            parts = [(used[process], colour) for process, colour in colours.items()]
            rows.append(Bar(words, parts, number(sum(used.values()), "s")))
    for way, words in _ROWS.items():
        for size, one in table.get(way, {}).items():
            parts = [(one["cpu"], THEIRS)]
            rows.append(Bar(f"{words}, batches of {int(size):,}", parts, number(one["cpu"], "s")))
    note = "CPU-seconds; of rows: client and Postgres together"
    return bars("What a million events cost", note, rows, legend=list(colours.items()))


def _latency(found: dict[str, Any]) -> str:
    table = found["under_load"]
    shares = list(table)
    names = ("p50_ms", "p99_ms", "p99.9_ms", "max_ms")
    series = [(name[:-3], [table[share][name] for share in shares]) for name in names]
    note = "ms from when a request of 1,000 events was to be sent; share of the highest rate"
    return lines("How long an acknowledgement takes under load", note, [f"{one} %" for one in shares], series)


def _engines(found: dict[str, Any]) -> str:
    rows = []
    for name, one in found["engines"].items():
        if isinstance(one, dict) and "events_per_cpu_second" in one:
            rate = one["events_per_cpu_second"]
            rows.append(Bar(name, [(rate, OURS if name == "ammeter" else THEIRS)], f"{rate:,.0f}"))
    note = "decode, deduplicate, sum by minute; one thread; columns are easier to read than protobuf"
    return bars("Engines: events per CPU-second", note, rows)


def _curves(found: dict[str, Any]) -> str:
    words = {
        "ingest": "CPU of an event",
        "check": "CPU of a check",
        "query_per_row": "CPU of a query's row",
        "customer_month": "CPU of a customer's month",
    }
    rows: list[Bar] = []
    for axis, one in found["curves"].items():
        times = "1,000 idle streams" if axis == "connections" else f"10x {axis}"
        rows.extend(
            Bar(f"{times}: {word[7:]}", [(one[name], OURS)], number(one[name], "x"))
            for name, word in words.items()
            if name in one
        )
    note = f"CPU with ten times as much, of the CPU without; the line is {_BOUND}"
    return bars("Cost against size", note, rows, mark=_BOUND)
