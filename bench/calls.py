"""Single calls: how long an event waits for its acknowledgement, and how many checks a server answers."""

from statistics import median
from typing import Any

from bench.child import Child
from bench.ingest import Target
from bench.serve import EMPTY
from bench.tenant import CUSTOMERS, batch, checks, require_access

_CHECK = "/ammeter.v1.EntitlementService/CheckEntitlement"
_BATCH = "/ammeter.v1.EntitlementService/BatchCheckEntitlements"
_IN_FLIGHT = 32
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


def entitlements(load: Child, target: Target, rounds: int, count: int) -> dict[str, Any]:
    """Checks beside the empty handler with the same bodies; a batch of 100 beside 100 calls."""
    require_access(target.client)
    bodies = checks(CUSTOMERS)
    empty: list[float] = []
    single: list[float] = []
    batched: list[float] = []
    address = target.server.address
    for _ in range(rounds):
        empty.append(count / load.ask("calls", address, EMPTY, bodies, count, _IN_FLIGHT))
        single.append(count / load.ask("calls", address, _CHECK, bodies, count, _IN_FLIGHT))
        calls = max(_IN_FLIGHT, count // 20)
        seconds = load.ask("calls", address, _BATCH, [batch(100)], calls, _IN_FLIGHT)
        batched.append(calls * 100 / seconds)
    return {
        "empty_calls_per_second": median(empty),
        "checks_per_second": median(single),
        "of_empty_handler": median(one / other for one, other in zip(single, empty, strict=True)),
        "batched_checks_per_second": median(batched),
        "batch_of_100_times_single": median(one / other for one, other in zip(batched, single, strict=True)),
    }
