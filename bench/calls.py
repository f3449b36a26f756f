"""Single calls: how long an event waits for its acknowledgement."""

from statistics import median
from typing import Any

from bench.child import Child
from bench.ingest import Case, Ingest, Target
from bench.serve import EMPTY

_PER_SECOND = 100.0
SHARES = (25, 50, 75, 90)


def latency(load: Child, target: Target, sql: Child, name: str, rounds: int, count: int) -> dict[str, Any]:
    """One event per request at 100/s, beside a commit and an empty call at the same pace."""
    acks: list[float] = []
    commits: list[float] = []
    empties: list[float] = []
    for number in range(rounds):
        # Sources that no other measurement uses.
        sent = load.ask("paced", target.server.address, name, 90_000_000 + number, _PER_SECOND, count)
        acks.extend(sent.latencies)
        commits.append(sql.ask("commits", _PER_SECOND, count))
        calls = load.ask("paced_calls", target.server.address, EMPTY, b"", _PER_SECOND, count)
        empties.append(median(calls.latencies))
    acks.sort()
    floor = median(commits) + median(empties)
    return {
        "ack_p50_ms": median(acks) * 1000,
        "ack_p99_ms": acks[len(acks) * 99 // 100] * 1000,
        "commit_p50_ms": median(commits) * 1000,
        "empty_call_p50_ms": median(empties) * 1000,
        "times_commit_and_empty_call": median(acks) / floor,
    }


def under_load(
    ingest: Ingest, target: Target, case: Case, ceiling: float, seconds: float
) -> dict[str, dict[str, float]]:
    """Say how long requests wait at shares (%) of the highest rate, from when they were to be sent."""
    found = {}
    for share in SHARES:
        sent = ingest.paced(target, case, ceiling * share / 100, seconds)
        ordered = sorted(sent.latencies)
        last = len(ordered) - 1
        places = {"p50_ms": 0.5, "p99_ms": 0.99, "p99.9_ms": 0.999, "max_ms": 1.0}
        found[str(share)] = {
            "events_per_second": sent.accepted / sent.seconds,
            "requests": len(ordered),
            "refused": sent.resent,
            **{name: ordered[round(last * place)] * 1000 for name, place in places.items()},
        }
    return found
