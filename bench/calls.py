"""Single calls: how long an event waits for its acknowledgement."""

from statistics import median
from typing import Any

from bench.child import Child
from bench.ingest import Target
from bench.serve import EMPTY

_PER_SECOND = 100.0


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
