"""The table that is printed and kept."""

from typing import Any, NamedTuple


class Goal(NamedTuple):
    """A yardstick: where its figure is, what is expected of it, and what is hoped for."""

    words: str
    path: tuple[str, str]
    expected: float
    hoped: float
    unit: str
    at_most: bool = False


GOALS = (
    Goal("events/s, 1,000 per request", ("unary-1000", "events_per_second"), 300_000, 750_000, ""),
    Goal("events/s, 8,000 per request", ("unary-8000", "events_per_second"), 300_000, 1_400_000, ""),
    Goal("1,000 per request : row per event", ("unary-1000", "times_rows.rows"), 5, 10, "x"),
    Goal("8,000 per request : row per event", ("unary-8000", "times_rows.rows"), 5, 20, "x"),
    Goal("1,000 per request : rows encoded ahead", ("unary-1000", "times_rows.rows_ahead"), 5, 10, "x"),
    Goal("8,000 per request : rows encoded ahead", ("unary-8000", "times_rows.rows_ahead"), 5, 20, "x"),
    Goal("CPU at 1,000 : row per event", ("unary-1000", "cpu_of_rows.rows"), 0.2, 0.1, "x", at_most=True),
    Goal("8,000 per request : raw bytea insert", ("unary-8000", "of_raw_bytea"), 0.7, 0.7, "x"),
    Goal(
        "ack p50 at 100/s : commit + empty call",
        ("latency", "times_commit_and_empty_call"),
        3,
        3,
        "x",
        at_most=True,
    ),
    Goal("CheckEntitlement : empty handler", ("checks", "of_empty_handler"), 0.8, 0.9, "x"),
    Goal(
        "CheckEntitlement : empty handler, ingesting",
        ("checks", "while_ingesting.of_empty_handler"),
        0.8,
        0.9,
        "x",
    ),
    Goal(
        "batch of 100 : single checks, ingesting",
        ("checks", "while_ingesting.batch_of_100_times_single"),
        50,
        50,
        "x",
    ),
    Goal("batch of 100 checks : single checks", ("checks", "batch_of_100_times_single"), 50, 50, "x"),
    Goal("bytes per identity, told", ("memory", "bytes_per_identity"), 64, 32, "B", at_most=True),
    Goal(
        "bytes per identity, resident", ("memory", "resident_bytes_per_identity"), 64, 32, "B", at_most=True
    ),
    Goal(
        "ready after 10 M events",
        ("recovery-10", "ready_seconds_without_checkpoint"),
        15,
        15,
        "s",
        at_most=True,
    ),
    Goal(
        "ready after 50 M events",
        ("recovery-50", "ready_seconds_without_checkpoint"),
        20,
        20,
        "s",
        at_most=True,
    ),
)
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
    lines = [
        *_about(found),
        _KEY,
        *_throughput(found["throughput"]),
        "",
        *(
            f"{name}: {_plain(values)}"
            for name, values in found.items()
            if name in _SECTIONS or name[:8] == "recovery"
        ),
        "",
        f"{'yardstick':44} {'expected':>12} {'hoped for':>12} {'found':>12}",
        *_goals(found),
    ]
    return "\n".join(lines) + "\n"


def _about(found: dict[str, Any]) -> list[str]:
    machine = found["machine"]
    load = f"load {found['load_before']:.1f} before and {found['load_after']:.1f} after"
    where = f"{machine['cores']} cores of {machine['processor']}, {load}"
    versions = f"Python {machine['python']}, grpcio {machine['grpcio']}"
    return [
        f"{found['date']}, commit {machine['commit']}, {where}",
        f"PostgreSQL {found['postgres']}, fsync on; {versions}",
        f"{found['rounds']} interleaved rounds, medians",
    ]


_ROWS = {"rows": "row per event       ", "rows_ahead": "rows encoded ahead  "}
_SECTIONS = {"latency", "checks", "memory", "peers"}


def _throughput(found: dict[str, Any]) -> list[str]:
    widths = [max(len(head), int(form.split(".")[0].rstrip(","))) for head, _, form in _COLUMNS]
    heads = [head.rjust(width) for (head, _, _), width in zip(_COLUMNS, widths, strict=True)]
    lines = [f"{'':12} " + " ".join(heads)]
    for name, one in found.items():
        if name in _ROWS:
            continue
        texts = [_cell(one, path, form) for _, path, form in _COLUMNS]
        cells = [text.rjust(width) for text, width in zip(texts, widths, strict=True)]
        lines.append(f"{name:12} " + " ".join(cells))
    for way, words in _ROWS.items():
        for size, one in found[way].items():
            rate = f"{words} {one['events_per_second']:>9,.0f} events/s, batches of {size}"
            lines.append(f"{rate}; {one['cpu']:.2f} CPU-seconds per million in client and Postgres")
    return lines


def _cell(values: dict[str, Any], path: tuple[str, ...], form: str) -> str:
    found: Any = values
    for name in path:
        found = found[name]
    return "" if found is None else format(found, form)


def _goals(found: dict[str, Any]) -> list[str]:
    lines = []
    for goal in GOALS:
        section, name = goal.path
        values = found.get(section) or found["throughput"].get(section)
        if not values:
            continue
        value: Any = values
        for part in name.split("."):
            value = value[part]
        met = value <= goal.expected if goal.at_most else value >= goal.expected
        better = value <= goal.hoped if goal.at_most else value >= goal.hoped
        verdict = "hoped for" if better else "as expected" if met else "SHORT"
        lines.append(
            f"{goal.words:44} {_number(goal.expected, goal.unit):>12} {_number(goal.hoped, goal.unit):>12} "
            f"{_number(value, goal.unit):>12}  {verdict}"
        )
    return lines


def _number(value: float, unit: str) -> str:
    digits = 0 if value >= 1000 else 1 if value >= 10 else 2  # noqa: PLR2004 - three digits
    return f"{value:,.{digits}f} {unit}".rstrip()


def _plain(values: Any) -> str:  # noqa: ANN401 - results are of many kinds
    if isinstance(values, dict):
        return ", ".join(f"{name} {_plain(value)}" for name, value in values.items())
    return _number(values, "") if isinstance(values, int | float) else str(values)
