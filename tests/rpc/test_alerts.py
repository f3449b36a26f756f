"""The alerting rules in the docs are about metrics and labels that the server has."""

import re
from pathlib import Path
from typing import Any

import prometheus_client
import pytest

from ammeter import metrics

_PAGE = (Path(__file__).parents[2] / "docs" / "alerts.yml").read_text()
RULES = re.findall(r"- alert: (\w+)(?:\n +#.*)?\n +expr: (.+)\n", _PAGE)
_METRIC = re.compile(r"ammeter_[a-z_]+")
_LABEL = re.compile(r"(\w+)=\"|by \((\w+)\)")


def _labels_of(name: str) -> set[str] | None:
    """The labels of a metric as it is exposed; None if there is none of that name."""
    for one in vars(metrics).values():
        if isinstance(one, prometheus_client.metrics.MetricWrapperBase):
            described: Any = next(iter(one.describe()))
            kinds = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}
            if name in {described.name + ending for ending in kinds[described.type]}:
                own = {"le"} if name.endswith("_bucket") else set()
                return own | set(one._labelnames)
    return None


def test_every_rule_is_read() -> None:
    assert len(RULES) == _PAGE.count("alert:") == _PAGE.count("summary:") > 0


@pytest.mark.parametrize(("name", "expression"), RULES)
def test_a_rule_is_about_a_metric_there_is(name: str, expression: str) -> None:
    (metric,) = set(_METRIC.findall(expression))
    labels = _labels_of(metric)
    assert labels is not None, f"{name}: there is no {metric}"
    assert {label or by for label, by in _LABEL.findall(expression)} <= labels
