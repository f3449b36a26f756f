"""Run by bench.engines with what it installed: deduplicate a file of events, sum by minute, on one thread.

Arguments: chdb, chdb-protobuf or duckdb, and the file. Prints CPU-seconds, groups,
events, input and output tokens as JSON.
"""

import importlib
import json
import sys
import time
from pathlib import Path
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
    seconds, totals = {"chdb": _chdb, "chdb-protobuf": _chdb_protobuf, "duckdb": _duckdb}[kind](path)
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
    texts, numbers = _COLUMNS
    columns = ", ".join([*(f"{name} String" for name in texts), *(f"{name} Int64" for name in numbers)])
    return _run_chdb(f"file('{path}', TSV, '{columns}')")


_SCHEMA = """syntax = "proto3";
message Envelope {
  message Stamp { int64 seconds = 1; int32 nanos = 2; }
  message Event {
    string id = 1; string source = 2; string type = 3; string subject = 4; Stamp time = 5;
    map<string, string> properties = 6;
  }
  repeated Event events = 1;
}
"""
_FROM_MESSAGES = """(
  SELECT source, id, subject, properties['model'] AS model,
         time.seconds * 1000000 + intDiv(time.nanos, 1000) AS time_us,
         toInt64(properties['input_tokens']) AS input_tokens,
         toInt64(properties['output_tokens']) AS output_tokens
  FROM file('{path}', ProtobufList,
    'id String, source String, subject String, time Tuple(seconds Int64, nanos Int32),
     properties Map(String, String)')
  SETTINGS format_schema = '{schema}:Event', max_threads = 1
)"""


def _chdb_protobuf(path: str) -> tuple[float, Any]:
    schema = Path(path).with_name("events.proto")
    schema.write_text(_SCHEMA)
    return _run_chdb(_FROM_MESSAGES.format(path=path, schema=schema))


def _run_chdb(file: str) -> tuple[float, Any]:
    session: Any = importlib.import_module("chdb.session")  # installed for this process only

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
