"""What the page on performance says is what was measured."""

import json

from bench.charts import charts
from bench.goals import verdicts
from bench.page import CHARTS, PAGE, generated, newest, page


def test_the_page_and_its_charts_are_of_the_newest_results() -> None:
    path = newest()
    found = json.loads(path.read_text())
    text = PAGE.read_text()
    assert text == page(text, generated(path, found)), "write it anew: python -m bench.page"
    drawn = {f"{name}.svg": svg for name, svg in charts(found).items()}
    assert drawn == {path.name: path.read_text() for path in CHARTS.glob("*.svg")}


def test_a_figure_is_short_as_expected_or_as_hoped_and_what_is_missing_says_why() -> None:
    found = {
        "throughput": {"unary-1000": {"events_per_second": 400_000.0}},
        "latency": {"times_commit_and_empty_call": 4.0},
        "checks": {"of_empty_handler": 0.95},
        "engines": {"chdb": "skipped: cannot be installed"},
    }
    words = {verdict.goal.words: verdict.word for verdict in verdicts(found)}
    assert words["events/s, 1,000 a request"] == "as expected"
    assert words["ack p50 at 100/s : commit + empty call"] == "short"
    assert words["CheckEntitlement : empty handler"] == "as hoped"
    assert words["engine : ClickHouse, the same protobuf"] == "skipped: cannot be installed"
    assert words["engine : DuckDB, columns"] == "not measured"
