"""The yardsticks: what is expected, what is hoped for, and where a run's figure is."""

from collections.abc import Iterator
from typing import Any, NamedTuple


class Goal(NamedTuple):
    """A yardstick; its figure is at `path` in a run's results."""

    words: str
    path: tuple[str, ...]
    expected: float
    hoped: float
    unit: str
    at_most: bool = False


class Verdict(NamedTuple):
    """A yardstick as it was found; no `value`: this run did not measure it, and maybe says why."""

    goal: Goal
    value: float | None
    why: str

    @property
    def word(self) -> str:
        """Say how it went."""
        if self.value is None:
            return self.why or "not measured"
        if self._within(self.goal.hoped):
            return "as hoped"
        return "as expected" if self._within(self.goal.expected) else "short"

    def _within(self, bound: float) -> bool:
        if self.value is None:
            return False
        return self.value <= bound if self.goal.at_most else self.value >= bound


def _throughput(words: str, case: str, *path: str) -> tuple[str, tuple[str, ...]]:
    return words, ("throughput", case, *path)


GOALS = (
    Goal(*_throughput("events/s, 1,000 a request", "unary-1000", "events_per_second"), 300_000, 750_000, ""),
    Goal(
        *_throughput("events/s, 8,000 a request", "unary-8000", "events_per_second"), 300_000, 1_400_000, ""
    ),
    Goal(*_throughput("1,000 a request : row per event", "unary-1000", "times_rows", "rows"), 5, 10, "x"),
    Goal(*_throughput("8,000 a request : row per event", "unary-8000", "times_rows", "rows"), 5, 20, "x"),
    Goal(
        *_throughput("1,000 a request : rows encoded ahead", "unary-1000", "times_rows", "rows_ahead"),
        5,
        10,
        "x",
    ),
    Goal(
        *_throughput("8,000 a request : rows encoded ahead", "unary-8000", "times_rows", "rows_ahead"),
        5,
        20,
        "x",
    ),
    Goal(
        *_throughput("CPU at 1,000 : row per event", "unary-1000", "cpu_of_rows", "rows"),
        0.2,
        0.1,
        "x",
        at_most=True,
    ),
    Goal(*_throughput("8,000 a request : raw bytea, as stored", "unary-8000", "of_raw_bytea"), 0.7, 0.7, "x"),
    Goal(*_throughput("8,000 a request : raw bytea, as sent", "unary-8000", "of_raw_as_sent"), 0.7, 0.7, "x"),
    Goal(
        *_throughput("1,000 a request : plain Python service", "plain", "unary-1000", "ammeter_times"),
        2,
        2,
        "x",
    ),
    Goal("engine : plain Python's", ("engines", "plain Python", "ammeter_times"), 5, 5, "x"),
    Goal("engine : ClickHouse, the same protobuf", ("engines", "chdb", "ammeter_times"), 4, 4, "x"),
    Goal("engine : ClickHouse, columns", ("engines", "chdb columns", "ammeter_times"), 4, 4, "x"),
    Goal("engine : DuckDB, columns", ("engines", "duckdb columns", "ammeter_times"), 3, 3, "x"),
    Goal("admission : Redis SET NX EX", ("engines", "dedup", "times_rate"), 20, 20, "x"),
    Goal(
        "memory of an identity : of a Redis key",
        ("engines", "dedup", "of_memory"),
        0.4,
        0.4,
        "x",
        at_most=True,
    ),
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
        ("checks", "while_ingesting", "of_empty_handler"),
        0.8,
        0.9,
        "x",
    ),
    Goal(
        "batch of 100 : single checks, ingesting",
        ("checks", "while_ingesting", "batch_of_100_times_single"),
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
        "ready after 10 M events, without a checkpoint",
        ("recovery-10", "ready_seconds_without_checkpoint"),
        15,
        15,
        "s",
        at_most=True,
    ),
    Goal(
        "ready after 50 M events, with a checkpoint",
        ("recovery-50", "ready_seconds_with_checkpoint"),
        20,
        20,
        "s",
        at_most=True,
    ),
    Goal(
        "ready after 50 M events, without",
        ("recovery-50", "ready_seconds_without_checkpoint"),
        20,
        20,
        "s",
        at_most=True,
    ),
    Goal(
        "identities back from segments, a second",
        ("recovery-10", "events_per_second_without_files"),
        3_000_000,
        3_000_000,
        "",
    ),
    *(
        Goal(f"CPU of ingest, {words}", ("curves", axis, "ingest"), 1.3, 1.3, "x", at_most=True)
        for axis, words in (
            ("subjects", "10x subjects"),
            ("meters", "10x meters"),
            ("values", "10x values of a dimension"),
            ("history", "10x history"),
            ("connections", "1,000 idle streams"),
        )
    ),
    Goal("CPU of a check, 10x subjects", ("curves", "subjects", "check"), 1.3, 1.1, "x", at_most=True),
    Goal("CPU of a check, 10x history", ("curves", "history", "check"), 1.3, 1.1, "x", at_most=True),
    Goal("a query's row, 10x the rows", ("curves", "subjects", "query_per_row"), 1.3, 1.1, "x", at_most=True),
    Goal(
        "a customer's month, 10x history",
        ("curves", "history", "customer_month"),
        1.3,
        1.1,
        "x",
        at_most=True,
    ),
    Goal(
        "a customer's month, 10x subjects",
        ("curves", "subjects", "customer_month"),
        1.3,
        1.1,
        "x",
        at_most=True,
    ),
    Goal("invoices : one SQL transaction", ("invoices", "of_sql"), 0.1, 0.5, "x"),
    Goal("preview of a month with 1 M events", ("invoices", "preview_ms"), 50, 50, "ms", at_most=True),
)


def verdicts(found: dict[str, Any]) -> Iterator[Verdict]:
    """Hold a run's figures against the yardsticks."""
    for goal in GOALS:
        value: Any = found
        for name in goal.path:
            value = value.get(name) if isinstance(value, dict) else value
        if isinstance(value, int | float):
            yield Verdict(goal, float(value), "")
        else:
            yield Verdict(goal, None, value if isinstance(value, str) else "")


def number(value: float, unit: str = "") -> str:
    """Write a figure with three digits."""
    digits = 0 if value >= 100 else 1 if value >= 10 else 2  # noqa: PLR2004 - three digits
    space = "" if unit == "x" else " "
    return f"{value:,.{digits}f}{space}{unit}".rstrip()
