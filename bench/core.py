"""The engine alone, in a process of its own: memory of identities, and history made fast."""

import time
from typing import Any

import psutil

from ammeter.store import segments
from ammeter.store.db import Database
from ammeter.usecases.engine import Engine, MeterSpec
from bench.kinds import Kind
from bench.month import last_day
from bench.workload import Expected, bodies, from_source, generate

_HORIZON_SECONDS = 35 * 86_400
_PER_REQUEST = 8000
# Sources of history, which no other measurement uses.
_HISTORY = 50_000_000


class Core:
    """Feeds an engine with what a server would feed it."""

    def __init__(self) -> None:
        """Hold nothing."""
        self._bodies: list[bytes] = []

    def prepare(self, kind: Kind, count: int, seed: int, *, timed: bool = True) -> Expected:
        """Generate a workload; returns what it must come to."""
        # Without bad events: an engine that knows no meters has nothing against them.
        work = generate(kind, count, seed, bad_share=0, timed=timed)
        self._kind = kind
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

    def windows(self) -> dict[str, float]:
        """Take the workload in with its meters, on one thread.

        Returns events per CPU-second: to decode, deduplicate and sum them up by minute, and with sealing,
        too, which compresses and chains segments and which no other engine does here.
        """
        engine = _engine(bytes(16))
        engine.open_tenant(1, 0, bytes(32))
        for number, (key, value) in enumerate(self._kind.meters.items(), 1):
            kind = "SUM" if value else "COUNT"
            dimensions = list(self._kind.dimensions)
            engine.put_meter(1, MeterSpec(number, key, self._kind.event_type, kind, value, dimensions, []))
        accepted, sealing = 0, 0.0
        started = time.process_time()
        for body in self._bodies:
            accepted += engine.admit(1, body, time.time_ns() // 1000).accepted
            begun = time.process_time()
            group = engine.seal(time.time_ns() // 1000)
            sealing += time.process_time() - begun
            if group is not None:
                engine.fold(group)
        seconds = time.process_time() - started
        return {
            "accepted": accepted,
            "events_per_cpu_second": accepted / (seconds - sealing),
            "with_sealing": accepted / seconds,
        }

    def dedup(self, sources: int) -> dict[str, float]:
        """Admit the workload from so many sources: decode, judge, remember. All else is not timed."""
        engine = _engine(bytes(16))
        engine.open_tenant(1, 0, bytes(32))
        process = psutil.Process()
        several = [[from_source(body, source) for body in self._bodies] for source in range(sources)]
        before, accepted, seconds = process.memory_info().rss, 0, 0.0
        for body in (body for one in several for body in one):
            begun = time.process_time()
            accepted += engine.admit(1, body, time.time_ns() // 1000).accepted
            seconds += time.process_time() - begun
            group = engine.seal(time.time_ns() // 1000)
            assert group is not None
            engine.fold(group)
        engine.discard(engine.freeze())
        assert engine.stats()["identities"] == accepted
        return {
            "identities": accepted,
            "events_per_cpu_second": accepted / seconds,
            "bytes_per_identity": engine.stats()["identity_bytes"] / accepted,
            "resident_bytes_per_identity": (process.memory_info().rss - before) / accepted,
        }

    def prepare_day(self, kind: Kind, count: int, seed: int) -> None:
        """Generate a day's workload, in a request for each hour, of events that say no time."""
        work = generate(kind, count, seed, bad_share=0, timed=False)
        self._bodies = bodies(work.events, -(-len(work.events) // 24))

    def days(self, url: str, days: int) -> int:
        """Append the day's workload to the chain as so many days had it; returns the events that took."""
        first = last_day() - days
        times = [((first + day) * 24 + hour) * 3_600_000_000 for day in range(days) for hour in range(24)]
        return self._append(
            url, [(_HISTORY + at // 24, at % 24, time_us) for at, time_us in enumerate(times)]
        )

    def history(self, url: str, sources: int) -> int:
        """Append the workload from so many sources to the chain; returns the events that took."""
        now_us = time.time_ns() // 1000
        places = range(len(self._bodies))
        return self._append(url, [(source, at, now_us) for source in range(sources) for at in places])

    def _append(self, url: str, requests: list[tuple[int, int, int]]) -> int:
        """Commit requests: the source, the number of the body, and when it comes."""
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
        for source, at, now_us in requests:
            engine.admit(state.tenant_id, from_source(self._bodies[at], source), now_us)
            group = engine.seal(now_us)
            assert group is not None
            assert segments.append(raw, epoch, group.segments)
            engine.fold(group)
            count += group.event_count
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
