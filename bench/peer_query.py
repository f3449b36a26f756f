"""Run by bench.peers with what it installed: deduplicate a file of events, sum by minute, on one thread.

Arguments: chdb or duckdb, and the file. Prints CPU-seconds, groups, events, input and output tokens as JSON.
"""

import importlib
import json
import sys
import time
from typing import Any

_COLUMNS = ("source", "id", "subject", "model"), ("time_us", "input_tokens", "output_tokens")
_QUERY = """
CREATE TABLE windows {engine} AS
SELECT subject, model, minute, count(*) AS events, sum(input) AS input, sum(output) AS output
FROM (
  SELECT source, id, {any}(subject) AS subject, {any}(model) AS model, {minute} AS minute,
         {any}(input_tokens) AS input, {any}(output_tokens) AS output
  FROM {file} GROUP BY source, id
) AS unique_events GROUP BY subject, model, minute
"""
_TOTALS = "SELECT count(*), sum(events), sum(input), sum(output) FROM windows"


def main() -> None:
    """Do what the arguments say."""
    kind, path = sys.argv[1:]
    seconds, totals = {"chdb": _chdb, "duckdb": _duckdb}[kind](path)
    print(json.dumps([seconds, *(int(one) for one in totals)]))


def _duckdb(path: str) -> tuple[float, Any]:
    duckdb: Any = importlib.import_module("duckdb")  # installed for this process only

    texts, numbers = _COLUMNS
    columns = {**dict.fromkeys(texts, "VARCHAR"), **dict.fromkeys(numbers, "BIGINT")}
    conn = duckdb.connect()
    conn.execute("SET threads = 1")
    file = f"read_csv('{path}', delim = '\t', header = false, columns = {columns})"
    started = time.process_time()
    query = _QUERY.format(engine="", any="any_value", minute="any_value(time_us // 60000000)", file=file)
    conn.execute(query)
    seconds = time.process_time() - started
    return seconds, conn.execute(_TOTALS).fetchone()


def _chdb(path: str) -> tuple[float, Any]:
    session: Any = importlib.import_module("chdb.session")  # installed for this process only

    texts, numbers = _COLUMNS
    columns = ", ".join([*(f"{name} String" for name in texts), *(f"{name} Int64" for name in numbers)])
    file = f"file('{path}', TSV, '{columns}')"
    own = session.Session()
    own.query("SET max_threads = 1")
    started = time.process_time()
    query = _QUERY.format(
        engine="ENGINE = Memory", any="any", minute="any(intDiv(time_us, 60000000))", file=file
    )
    own.query(query + " SETTINGS max_threads = 1")
    seconds = time.process_time() - started
    return seconds, str(own.query(_TOTALS, "TSV")).split()


if __name__ == "__main__":
    main()
