"""The load generator: pre-encoded requests over raw bytes, in a process of its own."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc

from ammeter.v1 import entitlement_pb2, usage_pb2
from bench.kinds import FEATURE, Kind
from bench.workload import Expected, bodies, from_source, generate, numbered, one_event

if TYPE_CHECKING:
    Call = grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
    Stream = grpc.aio.StreamStreamMultiCallable[bytes, bytes]

RECORD = "/ammeter.v1.UsageService/RecordUsage"
STREAM = "/ammeter.v1.UsageService/StreamUsage"
CHECK = "/ammeter.v1.EntitlementService/CheckEntitlement"
# Far below what the server takes on a connection: it counts calls until they are torn down.
_CALLS_PER_CHANNEL = 16
_PACED_CHANNELS = 4
_COME_AGAIN = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED)
_RESEND_SECONDS = 0.05
_OPTIONS = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", 64 << 20),
)


@dataclass(frozen=True)
class Sent:
    """What a run took, and what was answered."""

    seconds: float
    wire_bytes: int
    accepted: int
    duplicates: int
    rejected: int
    position: int
    latencies: list[float]
    """Seconds, from the time a request was to be sent."""
    resent: int
    """Requests that were refused, which a busy machine may cause, and sent again as the API asks."""


class Load:
    """Holds encoded requests between runs."""

    def __init__(self) -> None:
        """Hold nothing."""
        self._bodies: dict[tuple[str, int], list[bytes]] = {}

    def prepare(self, name: str, kind: Kind, count: int, sizes: Sequence[int], seed: int) -> Expected:
        """Generate a workload and pack it in requests of each size; returns what it must come to."""
        work = generate(kind, count, seed)
        for size in sizes:
            self._bodies[name, size] = bodies(work.events, size)
        return work.expected

    def unary(self, address: str, name: str, size: int, source: int, in_flight: int) -> Sent:
        """Send everything by RecordUsage, as fast as answers come."""
        requests = self._requests(name, size, source)
        return asyncio.run(_closed_loop(address, requests, in_flight))

    def stream(self, address: str, name: str, size: int, source: int, _in_flight: int) -> Sent:
        """Send everything over one StreamUsage, as fast as it is read."""
        requests = [numbered(one, number) for number, one in enumerate(self._requests(name, size, source), 1)]
        return asyncio.run(_one_stream(address, requests))

    def paced_all(
        self, address: str, name: str, size: int, source: int, times: int, per_second: float
    ) -> Sent:
        """Send everything from so many sources, a fixed number of requests a second."""
        requests = [one for number in range(times) for one in self._requests(name, size, source + number)]
        return asyncio.run(_open_loop(address, RECORD, requests, per_second, _PACED_CHANNELS))

    def paced(self, address: str, name: str, source: int, per_second: float, count: int) -> Sent:
        """Send one event per request at a fixed pace, whether answers come or not."""
        return asyncio.run(_open_loop(address, RECORD, self._requests(name, 1, source)[:count], per_second))

    def paced_calls(self, address: str, path: str, body: bytes, per_second: float, count: int) -> Sent:
        """Send the same call at a fixed pace."""
        return asyncio.run(_open_loop(address, path, [body] * count, per_second))

    def calls(self, address: str, path: str, request: Sequence[bytes], count: int, in_flight: int) -> float:
        """Make `count` unary calls, taking the requests in turn; returns the seconds."""
        several = [request[number % len(request)] for number in range(count)]
        return asyncio.run(_calls(address, path, several, in_flight))

    def feed(
        self, address: str, name: str, size: int, source: int, events_per_second: float, count: int
    ) -> float:
        """Send so many requests at a pace, again from another source when all were sent; returns events/s."""
        bodies = self._bodies[name, size]
        several = (from_source(bodies[at % len(bodies)], source + at // len(bodies)) for at in range(count))
        seconds = asyncio.run(_feed(address, several, events_per_second / size))
        return count * size / seconds

    def visible(self, address: str, subject: str, count: int) -> list[float]:
        """Record an event and check, again and again; returns the seconds from ack until a check showed it.

        The subject's customer has the same key. Stops if the first check after an ack does not show it.
        """
        return asyncio.run(_visible(address, subject, count))

    def _requests(self, name: str, size: int, source: int) -> list[bytes]:
        return [from_source(body, source) for body in self._bodies[name, size]]


class Idle:
    """Holds streams open that send nothing."""

    def __init__(self) -> None:
        """Have none."""
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        self._held: list[object] = []

    def open(self, address: str, count: int) -> None:
        """Open so many streams, each over a connection of its own."""
        asyncio.run_coroutine_threadsafe(self._open(address, count), self._loop).result()

    async def _open(self, address: str, count: int) -> None:
        for _ in range(count):
            channel = grpc.aio.insecure_channel(address, options=_OPTIONS)
            stream: Stream = channel.stream_stream(STREAM)
            call = stream()
            await call.wait_for_connection()
            self._held += [channel, call]


async def _closed_loop(address: str, requests: Sequence[bytes], in_flight: int) -> Sent:
    answers: list[bytes] = []
    latencies: list[float] = []

    async def work(call: "Call", rest: Iterator[bytes]) -> None:
        for body in rest:
            begun = time.perf_counter()
            while (answer := await _unless_refused(call(body))) is None:
                refused.append(body)
                await asyncio.sleep(_RESEND_SECONDS)
            answers.append(answer)
            latencies.append(time.perf_counter() - begun)

    refused: list[bytes] = []
    channels = await _channels(address, in_flight)
    rest = iter(requests)
    calls: list[Call] = [channels[number % len(channels)].unary_unary(RECORD) for number in range(in_flight)]
    started = time.perf_counter()
    await asyncio.gather(*(work(call, rest) for call in calls))
    seconds = time.perf_counter() - started
    await _close(channels)
    return _tally(seconds, requests, answers, latencies, len(refused))


async def _unless_refused(call: Awaitable[bytes]) -> bytes | None:
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        if error.code() not in _COME_AGAIN:
            raise
        return None


async def _one_stream(address: str, requests: Sequence[bytes]) -> Sent:
    sent_at: dict[int, float] = {}

    async def feed(first: int) -> AsyncIterator[bytes]:
        for number in range(first, len(requests)):
            sent_at.setdefault(number, time.perf_counter())
            yield requests[number]

    (channel,) = await _channels(address, 1)
    call: Stream = channel.stream_stream(STREAM)
    answers: list[bytes] = []
    latencies: list[float] = []
    resent = 0
    started = time.perf_counter()
    while len(answers) < len(requests):
        try:
            async for answer in call(feed(len(answers))):
                latencies.append(time.perf_counter() - sent_at[len(answers)])
                answers.append(answer)
        except grpc.aio.AioRpcError as error:
            if error.code() not in _COME_AGAIN:
                raise
            resent += 1
            await asyncio.sleep(_RESEND_SECONDS)
    seconds = time.perf_counter() - started
    await channel.close()
    return _tally(seconds, requests, answers, latencies, resent)


async def _open_loop(
    address: str, path: str, requests: Sequence[bytes], per_second: float, connections: int = 1
) -> Sent:
    answers: list[bytes] = []
    latencies: list[float] = []
    refused: list[bytes] = []
    channels = await _channels(address, connections * _CALLS_PER_CHANNEL)
    calls: list[Call] = [channel.unary_unary(path) for channel in channels]
    answers.append(await calls[0](requests[0]))

    async def send(call: "Call", body: bytes, due: float) -> None:
        while (answer := await _unless_refused(call(body))) is None:
            refused.append(body)
            await asyncio.sleep(_RESEND_SECONDS)
        answers.append(answer)
        latencies.append(time.perf_counter() - due)

    started = time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for number, body in enumerate(requests[1:]):
            due = started + number / per_second
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            tasks.create_task(send(calls[number % len(calls)], body, due))
    seconds = time.perf_counter() - started
    await _close(channels)
    return _tally(seconds, requests, answers if path == RECORD else [], latencies, len(refused))


async def _feed(address: str, requests: Iterable[bytes], per_second: float) -> float:
    """Send at a pace, or as fast as answers come if that is slower."""
    waiting: set[asyncio.Task[bytes | None]] = set()
    channels = await _channels(address, _CALLS_PER_CHANNEL)
    call: Call = channels[0].unary_unary(RECORD)
    started = time.perf_counter()
    for number, body in enumerate(requests):
        await asyncio.sleep(max(0.0, started + number / per_second - time.perf_counter()))
        if len(waiting) >= _CALLS_PER_CHANNEL:
            _, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        waiting.add(asyncio.ensure_future(_unless_refused(call(body))))
    await asyncio.gather(*waiting)
    seconds = time.perf_counter() - started
    await _close(channels)
    return seconds


async def _visible(address: str, subject: str, count: int) -> list[float]:
    (channel,) = await _channels(address, 1)
    record: Call = channel.unary_unary(RECORD)
    check: Call = channel.unary_unary(CHECK)
    asked = entitlement_pb2.EntitlementCheck(customer_key=subject, feature_key=FEATURE)
    question = entitlement_pb2.CheckEntitlementRequest(check=asked).SerializeToString()
    answer = entitlement_pb2.CheckEntitlementResponse.FromString(await check(question))
    used, seconds = int(answer.access.usage), []
    for _ in range(count):
        await record(one_event(subject, 1))
        began = time.perf_counter()
        answer = entitlement_pb2.CheckEntitlementResponse.FromString(await check(question))
        seconds.append(time.perf_counter() - began)
        used += 1
        assert int(answer.access.usage) == used, (answer, used)
    await channel.close()
    return seconds


async def _calls(address: str, path: str, requests: Sequence[bytes], in_flight: int) -> float:
    async def work(call: "Call", rest: Iterator[bytes]) -> None:
        for body in rest:
            await call(body)

    channels = await _channels(address, in_flight)
    rest = iter(requests)
    started = time.perf_counter()
    calls: list[Call] = [channels[number % len(channels)].unary_unary(path) for number in range(in_flight)]
    await asyncio.gather(*(work(call, rest) for call in calls))
    seconds = time.perf_counter() - started
    await _close(channels)
    return seconds


async def _channels(address: str, in_flight: int) -> list[grpc.aio.Channel]:
    count = -(-in_flight // _CALLS_PER_CHANNEL)
    channels = [grpc.aio.insecure_channel(address, options=_OPTIONS) for _ in range(count)]
    for channel in channels:
        await channel.channel_ready()
    return channels


async def _close(channels: Sequence[grpc.aio.Channel]) -> None:
    for channel in channels:
        await channel.close()


def _tally(
    seconds: float, requests: Sequence[bytes], answers: Sequence[bytes], latencies: list[float], resent: int
) -> Sent:
    # The two responses have the same fields, but for the sequence.
    read = [usage_pb2.RecordUsageResponse.FromString(answer) for answer in answers]
    return Sent(
        seconds=seconds,
        wire_bytes=sum(map(len, requests)),
        accepted=sum(one.accepted_count for one in read),
        duplicates=sum(one.duplicate_count for one in read),
        rejected=sum(one.rejected_count for one in read),
        position=max((one.position for one in read), default=0),
        latencies=latencies,
        resent=resent,
    )
