"""Writes the tables and charts of docs/performance.md from the newest kept results: `python -m bench.page`.

`python -m bench.page FILE` takes those results instead.
"""

import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.charts import charts
from bench.goals import number, verdicts

RESULTS = Path(__file__).parent / "results"
DOCS = Path(__file__).parents[1] / "docs"
PAGE = DOCS / "performance.md"
CHARTS = DOCS / "charts"
_BEGIN = "<!-- from here on written by `python -m bench.page` -->"
_END = "<!-- until here -->"
_ALT = {
    "throughput": "Durable events a second, by way and peer",
    "cpu": "CPU-seconds of a million events, by process",
    "latency": "Latency against load",
    "engines": "Events per CPU-second of engines",
    "curves": "Cost with ten times as much",
}


def newest() -> Path:
    """Find the results that were measured last."""
    return max(RESULTS.glob("*.json"), key=lambda path: _when(json.loads(path.read_text())))


def generated(path: Path, found: dict[str, Any]) -> str:
    """Write what the page says of a run."""
    parts = [
        _about(path, found),
        _table(("yardstick", "expected", "hoped for", "found", ""), _goals(found), "lrrrl"),
        *_unmeasured(found),
        *_throughput(found),
        *_under_load(found),
        *_engines(found),
        *_curves(found),
        *(f"![{_ALT[name]}](charts/{name}.svg)" for name in charts(found)),
    ]
    return "\n\n".join(parts)


def page(text: str, part: str) -> str:
    """Put the generated part into a page's text."""
    before, _, rest = text.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    return f"{before}{_BEGIN}\n{part}\n{_END}{after}"


def write(path: Path | None = None) -> None:
    """Make the page's part and the charts anew."""
    path = path or newest()
    found = json.loads(path.read_text())
    PAGE.write_text(page(PAGE.read_text(), generated(path, found)))
    CHARTS.mkdir(exist_ok=True)
    drawn = charts(found)
    for old in CHARTS.glob("*.svg"):
        if old.stem not in drawn:
            old.unlink()
    for name, svg in drawn.items():
        (CHARTS / f"{name}.svg").write_text(svg)
    print(f"docs/performance.md and docs/charts are of {path.stem}")


def _when(found: dict[str, Any]) -> datetime:
    return datetime.strptime(found["date"], "%Y-%m-%d %H:%M %Z").replace(tzinfo=UTC)


def _about(path: Path, found: dict[str, Any]) -> str:
    machine = found["machine"]
    return (
        f"From `bench/results/{path.stem}.txt`: {found['date']}, commit {machine['commit']}, "
        f"{machine['cores']} cores of {machine['processor']}\nfor client, server and Postgres together, load "
        f"{found['load_before']:.1f} before and {found['load_after']:.1f} after, {found['rounds']} rounds."
    )


def _goals(found: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    for verdict in verdicts(found):
        goal = verdict.goal
        if verdict.value is None and not verdict.why:
            continue
        figure = "" if verdict.value is None else number(verdict.value, goal.unit)
        bounds = number(goal.expected, goal.unit), number(goal.hoped, goal.unit)
        yield goal.words, *bounds, figure, verdict.word


def _unmeasured(found: dict[str, Any]) -> Iterator[str]:
    words = [one.goal.words for one in verdicts(found) if one.value is None and not one.why]
    if words:
        yield "Not measured in that run:\n" + ";\n".join(words) + "."


def _throughput(found: dict[str, Any]) -> Iterator[str]:
    tables = {"llm-gateway": found.get("throughput"), **found.get("workloads", {})}
    rows = []
    for name, table in tables.items():
        if not isinstance(table, dict):
            continue
        for case, one in table.items():
            if not case.startswith(("unary-", "stream-")):
                continue
            used = one["cpu"]
            sizes = (one[f"{where}_bytes_per_event"] for where in ("wire", "segment", "wal"))
            rows.append(
                (
                    f"{name}, {case}",
                    f"{one['events_per_second']:,.0f}",
                    f"{one['least']:,.0f} to {one['greatest']:,.0f}",
                    f"{one['p50_ms']:.1f}, {one['p99_ms']:.1f}",
                    f"{used['client']:.2f}, {used['server']:.2f}, {used['postgres']:.2f}",
                    ", ".join(f"{size:.0f}" for size in sizes),
                )
            )
    if rows:
        heads = (
            "closed loop",
            "events/s",
            "least, greatest",
            "ms p50, p99",
            "CPU s/M: client, server, Postgres",
            "bytes an event: wire, segment, WAL",
        )
        yield _table(heads, rows, "lrrrrr")
    for name, table in tables.items():
        if isinstance(table, str):
            yield f"{name}: {table}."


def _under_load(found: dict[str, Any]) -> Iterator[str]:
    if "under_load" not in found:
        return
    names = ("p50_ms", "p99_ms", "p99.9_ms", "max_ms")
    rows = [
        (f"{share} %", f"{one['events_per_second']:,.0f}", *(f"{one[name]:.1f}" for name in names))
        for share, one in found["under_load"].items()
    ]
    yield "Requests of 1,000 events sent at fixed times, waiting counted from then:"
    yield _table(("of the highest rate", "events/s", "p50 ms", "p99", "p99.9", "max"), rows, "lrrrrr")


def _engines(found: dict[str, Any]) -> Iterator[str]:
    if "engines" not in found:
        return
    rows = []
    for name, one in found["engines"].items():
        if name == "dedup" or not isinstance(one, dict | str):
            continue
        if isinstance(one, str):
            rows.append((name, "", one))
        else:
            times = number(one["ammeter_times"], "x") if name != "ammeter" else ""
            rows.append((name, f"{one['events_per_cpu_second']:,.0f}", times))
    yield _table(("engine, one thread", "events per CPU-second", "ammeter"), rows, "lrr")
    ours = found["engines"]["ammeter"]
    dedup = found["engines"]["dedup"]
    text = f"With sealing (lz4 and the chain of digests) ammeter's engine does {ours['with_sealing']:,.0f}."
    if isinstance(dedup, dict):
        server, own = dedup["redis"], dedup["ammeter"]
        text += (
            f" Redis {server['version']} sets\n{server['keys_per_cpu_second']:,.0f} keys per CPU-second of "
            f"its own ({server['keys_per_second']:,.0f} a second)\nat "
            f"{server['resident_bytes_per_key']:.0f} bytes a key; ammeter decodes, judges and remembers "
            f"{own['events_per_cpu_second']:,.0f} events at {own['resident_bytes_per_identity']:.0f}."
        )
    else:
        text += f" Redis: {dedup}."
    yield text


def _curves(found: dict[str, Any]) -> Iterator[str]:
    if "curves" not in found:
        return
    names = ("ingest", "check", "query_per_row", "customer_month")
    rows = [
        (axis, *(number(one[name], "x") if name in one else "" for name in names))
        for axis, one in found["curves"].items()
    ]
    yield "CPU with ten times as much (connections: with 1,000 idle streams), of the CPU without:"
    yield _table(("", "an event", "a check", "a query's row", "a customer's month"), rows, "lrrrr")


def _table(heads: tuple[str, ...], rows: Any, sides: str) -> str:  # noqa: ANN401 - any rows of text
    marks = {"l": "---", "r": "---:"}
    lines = [heads, [marks[side] for side in sides], *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


if __name__ == "__main__":
    write(*map(Path, sys.argv[1:2]))
