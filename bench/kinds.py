"""What the events of a workload are: of an LLM gateway, of an API gateway, of real traces."""

import csv
import os
import random
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path

# The LLM gateway's meter that has an entitlement.
FEATURE = "input-tokens"
_SPAN_US = 120_000_000


@dataclass(frozen=True)
class Fact:
    """What an event reports, and how long ago that was."""

    subject: str
    age_us: int
    properties: dict[str, str]


@dataclass(frozen=True)
class Kind:
    """Events of one type, and the meters of them, which all have the same dimensions."""

    name: str
    event_type: str
    meters: dict[str, str]
    """By key: the property that is summed up; none: events are counted."""
    dimensions: tuple[str, ...]

    def draw(self, rng: random.Random, index: int, count: int) -> Fact:
        """Make one of `count` events."""
        raise NotImplementedError

    @property
    def values(self) -> list[str]:
        """The properties that are numbers."""
        return [value for value in self.meters.values() if value]


@dataclass(frozen=True)
class LlmGateway(Kind):
    """Three models, times over the last two minutes as live traffic has them.

    Subjects are drawn evenly, which is the hardest case for every cache.
    """

    name: str = "llm-gateway"
    event_type: str = "llm.completion"
    meters: dict[str, str] = field(
        default_factory=lambda: {
            "requests": "",
            "input-tokens": "input_tokens",
            "output-tokens": "output_tokens",
        }
    )
    dimensions: tuple[str, ...] = ("model",)
    subjects: int = 10_000
    models: tuple[str, ...] = ("gpt-4o-mini", "claude-sonnet", "llama-3-70b")
    in_turn: bool = False
    """Each subject in its turn, rather than by chance."""

    def draw(self, rng: random.Random, index: int, count: int) -> Fact:
        """Make one of `count` events."""
        subject = index % self.subjects if self.in_turn else rng.randrange(self.subjects)
        return Fact(
            f"customer-{subject:05d}",
            _SPAN_US * (count - index) // count,
            {
                "model": self.models[rng.randrange(len(self.models))],
                "input_tokens": str(rng.randrange(20, 4000)),
                "output_tokens": str(rng.randrange(1, 1500)),
            },
        )


@dataclass(frozen=True)
class ApiGateway(Kind):
    """Two hundred routes, drawn evenly as the million subjects are; most answers are good."""

    name: str = "api-gateway"
    event_type: str = "api.request"
    meters: dict[str, str] = field(
        default_factory=lambda: {"api-requests": "", "api-bytes": "response_bytes"}
    )
    dimensions: tuple[str, ...] = ("route", "status")
    subjects: int = 1_000_000
    routes: int = 200

    def draw(self, rng: random.Random, index: int, count: int) -> Fact:
        """Make one of `count` events."""
        status = rng.choices(("2xx", "3xx", "4xx", "5xx"), (90, 2, 7, 1))[0]
        return Fact(
            f"user-{rng.randrange(self.subjects):07d}",
            _SPAN_US * (count - index) // count,
            {
                "route": f"/v1/resources/{rng.randrange(self.routes):03d}",
                "status": status,
                "response_bytes": str(rng.randrange(100, 50_000)),
            },
        )


@dataclass(frozen=True)
class Traces(Kind):
    """The Azure LLM inference traces of November 2023, shifted to end now.

    They name no customer: a thousand of them share the requests by a fixed rule, the first tenth
    of them half of all. An hour of requests is sent again and again until there are enough.
    """

    name: str = "azure-traces"
    event_type: str = "llm.inference"
    meters: dict[str, str] = field(
        default_factory=lambda: {
            "inferences": "",
            "context-tokens": "context_tokens",
            "generated-tokens": "generated_tokens",
        }
    )
    dimensions: tuple[str, ...] = ("model",)
    subjects: int = 1000

    @cached_property
    def requests(self) -> list[tuple[int, str, str, str]]:
        """Age in microseconds, model, context and generated tokens, oldest first."""
        found: list[tuple[datetime, str, str, str]] = []
        for model in ("code", "conv"):
            with (traces_folder() / f"azure_llm_2023_{model}.csv").open(newline="") as file:
                for row in csv.DictReader(file):
                    # A tenth of a microsecond is more than datetime reads.
                    time = datetime.fromisoformat(row["TIMESTAMP"][:26] + "+00:00")
                    found.append((time, model, row["ContextTokens"], row["GeneratedTokens"]))
        found.sort()
        last = found[-1][0]
        return [
            ((last - time) // timedelta(microseconds=1), model, context, generated)
            for time, model, context, generated in found
        ]

    def draw(self, rng: random.Random, index: int, count: int) -> Fact:  # noqa: ARG002 - nothing is left to chance
        """Make one of `count` events."""
        age_us, model, context, generated = self.requests[index % len(self.requests)]
        share = index * 0.6180339887498949 % 1
        return Fact(
            f"customer-{int(self.subjects * share**3.3):04d}",
            age_us,
            {"model": model, "context_tokens": context, "generated_tokens": generated},
        )


def traces_folder() -> Path:
    """Where the real traces are: AMMETER_BENCH_TRACES, or `shared/data` beside the checkout."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    return Path(os.environ.get("AMMETER_BENCH_TRACES") or beside)
