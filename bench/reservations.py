"""Reservations: how many a server decides and makes durable, by how many callers; and a take of a lease.

`python -m bench.reservations [--pairs N]`: each caller reserves, then settles with an event or
releases, in turns.
"""

import argparse
import asyncio
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import grpc
import psutil
from google.protobuf.message import Message

from ammeter.client import Client, new_request_id
from ammeter.client.leases import Leases
from ammeter.v1 import reservation_pb2 as pb
from ammeter.v1 import usage_pb2
from bench.child import Child
from bench.kinds import FEATURE, LlmGateway
from bench.machine import Server, load_average, postgres
from bench.tenant import CUSTOMERS, require_access, set_up

CALLERS = (1, 16, 256)
_CALLS_PER_CHANNEL = 32
_PATH = "/ammeter.v1.ReservationService/"
_TAKES = 200_000


class Took(NamedTuple):
    """Seconds in all, and of each call by verb."""

    seconds: float
    calls: dict[str, list[float]]


class Callers:
    """Many callers in a process of their own."""

    def run(self, address: str, callers: int, pairs: int) -> Took:
        """Have so many callers make `pairs` reservations in all, and end each."""
        return asyncio.run(_run(address, callers, pairs))


async def _run(address: str, callers: int, pairs: int) -> Took:
    count = -(-callers // _CALLS_PER_CHANNEL)
    options = [("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.aio.insecure_channel(address, options=options) for _ in range(count)]
    calls: dict[str, list[float]] = {"reserve": [], "settle": [], "release": []}
    rest = iter(range(pairs))
    for channel in channels:
        await channel.channel_ready()
    began = time.perf_counter()
    await asyncio.gather(*(_caller(channels[number % count], rest, calls) for number in range(callers)))
    seconds = time.perf_counter() - began
    for channel in channels:
        await channel.close()
    return Took(seconds, calls)


async def _call(channel: grpc.aio.Channel, method: str, request: Message) -> bytes:
    call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(_PATH + method)
    return await call(request.SerializeToString())


async def _caller(channel: grpc.aio.Channel, rest: Iterator[int], calls: dict[str, list[float]]) -> None:
    for number in rest:
        customer = f"customer-{number % CUSTOMERS:05d}"
        began = time.perf_counter()
        wanted = pb.ReserveRequest(
            customer_key=customer, feature_key=FEATURE, amount="100", request_id=new_request_id()
        )
        made = pb.ReserveResponse.FromString(await _call(channel, "Reserve", wanted))
        calls["reserve"].append(time.perf_counter() - began)
        mine = made.reservation.reservation_id
        assert mine, made
        began = time.perf_counter()
        if number % 2:
            release = pb.ReleaseReservationRequest(reservation_id=mine, request_id=new_request_id())
            await _call(channel, "ReleaseReservation", release)
            calls["release"].append(time.perf_counter() - began)
            continue
        event = usage_pb2.UsageEvent(id=mine, source="bench", type=LlmGateway().event_type, subject=customer)
        event.properties.update({"model": "llama-3-70b", "input_tokens": "70", "output_tokens": "9"})
        settle = pb.SettleReservationRequest(
            reservation_id=mine, amount="70", events=[event], request_id=new_request_id()
        )
        await _call(channel, "SettleReservation", settle)
        calls["settle"].append(time.perf_counter() - began)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.reservations", description=__doc__)
    parser.add_argument("--pairs", type=int, default=4000, help="reservations at 256 callers")
    given = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="ammeter-bench-"))
    directory.chmod(0o711)  # Postgres may run as another account
    try:
        with ExitStack() as stack:
            running = stack.enter_context(postgres(directory))
            load = stack.enter_context(Child(Callers))
            server = Server(running.url, directory)
            stack.callback(server.kill)
            server.start()
            client = stack.enter_context(Client(server.address))
            set_up(client)
            load.ask("run", server.address, 16, 200)  # to warm up
            for callers in CALLERS:
                _measure(load, server, callers, max(100, given.pairs * callers // (callers + 64)))
            require_access(client)
            _measure_lease(client)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _measure(load: Child, server: Server, callers: int, pairs: int) -> None:
    process = psutil.Process(server.pid)
    before = sum(process.cpu_times()[:2])
    took: Took = load.ask("run", server.address, callers, pairs)
    used = (sum(process.cpu_times()[:2]) - before) / (2 * pairs)
    print(
        f"{callers:4} callers: {2 * pairs / took.seconds:7,.0f} decisions/s, "
        f"{used * 1e6:5,.0f} us of CPU each; load {load_average():.1f}"
    )
    for verb, seconds in took.calls.items():
        ordered = sorted(seconds)
        p50, p99 = (ordered[len(ordered) * percent // 100] * 1000 for percent in (50, 99))
        print(f"      {verb:8} {len(seconds) / took.seconds:7,.0f}/s  p50 {p50:6.1f} ms  p99 {p99:6.1f} ms")


def _measure_lease(client: Client) -> None:
    with Leases(client, amount=10 * _TAKES, lifetime_seconds=60) as leases:
        lease = leases.of("customer-00000", FEATURE)
        assert lease.take(1).allowed
        began = time.thread_time()
        for _ in range(_TAKES):
            lease.take(1)
        take = time.thread_time() - began
        began = time.thread_time()
        for _ in range(_TAKES):
            lease.done(lease.take(1))
        both = time.thread_time() - began
    print(f"a take of a lease: {take / _TAKES * 1e6:.2f} us of CPU; with done {both / _TAKES * 1e6:.2f}")


if __name__ == "__main__":
    main()
