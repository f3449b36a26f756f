"""Clients that never give up: several streams and unary callers, each with a journal."""

import itertools
import random
import threading
import time
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Self

import grpc

from ammeter.v1 import meter_pb2, usage_pb2
from tests.crash.checker import Stored, Window, problems, summary
from tests.crash.journal import Journal, Sent
from tests.rpc.shop import stubs_over
from tests.serving import ServerProcess, Stubs

METER = "use"
SUBJECTS = ("alice", "bob", "carol")
BACK_MINUTES = 10
_TIMEOUT_SECONDS = 10.0
_PAUSE_SECONDS = 0.05
_PIPELINE = 6


def set_up(stubs: Stubs) -> None:
    """Create the meter that counts what the clients send."""
    meter = meter_pb2.Meter(
        meter_key=METER,
        event_type="used",
        aggregation=meter_pb2.AGGREGATION_SUM,
        value_property="amount",
        dimensions=["model"],
    )
    stubs.meters.CreateMeter(meter_pb2.CreateMeterRequest(meter=meter))
    while not is_active(stubs, METER):
        time.sleep(0.02)


def is_active(stubs: Stubs, meter_key: str) -> bool:
    meter = stubs.meters.GetMeter(meter_pb2.GetMeterRequest(meter_key=meter_key)).meter
    return meter.state == meter_pb2.Meter.STATE_ACTIVE


def to_message(source: str, event: Sent) -> usage_pb2.UsageEvent:
    message = usage_pb2.UsageEvent(id=event.id, source=source, type="used", subject=event.subject)
    message.time.FromSeconds(event.minute * 60 + 30)
    message.properties["amount"] = "not a number" if event.value is None else str(event.value)
    message.properties["model"] = f"m{event.minute % 3}"
    return message


def outcomes_of(
    answer: usage_pb2.RecordUsageResponse | usage_pb2.StreamUsageResponse, count: int
) -> list[str]:
    """One outcome for each event; the counts must say the same."""
    outcomes = ["ACCEPTED"] * count
    for result in answer.results:
        outcomes[result.index] = usage_pb2.EventOutcome.Name(result.outcome).removeprefix("EVENT_OUTCOME_")
    counts = (answer.accepted_count, answer.duplicate_count, answer.conflict_count, answer.rejected_count)
    words = ("ACCEPTED", "DUPLICATE", "CONFLICT", "REJECTED")
    assert counts == tuple(outcomes.count(word) for word in words)
    return outcomes


class Client(threading.Thread):
    """Sends batches until told to stop, and then until everything is answered."""

    def __init__(self, address: str, name: str, directory: Path, seed: int, secret: str = "") -> None:
        super().__init__(name=name, daemon=True)
        self.path = directory / f"{name}.jsonl"
        self.failure: BaseException | None = None
        self.last_answer = 0.0
        self.answered_at: list[float] = []
        self.codes: list[grpc.StatusCode] = []
        self._address = address
        self._secret = secret
        self._journal = Journal(self.path)
        self._rng = random.Random(seed)  # noqa: S311 - to be repeated
        self._stopping = threading.Event()
        self._number = 0
        self._answered: deque[Sent] = deque(maxlen=50)

    def run(self) -> None:
        try:
            self.work()
        except BaseException as error:  # noqa: BLE001 - the test asks for it
            self.failure = error
        self._journal.close()

    def work(self) -> None:
        raise NotImplementedError

    def finish(self) -> None:
        self._stopping.set()

    def batch(self) -> list[Sent]:
        """New events; now and then one that is no number, one sent before, one that has changed since."""
        rng = self._rng
        minute = int(time.time()) // 60
        events = []
        for _ in range(rng.randrange(1, 30)):
            self._number += 1
            value = None if rng.random() < 0.02 else rng.randrange(1, 1000)
            when = minute - rng.randrange(BACK_MINUTES)
            events.append(Sent(f"{self.name}/{self._number}", rng.choice(SUBJECTS), when, value))
        if self._answered and rng.random() < 0.2:
            events.append(rng.choice(self._answered))
        if self._answered and rng.random() < 0.1:
            known = rng.choice(self._answered)
            events.append(known._replace(value=None if known.value is None else known.value + 1))
        return events

    def heard(self, call: int, events: Sequence[Sent], outcomes: Sequence[str], position: int) -> None:
        self._journal.answer(call, outcomes, position)
        self.last_answer = time.monotonic()
        self.answered_at.append(self.last_answer)
        self._answered.extend(e for e, outcome in zip(events, outcomes, strict=True) if outcome == "ACCEPTED")

    def answered_since(self, moment: float) -> list[float]:
        times = list(self.answered_at)
        return times[bisect_right(times, moment) :]

    def failed(self, calls: Sequence[int], error: grpc.RpcError) -> None:
        for call in calls:
            self._journal.failure(call, error.code().name)
        self.codes.append(error.code())
        # CANCELLED: gRPC's own word for a call that came in while the server was shutting down.
        codes = grpc.StatusCode
        retryable = {codes.UNAVAILABLE, codes.DEADLINE_EXCEEDED, codes.CANCELLED}
        assert error.code() in retryable, error
        time.sleep(_PAUSE_SECONDS)


class UnaryClient(Client):
    """One call at a time, the same events again until it is answered."""

    def work(self) -> None:
        with ServerChannel(self._address, self._secret) as stubs:
            while not self._stopping.is_set():
                self._deliver(stubs, self.batch())
                time.sleep(self._rng.random() * 0.01)

    def _deliver(self, stubs: Stubs, events: list[Sent]) -> None:
        request = usage_pb2.RecordUsageRequest(events=[to_message(self.name, event) for event in events])
        while True:
            call = self._journal.intent(events)
            try:
                answer = stubs.usage.RecordUsage(request, timeout=_TIMEOUT_SECONDS)
            except grpc.RpcError as error:
                self.failed([call], error)
            else:
                self.heard(call, events, outcomes_of(answer, len(events)), answer.position)
                return


class StreamClient(Client):
    """A stream with several messages unanswered; after an error another one, and all of them again."""

    def work(self) -> None:
        waiting: deque[list[Sent]] = deque()
        with ServerChannel(self._address, self._secret) as stubs:
            while waiting or not self._stopping.is_set():
                self._session(stubs, waiting)

    def _session(self, stubs: Stubs, waiting: deque[list[Sent]]) -> None:
        outbox: SimpleQueue[usage_pb2.StreamUsageRequest | None] = SimpleQueue()
        calls: deque[tuple[int, list[Sent]]] = deque()

        def send(events: list[Sent]) -> None:
            call = self._journal.intent(events)
            calls.append((call, events))
            messages = [to_message(self.name, event) for event in events]
            outbox.put(usage_pb2.StreamUsageRequest(events=messages, sequence=call))

        def requests() -> Iterator[usage_pb2.StreamUsageRequest]:
            while (message := outbox.get()) is not None:
                yield message

        for events in waiting:
            send(events)
        while len(calls) < _PIPELINE and not self._stopping.is_set():
            waiting.append(self.batch())
            send(waiting[-1])
        if self._stopping.is_set():
            outbox.put(None)
        stream = stubs.usage.StreamUsage(requests(), timeout=20 * _TIMEOUT_SECONDS)
        try:
            for answer in stream:
                call, events = calls.popleft()
                assert answer.sequence == call, "answers come in the order of the messages"
                waiting.popleft()
                self.heard(call, events, outcomes_of(answer, len(events)), answer.position)
                if self._stopping.is_set():
                    outbox.put(None)
                    continue
                waiting.append(self.batch())
                send(waiting[-1])
                time.sleep(self._rng.random() * 0.005)
            assert not calls, "a stream that ends with OK has answered everything"
        except grpc.RpcError as error:
            self.failed([call for call, _ in calls], error)
        finally:
            outbox.put(None)
            stream.cancel()


class ServerChannel:
    """Stubs over a channel of one's own, without retries."""

    def __init__(self, address: str, secret: str = "") -> None:
        self._channel = ServerProcess.open_channel(address)
        self._secret = secret

    def __enter__(self) -> Stubs:
        return stubs_over(self._channel, self._secret) if self._secret else Stubs(self._channel)

    def __exit__(self, *_: object) -> None:
        self._channel.close()


class Load:
    """Several clients on one address, from start to verdict."""

    def __init__(
        self,
        address: str,
        directory: Path,
        rng: random.Random,
        *,
        streams: int = 3,
        unary: int = 3,
        secret: str = "",
    ) -> None:
        """`secret` is a tenant's key; none: the default tenant."""
        directory.mkdir(exist_ok=True)
        kinds = [StreamClient] * streams + [UnaryClient] * unary
        self.clients = [
            kind(address, f"{kind.__name__.lower()}-{number}", directory, rng.getrandbits(32), secret)
            for number, kind in enumerate(kinds)
        ]

    def __enter__(self) -> Self:
        for client in self.clients:
            client.start()
        return self

    def __exit__(self, *_: object) -> None:
        for client in self.clients:
            client.finish()

    @property
    def journals(self) -> list[Path]:
        return [client.path for client in self.clients]

    def last_answer(self) -> float:
        return max(client.last_answer for client in self.clients)

    def end_of_silence(self, since: float) -> float:
        """When the longest time without any answer ended: what was on its way at `since` may still come."""
        times = sorted(itertools.chain.from_iterable(client.answered_since(since) for client in self.clients))
        gaps = ((at - before, at) for before, at in itertools.pairwise([since, *times]))
        return max(gaps)[1]

    def settle(self, seconds: float = 60.0) -> None:
        """Stop sending anew; wait until everything sent is answered."""
        for client in self.clients:
            client.finish()
        deadline = time.monotonic() + seconds
        for client in self.clients:
            client.join(max(0.0, deadline - time.monotonic()))
            assert not client.is_alive(), f"{client.name} is still waiting for an answer"
            if client.failure is not None:
                raise client.failure

    def verdict(self, stubs: Stubs, *, ignore: str = "") -> dict[str, int]:
        """Fail on any contradiction; gives the figures. `ignore` is a subject that others used."""
        stored = [event for event in all_events(stubs) if event.subject != ignore]
        windows = [window for window in all_windows(stubs) if window.subject != ignore]
        found = problems(self.journals, stored, windows)
        assert not found, f"{len(found)} contradictions, first: {found[:5]}"
        return {"stored": len(stored), **summary(self.journals)}


def all_events(stubs: Stubs) -> list[Stored]:
    """Everything that ListEvents shows, page by page."""
    found = []
    request = usage_pb2.ListEventsRequest(page_size=1000)
    while True:
        page = stubs.usage.ListEvents(request)
        for one in page.events:
            text = one.event.properties["amount"]
            value = int(text) if text.isdigit() else None
            minute = one.event.time.seconds // 60
            found.append(Stored(one.event.id, one.event.subject, minute, value, one.position))
        if not page.next_page_token:
            return found
        request.page_token = page.next_page_token


def all_windows(stubs: Stubs, meter_key: str = METER) -> list[Window]:
    """Everything that the meter counts, by subject and minute."""
    found = []
    minute = int(time.time()) // 60
    request = usage_pb2.QueryUsageRequest(
        meter_key=meter_key,
        window_size=usage_pb2.WINDOW_SIZE_MINUTE,
        group_by=["subject"],
        page_size=10_000,
    )
    request.from_time.FromSeconds((minute - 1440) * 60)
    request.to_time.FromSeconds((minute + 10) * 60)
    while True:
        page = stubs.usage.QueryUsage(request)
        for row in page.rows:
            window = row.from_time.seconds // 60
            found.append(Window(row.group_values[0], window, int(row.value), row.event_count))
        if not page.next_page_token:
            return found
        request.page_token = page.next_page_token
