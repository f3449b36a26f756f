"""Records a file of events with a bar, and sums up what became of them."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

from ammeter.cli.lines import Line, live, read_lines
from ammeter.cli.sender import Batch, Sender
from ammeter.cli.session import messages
from ammeter.cli.view import table
from ammeter.client import Client
from ammeter.v1.usage_pb2 import (
    EVENT_OUTCOME_CONFLICT,
    EVENT_OUTCOME_REJECTED,
    EventResult,
    StreamUsageResponse,
    UsageEvent,
)

BATCH_EVENTS = 500
_BATCH_BYTES = 1 << 20
_SHOWN = 20


@dataclass
class Summary:
    """What became of a run's events. `problems`: the first 20, as (line, id, outcome, reason, message)."""

    accepted_count: int = 0
    duplicate_count: int = 0
    conflict_count: int = 0
    rejected_count: int = 0
    position: int = 0
    problems: list[tuple[int, str, str, str, str]] = field(default_factory=list)

    def add(self, batch: Batch, answer: StreamUsageResponse) -> None:
        """Count one answered batch."""
        self.accepted_count += answer.accepted_count
        self.duplicate_count += answer.duplicate_count
        self.conflict_count += answer.conflict_count
        self.rejected_count += answer.rejected_count
        self.position = max(self.position, answer.position)
        for result in answer.results:
            self._keep(batch.numbers[result.index], result)

    def add_unreadable(self, line: Line) -> None:
        """Count a line that is no event, which was never sent."""
        self.rejected_count += 1
        self._note(line.number, "", "rejected", "LINE_INVALID", line.error)

    def _keep(self, number: int, result: EventResult) -> None:
        if result.outcome == EVENT_OUTCOME_REJECTED:
            self._note(
                number, result.id, "rejected", result.reason, f"{result.field}: {result.message}".lstrip(": ")
            )
        elif result.outcome == EVENT_OUTCOME_CONFLICT:
            text = f"an event with this id and other content stands (digest {result.stored_digest[:12]})"
            self._note(number, result.id, "conflict", "", text)

    def _note(self, *problem: Any) -> None:  # noqa: ANN401 - one row of `problems`
        if len(self.problems) < _SHOWN:
            self.problems.append(problem)

    def as_json(self) -> dict[str, Any]:
        """Return the machine's form."""
        names = ("line", "id", "outcome", "reason", "message")
        return {
            "accepted_count": self.accepted_count,
            "duplicate_count": self.duplicate_count,
            "conflict_count": self.conflict_count,
            "rejected_count": self.rejected_count,
            "position": self.position,
            "problems": [dict(zip(names, problem, strict=True)) for problem in sorted(self.problems)],
        }

    def view(self) -> RenderableType:
        """Return the people's form."""
        counts = (self.accepted_count, self.duplicate_count, self.conflict_count, self.rejected_count)
        total = table(["accepted", "duplicate", "conflict", "rejected"], [[f"{count:,}" for count in counts]])
        if not self.problems:
            return total
        bad = self.conflict_count + self.rejected_count
        title = f"the first {len(self.problems)} of {bad:,} that were not counted"
        return Group(
            total,
            table(["at line", "id", "outcome", "reason", "message"], sorted(self.problems), title=title),
        )


def record_file(client: Client, file: Path, *, id_prefix: str | None) -> Summary:
    """Send a file, or stdin for "-", and wait until all of it is durable."""
    summary = Summary()
    size = None if str(file) == "-" else file.stat().st_size
    with _open(file) as raw, progress_bar() as bar:
        task = bar.add_task(file.name if size is not None else "stdin", total=size)

        def answered(batch: Batch, answer: StreamUsageResponse) -> None:
            summary.add(batch, answer)
            bar.update(task, completed=batch.end)

        def waiting(why: str, seconds: float) -> None:
            bar.console.print(
                f"the stream broke ({why}): next try in {seconds:.1f} s, nothing is lost", markup=False
            )

        batches = _batches(read_lines(raw, id_prefix), summary)
        try:
            Sender(client.usage, batches, answered=answered, waiting=waiting).run()
        except BaseException:
            bar.console.print(
                f"{summary.accepted_count:,} accepted so far: run the same again, nothing counts twice",
                markup=False,
            )
            raise
    return summary


@contextmanager
def _open(file: Path) -> Iterator[Iterable[bytes | None]]:
    if str(file) == "-":
        yield live(sys.stdin.fileno())
        return
    with file.open("rb") as raw:
        yield raw


def progress_bar() -> Progress:
    """Make a bar on stderr that leaves nothing behind, and shows nothing where nobody watches."""
    screen = messages()
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=screen,
        transient=True,
        disable=not screen.is_terminal,
    )


def _batches(lines: Iterator[Line | None], summary: Summary) -> Iterator[Batch | None]:
    """Cut events into batches that a message holds; when nothing comes, what is there goes out."""
    events: list[UsageEvent] = []
    numbers: list[int] = []
    size = end = 0
    for line in lines:
        if line is not None and line.event is None:
            summary.add_unreadable(line)
            continue
        length = line.event.ByteSize() if line and line.event else 0
        if events and (line is None or len(events) == BATCH_EVENTS or size + length > _BATCH_BYTES):
            yield Batch(events, numbers, end)
            events, numbers, size = [], [], 0
        if line is None or line.event is None:
            yield None
            continue
        events.append(line.event)
        numbers.append(line.number)
        size += length
        end = line.end
    if events:
        yield Batch(events, numbers, end)
