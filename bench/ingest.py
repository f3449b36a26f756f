"""One measurement of ingest: a workload through one server, with the gate before the rate."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import NamedTuple, Protocol

from ammeter.client import Client
from bench.child import Child
from bench.kinds import Kind
from bench.load import Sent
from bench.machine import cpu
from bench.tenant import require_groups, require_totals
from bench.workload import Expected


class Case(NamedTuple):
    """How a workload is sent: so many events in requests of `size`."""

    way: str
    size: int
    in_flight: int
    events: int

    @property
    def name(self) -> str:
        """Say it in a word."""
        return f"{self.way}-{self.size}"


@dataclass(frozen=True)
class Round:
    """What one run took. CPU-seconds are per million events, by process."""

    events_per_second: float
    p50_ms: float
    p99_ms: float
    cpu: dict[str, float]
    wire_bytes_per_event: float


class Served(Protocol):
    """A process that takes requests."""

    @property
    def address(self) -> str:
        """Where."""

    @property
    def pid(self) -> int:
        """Its process id."""


@dataclass
class Target:
    """A server under load, and what it must say afterwards: everything sent once per source."""

    server: Served
    client: Client
    postmaster_pid: int
    sent: dict[str, int] = field(default_factory=dict)
    rounds: dict[str, list[Round]] = field(default_factory=dict)


class Ingest:
    """Sends workloads to targets; every run comes from a source of its own, so its events are new."""

    def __init__(self, load: Child, kind: Kind, cases: Sequence[Case], seed: int) -> None:
        """Have the load generator encode what the cases need; it holds one workload of a kind and seed."""
        self.load = load
        self.kind = kind
        self.cases = cases
        self.expected: dict[str, Expected] = {}
        self.source = 0
        self._seed = seed
        self.encode(cases)

    def encode(self, cases: Sequence[Case]) -> None:
        """Have the load generator encode what cases need."""
        for count in sorted({case.events for case in cases}):
            sizes = sorted({case.size for case in cases if case.events == count})
            name = self.name(count)
            self.expected[name] = self.load.ask("prepare", name, self.kind, count, sizes, self._seed)

    def name(self, events: int) -> str:
        """Name the encoded workload of so many events."""
        return f"{self.kind.name}-{self._seed}-{events}"

    def run(self, target: Target, case: Case) -> Sent:
        """Send a workload; stops unless every event got the outcome that it must get."""
        self.source += 1
        before = cpu(self.load.pid, target.server.pid, target.postmaster_pid)
        name = self.name(case.events)
        sent: Sent = self.load.ask(
            case.way, target.server.address, name, case.size, self.source, case.in_flight
        )
        used = cpu(self.load.pid, target.server.pid, target.postmaster_pid) - before
        expected = self.expected[name]
        _require_outcome(case, sent, expected)
        target.sent[name] = target.sent.get(name, 0) + 1
        ordered = sorted(sent.latencies)
        target.rounds.setdefault(case.name, []).append(
            Round(
                expected.accepted / sent.seconds,
                ordered[len(ordered) // 2] * 1000,
                ordered[len(ordered) * 99 // 100] * 1000,
                used.per_million(expected.accepted),
                sent.wire_bytes / expected.sent,
            )
        )
        return sent

    def paced(self, target: Target, case: Case, per_second: float, seconds: float) -> Sent:
        """Send events at a fixed rate for about so long, with the gate of `run`."""
        name = self.name(case.events)
        expected = self.expected[name]
        times = max(1, round(per_second * seconds / expected.sent))
        arguments = (name, case.size, self.source + 1, times, per_second / case.size)
        sent: Sent = self.load.ask("paced_all", target.server.address, *arguments)
        self.source += times
        _require_outcome(case, sent, expected.repeated(times))
        target.sent[name] = target.sent.get(name, 0) + times
        return sent

    def send_again(self, target: Target, case: Case) -> None:
        """Send the last run's events once more; stops unless that adds nothing."""
        name = self.name(case.events)
        expected = self.expected[name]
        sent: Sent = self.load.ask(
            case.way, target.server.address, name, case.size, self.source, case.in_flight
        )
        assert (sent.accepted, sent.duplicates) == (0, expected.accepted + expected.duplicates), sent

    def require(self, target: Target, *, groups: bool) -> None:
        """Stop unless queries say what was sent, in total and (if `groups`) for each group."""
        total = Expected()
        for name, times in target.sent.items():
            for key, value in self.expected[name].sums.items():
                total.sums[key] += value * times
        require_totals(target.client, self.kind, total, 1)
        if groups:
            require_groups(target.client, self.kind, total, 1)


def _require_outcome(case: Case, sent: Sent, expected: Expected) -> None:
    good = expected.accepted + expected.duplicates
    assert (sent.accepted + sent.duplicates, sent.rejected) == (good, expected.rejected), (case, sent)
    # What was refused and sent again may have become durable the first time, and is a duplicate then.
    assert sent.accepted == expected.accepted or (sent.resent and sent.accepted < expected.accepted), case


def middle(rounds: Sequence[Round]) -> Round:
    """Take the medians of several rounds."""
    return Round(
        median(one.events_per_second for one in rounds),
        median(one.p50_ms for one in rounds),
        median(one.p99_ms for one in rounds),
        {name: median(one.cpu[name] for one in rounds) for name in rounds[0].cpu},
        rounds[0].wire_bytes_per_event,
    )
