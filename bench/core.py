"""The engine alone, in a process of its own: memory of identities, and history made fast."""

import time
from typing import Any

import psutil

from ammeter.store import segments
from ammeter.store.db import Database
from ammeter.usecases.engine import Engine, MeterSpec
from bench.workload import EVENT_TYPE, METERS, Expected, bodies, from_source, generate

_HORIZON_SECONDS = 35 * 86_400
_PER_REQUEST = 8000


class Core:
    """Feeds an engine with what a server would feed it."""

    def __init__(self) -> None:
        """Hold nothing."""
        self._bodies: list[bytes] = []

    def prepare(self, count: int, seed: int) -> Expected:
        """Generate a workload; returns what it must come to."""
        # Without bad events: an engine that knows no meters has nothing against them.
        work = generate(count, seed, bad_share=0)
        self._bodies = bodies(work.events, _PER_REQUEST)
        return work.expected

    def memory(self, sources: int) -> dict[str, Any]:
        """Remember the workload from so many sources; returns bytes per identity, told and measured."""
        engine = _engine(bytes(16))
        engine.open_tenant(1, 0, bytes(32))
        process = psutil.Process()
        resident = []
        started = time.process_time()
        for source in (0, *range(1, sources)):
            for body in self._bodies:
                engine.admit(1, from_source(body, source), time.time_ns() // 1000)
                group = engine.seal(time.time_ns() // 1000)
                if group is not None:
                    engine.fold(group)
            engine.discard(engine.freeze())
            if source == 0:
                # What any engine needs is there by now; what grows from here on are identities.
                resident.append((process.memory_info().rss, engine.stats()["identities"]))
        seconds = time.process_time() - started
        resident.append((process.memory_info().rss, engine.stats()["identities"]))
        stats = engine.stats()
        grown = (resident[1][0] - resident[0][0]) / (resident[1][1] - resident[0][1])
        return {
            "identities": stats["identities"],
            "bytes_per_identity": stats["identity_bytes"] / stats["identities"],
            "resident_bytes_per_identity": grown,
            "engine_cpu_seconds_per_million": seconds * 1e6 / stats["identities"],
        }

    def windows(self) -> dict[str, Any]:
        """Take the workload in with three meters: decode, deduplicate, sum by minute, on one thread."""
        engine = _engine(bytes(16))
        engine.open_tenant(1, 0, bytes(32))
        for number, (key, value) in enumerate(METERS.items(), 1):
            kind = "SUM" if value else "COUNT"
            engine.put_meter(1, MeterSpec(number, key, EVENT_TYPE, kind, value, ["model"], []))
        started = time.process_time()
        accepted = 0
        for body in self._bodies:
            accepted += engine.admit(1, body, time.time_ns() // 1000).accepted
            group = engine.seal(time.time_ns() // 1000)
            if group is not None:
                engine.fold(group)
        seconds = time.process_time() - started
        return {"events_per_cpu_second": accepted / seconds}

    def history(self, url: str, sources: int) -> int:
        """Append the workload from so many sources to the chain; returns the events that took."""
        db = Database(url)
        raw = db.raw()
        epoch = segments.acquire_writer(raw, "bench")
        assert epoch is not None
        with db.engine() as conn:
            key = segments.hash_key(conn)
            (state,) = segments.tenant_states(conn)
        engine = _engine(key)
        engine.open_tenant(state.tenant_id, state.head, state.head_digest)
        count = 0
        for source in range(sources):
            for body in self._bodies:
                engine.admit(state.tenant_id, from_source(body, source), time.time_ns() // 1000)
                group = engine.seal(time.time_ns() // 1000)
                assert group is not None
                assert segments.append(raw, epoch, group.segments)
                engine.fold(group)
                count += group.event_count
            engine.discard(engine.freeze())
        raw.close()
        db.close()
        return count


def _engine(hash_key: bytes) -> Engine:
    return Engine(
        hash_key=hash_key,
        horizon_past_seconds=_HORIZON_SECONDS,
        horizon_future_seconds=300,
        max_pending_bytes=64 << 20,
        codec=1,
    )
