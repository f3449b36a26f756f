"""Believable traffic of the last month, or real traces, with ids that are the same on every run."""

import csv
import random
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

from ammeter.cli.demo.business import CONSUMERS, EVENT_TYPE
from ammeter.cli.record import BATCH_EVENTS
from ammeter.cli.sender import Batch
from ammeter.v1.usage_pb2 import UsageEvent

DAYS = 31  # inside the identity horizon of 35, and a whole billing period
TRACES = {"code": "azure_llm_2023_code.csv", "conv": "azure_llm_2023_conv.csv"}

_SEED = "ammeter"
_REQUESTS_A_DAY = 1_750
_WEEKEND = 0.6
_SATURDAY = 5
_HOURS = (2, 1, 1, 1, 1, 2, 4, 7, 11, 14, 15, 15, 13, 14, 15, 14, 13, 11, 9, 8, 7, 6, 4, 3)
# model: share of requests; median input and output tokens
_MODELS = {
    "mistral-small": (0.55, 620, 150),
    "llama-70b": (0.33, 950, 240),
    "deepseek-r1": (0.12, 1_300, 700),
}
_SPREAD = 0.8
_MOST_TOKENS = 32_000


def generated(now: datetime) -> Iterator[UsageEvent]:
    """Yield the requests of the last 31 days up to `now`; a day is the same whenever it is made."""
    for back in range(DAYS, -1, -1):
        for event in _one_day(now.date() - timedelta(back)):
            if event.time.ToDatetime(tzinfo=UTC) > now:
                return
            yield event


def _one_day(day: date) -> Iterator[UsageEvent]:
    chance = random.Random(f"{_SEED} {day}")  # noqa: S311 - believable, not secret
    count = int(_REQUESTS_A_DAY * (_WEEKEND if day.weekday() >= _SATURDAY else 1) * chance.uniform(0.9, 1.1))
    hours = chance.choices(range(24), _HOURS, k=count)
    offsets = sorted(hour * 3_600_000 + chance.randrange(3_600_000) for hour in hours)
    consumers = chance.choices(CONSUMERS, [each.share for each in CONSUMERS], k=count)
    models = chance.choices(list(_MODELS), [share for share, _, _ in _MODELS.values()], k=count)
    begin = datetime.combine(day, time(), UTC)
    for number, (offset, consumer, model) in enumerate(zip(offsets, consumers, models, strict=True)):
        _, median_in, median_out = _MODELS[model]
        yield _event(
            f"{day:%Y%m%d}-{number:05}",
            "demo-gateway",
            consumer.subject,
            begin + timedelta(milliseconds=offset),
            {
                "model": model,
                "input_tokens": _tokens(chance, median_in),
                "output_tokens": _tokens(chance, median_out),
            },
        )


def _tokens(chance: random.Random, median: int) -> str:
    return str(min(_MOST_TOKENS, max(1, int(median * chance.lognormvariate(0, _SPREAD)))))


def traced(folder: Path, now: datetime) -> Iterator[UsageEvent]:
    """Yield the Azure LLM inference traces, shifted as a whole to end at the last UTC midnight.

    They name no customer: a fixed draw decides. Ids are of the day: another day adds the traffic anew.
    """
    rows = sorted(_rows(folder))
    shift = datetime.combine(now.date(), time(), UTC) - timedelta(seconds=1) - rows[-1][0]
    shares = [each.share for each in CONSUMERS]
    chance = random.Random(_SEED)  # noqa: S311
    for (moment, model, number, tokens_in, tokens_out), consumer in zip(
        rows, chance.choices(CONSUMERS, shares, k=len(rows)), strict=True
    ):
        yield _event(
            f"{now:%Y%m%d}-{model}-{number}",
            "azure-llm-2023",
            consumer.subject,
            moment + shift,
            {"model": model, "input_tokens": tokens_in, "output_tokens": tokens_out},
        )


def _rows(folder: Path) -> Iterator[tuple[datetime, str, int, str, str]]:
    for model, name in TRACES.items():
        with (folder / name).open(encoding="utf-8", newline="") as file:
            for number, row in enumerate(csv.DictReader(file), start=1):
                moment = datetime.fromisoformat(row["TIMESTAMP"][:26]).replace(tzinfo=UTC)
                yield moment, model, number, row["ContextTokens"], row["GeneratedTokens"]


def _event(
    event_id: str, source: str, subject: str, moment: datetime, properties: dict[str, str]
) -> UsageEvent:
    event = UsageEvent(id=event_id, source=source, type=EVENT_TYPE, subject=subject, properties=properties)
    event.time.FromDatetime(moment)
    return event


def batches(events: Iterable[UsageEvent]) -> Iterator[Batch]:
    """Cut events into batches; `end` counts them."""
    line: Iterator[UsageEvent] = iter(events)
    end = 0
    while chunk := [event for _, event in zip(range(BATCH_EVENTS), line, strict=False)]:
        numbers = range(end + 1, end + len(chunk) + 1)
        end += len(chunk)
        yield Batch(chunk, numbers, end)
