"""The straightforward service to compare with: Python's messages, a set, a dict, COPY. Only for benchmarks.

It serves RecordUsage with the same messages, decides about each event by the same rules, keeps
exact sums by minute, and answers after its rows are committed. Less is asked of it than of ammeter: it has
one tenant and fixed meters, finds no conflicts, chains nothing, and its memory is not recovered.
`python -m bench.plain URL ADDRESS` serves.
"""

import asyncio
import json
import signal
import sys
import time
from decimal import Decimal, InvalidOperation
from typing import Any

import grpc
import psycopg

from ammeter.v1 import usage_pb2
from bench.kinds import LlmGateway
from bench.workload import Expected, bodies, generate

RECORD = "/ammeter.v1.UsageService/RecordUsage"
SUMS = "/ammeter.bench/Sums"
_CONNECTIONS = 2
_PER_REQUEST = 8000
_HORIZON_SECONDS = 35 * 86_400
_MAX_BYTES = 256
_TABLE = """
CREATE TABLE IF NOT EXISTS plain_events (
  source text NOT NULL, id text NOT NULL, type text NOT NULL, subject text NOT NULL,
  time timestamptz NOT NULL, properties jsonb NOT NULL
)
"""
_COPY = "COPY plain_events FROM STDIN"

Columns = tuple[str, str, str, str, Any, str]


class Judge:
    """Decides about events, and remembers."""

    def __init__(self) -> None:
        """Remember nothing."""
        self._meters = LlmGateway().meters
        self._seen: set[tuple[str, str]] = set()
        self.sums: dict[tuple[str, str, str, int], Decimal] = {}

    def judge(
        self, request: usage_pb2.RecordUsageRequest
    ) -> tuple[usage_pb2.RecordUsageResponse, list[Columns]]:
        """Take the events of a request in: the answer, and the rows of those that are new."""
        answer = usage_pb2.RecordUsageResponse()
        new: list[Columns] = []
        now = time.time()
        for index, event in enumerate(request.events):
            field, values = self._check(event, now)
            if field:
                outcome = usage_pb2.EVENT_OUTCOME_REJECTED
                answer.results.add(index=index, outcome=outcome, field=field, id=event.id)
                answer.rejected_count += 1
                continue
            identity = (event.source, event.id)
            if identity in self._seen:
                outcome = usage_pb2.EVENT_OUTCOME_DUPLICATE
                answer.results.add(index=index, outcome=outcome, id=event.id)
                answer.duplicate_count += 1
                continue
            self._seen.add(identity)
            answer.accepted_count += 1
            properties = event.properties
            model, minute = properties["model"], event.time.seconds // 60
            for meter, value in values.items():
                key = (meter, event.subject, model, minute)
                self.sums[key] = self.sums.get(key, Decimal(0)) + value
            moment = event.time.ToDatetime()
            text = json.dumps(dict(properties))
            new.append((event.source, event.id, event.type, event.subject, moment, text))
        return answer, new

    def _check(self, event: usage_pb2.UsageEvent, now: float) -> tuple[str, dict[str, Decimal]]:
        """Say which field is wrong, if one is; and what the event adds to each meter."""
        for name in ("id", "source", "type", "subject"):
            if not 0 < len(getattr(event, name).encode()) <= _MAX_BYTES:
                return name, {}
        if not now - _HORIZON_SECONDS <= event.time.seconds <= now + 300:
            return "time", {}
        values = {}
        for meter, name in self._meters.items():
            try:
                value = Decimal(event.properties[name]) if name else Decimal(1)
            except InvalidOperation:
                return f"properties[{name}]", {}
            if not value.is_finite():
                return f"properties[{name}]", {}
            values[meter] = value
        return "", values


class PlainEngine:
    """The judge alone, in a process of its own."""

    def prepare(self, kind: LlmGateway, count: int, seed: int) -> Expected:
        """Generate a workload; returns what it must come to."""
        work = generate(kind, count, seed, bad_share=0)
        self._bodies = bodies(work.events, _PER_REQUEST)
        return work.expected

    def windows(self) -> dict[str, float]:
        """Take the workload in: decode, deduplicate, sum by minute; returns events per CPU-second."""
        judge = Judge()
        accepted = 0
        started = time.process_time()
        for body in self._bodies:
            answer, _ = judge.judge(usage_pb2.RecordUsageRequest.FromString(body))
            accepted += answer.accepted_count
        return {"accepted": accepted, "events_per_cpu_second": accepted / (time.process_time() - started)}


async def _serve(url: str, address: str) -> None:
    judge = Judge()
    free: asyncio.Queue[psycopg.AsyncConnection] = asyncio.Queue()
    for _ in range(_CONNECTIONS):
        free.put_nowait(await psycopg.AsyncConnection.connect(url))
    conn = await free.get()
    await conn.execute(_TABLE)
    await conn.commit()
    free.put_nowait(conn)

    async def record(request: usage_pb2.RecordUsageRequest, _: object) -> usage_pb2.RecordUsageResponse:
        answer, new = judge.judge(request)
        conn = await free.get()
        async with conn.cursor() as cursor, cursor.copy(_COPY) as rows:
            for row in new:
                await rows.write_row(row)
        await conn.commit()
        free.put_nowait(conn)
        return answer

    async def sums(_request: bytes, _: object) -> bytes:
        found: dict[str, int] = {}
        for (meter, _subject, model, _minute), value in judge.sums.items():
            key = f"{meter}/{model}"
            found[key] = found.get(key, 0) + int(value)
        return json.dumps(found).encode()

    class Handlers(grpc.GenericRpcHandler):
        def service(self, details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[Any, Any] | None":
            if details.method == RECORD:
                return grpc.unary_unary_rpc_method_handler(
                    record,
                    request_deserializer=usage_pb2.RecordUsageRequest.FromString,
                    response_serializer=usage_pb2.RecordUsageResponse.SerializeToString,
                )
            return grpc.unary_unary_rpc_method_handler(sums) if details.method == SUMS else None

    server = grpc.aio.server(options=[("grpc.max_receive_message_length", 8 << 20)])
    server.add_generic_rpc_handlers([Handlers()])
    server.add_insecure_port(address)
    await server.start()
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    await stopping.wait()
    await server.stop(None)


if __name__ == "__main__":
    asyncio.run(_serve(*sys.argv[1:]))
