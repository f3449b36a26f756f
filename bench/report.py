"""The table that is printed and kept."""

from typing import Any

from bench.goals import number, verdicts

# Heading, where the figure is, how it is written.
_COLUMNS = (
    ("events/s", ("events_per_second",), "10,.0f"),
    ("least", ("least",), "9,.0f"),
    ("greatest", ("greatest",), "9,.0f"),
    ("x rows", ("times_rows", "rows"), "6.2f"),
    ("x cost", ("cpu_of_rows", "rows"), "6.2f"),
    ("x ahead", ("times_rows", "rows_ahead"), "7.2f"),
    ("x bytea", ("of_raw_bytea",), "7.2f"),
    ("p50 ms", ("p50_ms",), "6.1f"),
    ("p99 ms", ("p99_ms",), "6.1f"),
    ("client", ("cpu", "client"), "7.2f"),
    ("server", ("cpu", "server"), "7.2f"),
    ("postgres", ("cpu", "postgres"), "8.2f"),
    ("wire B", ("wire_bytes_per_event",), "6.0f"),
    ("segment B", ("segment_bytes_per_event",), "9.1f"),
    ("WAL B", ("wal_bytes_per_event",), "6.0f"),
    ("a segment", ("events_per_segment",), "9,.0f"),
)
_KEY = """
x rows: of the rate of a row per event with a unique key, by the driver's executemany over one connection;
x cost: of its CPU; x ahead: of the rate of the same rows as arrays that were encoded before the clock ran,
one statement per batch, over two connections; x bytea: of the raw insert of the same payload bytes;
client, server, postgres: CPU-seconds per million events; B: bytes per event; a segment: events in one.
"""


def render(found: dict[str, Any]) -> str:
    """Write the results as text."""
    lines = [*_about(found), _KEY]
    tables = {"llm-gateway": found.get("throughput"), **found.get("workloads", {})}
    for name, table in tables.items():
        if isinstance(table, dict):
            lines += [name, *_throughput(table), ""]
        elif table:
            lines += [f"{name}: {table}", ""]
    if "under_load" in found:
        lines += [*_under_load(found["under_load"]), ""]
    if "engines" in found:
        lines += [*_engines(found["engines"]), ""]
    if "curves" in found:
        lines += [*(f"{axis}: {_plain(values)}" for axis, values in found["curves"].items()), ""]
    lines += [
        f"{name}: {_plain(values)}"
        for name, values in found.items()
        if name in _SECTIONS or name.startswith("recovery")
    ]
    lines += ["", f"{'yardstick':44} {'expected':>12} {'hoped for':>12} {'found':>12}", *_goals(found)]
    return "\n".join(lines) + "\n"


def _about(found: dict[str, Any]) -> list[str]:
    machine = found["machine"]
    load = f"load {found['load_before']:.1f} before and {found['load_after']:.1f} after"
    where = f"{machine['cores']} cores of {machine['processor']}, {load}"
    versions = f"Python {machine['python']}, grpcio {machine['grpcio']}"
    return [
        f"{found['date']}, commit {machine['commit']}, {where}",
        f"PostgreSQL {found['postgres']}, fsync on; {versions}",
        f"{found['rounds']} interleaved rounds at most, medians",
    ]


_ROWS = {"rows": "row per event       ", "rows_ahead": "rows encoded ahead  "}
_SECTIONS = {"latency", "checks", "memory", "invoices", "seconds"}


def _throughput(found: dict[str, Any]) -> list[str]:
    widths = [max(len(head), int(form.split(".")[0].rstrip(","))) for head, _, form in _COLUMNS]
    heads = [head.rjust(width) for (head, _, _), width in zip(_COLUMNS, widths, strict=True)]
    lines = [f"{'':12} " + " ".join(heads)]
    for name, one in found.items():
        if name in _ROWS or name == "plain":
            continue
        texts = [_cell(one, path, form) for _, path, form in _COLUMNS]
        cells = [text.rjust(width) for text, width in zip(texts, widths, strict=True)]
        lines.append(f"{name:12} " + " ".join(cells))
    for way, words in _ROWS.items():
        for size, one in found.get(way, {}).items():
            rate = f"{words} {one['events_per_second']:>9,.0f} events/s, batches of {size}"
            lines.append(f"{rate}; {one['cpu']:.2f} CPU-seconds per million in client and Postgres")
    return lines


def _cell(values: dict[str, Any], path: tuple[str, ...], form: str) -> str:
    found: Any = values
    for name in path:
        found = found.get(name) if isinstance(found, dict) else None
    return "" if found is None else format(found, form)


def _under_load(found: dict[str, Any]) -> list[str]:
    lines = ["requests of 1,000 events at shares of the rate above, waiting from when they were to be sent:"]
    for share, one in found.items():
        waits = ", ".join(f"{name[:-3]} {one[name]:.1f}" for name in one if name.endswith("_ms"))
        lines.append(f"{share:>4} %: {one['events_per_second']:>9,.0f} events/s; {waits} ms")
    return lines


def _engines(found: dict[str, Any]) -> list[str]:
    lines = [f"one thread, {found['events']:,} events, events per CPU-second:"]
    for name, one in found.items():
        if isinstance(one, str):
            lines.append(f"{name:16} {one}")
        elif isinstance(one, dict) and name != "dedup":
            times = f"ammeter {number(one['ammeter_times'], 'x')}" if name != "ammeter" else ""
            sealing = f"{one['with_sealing']:,.0f} with sealing" if "with_sealing" in one else ""
            lines.append(f"{name:16} {one['events_per_cpu_second']:>10,.0f}  {times}{sealing}")
    return [*lines, f"deduplication: {_plain(found['dedup'])}"]


def _goals(found: dict[str, Any]) -> list[str]:
    lines = []
    for verdict in verdicts(found):
        goal, value = verdict.goal, verdict.value
        if value is None and not verdict.why:
            continue
        figure = "" if value is None else number(value, goal.unit)
        lines.append(
            f"{goal.words:44} {number(goal.expected, goal.unit):>12} {number(goal.hoped, goal.unit):>12} "
            f"{figure:>12}  {verdict.word.upper() if verdict.word == 'short' else verdict.word}"
        )
    return lines


def _plain(values: Any) -> str:  # noqa: ANN401 - results are of many kinds
    if isinstance(values, dict):
        return ", ".join(f"{name} {_plain(value)}" for name, value in values.items())
    return number(values) if isinstance(values, int | float) else str(values)
