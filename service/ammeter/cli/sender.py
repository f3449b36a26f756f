"""Sends batches of events over StreamUsage until every one of them is answered.

A bounded window of batches is under way. When the stream breaks, a new one
begins with what was not answered: the server counts no event twice, so this
is always right, however much of it had already arrived.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from queue import SimpleQueue

import grpc
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_delay, wait_exponential_jitter

from ammeter.cli.failure import call_of, read_failure
from ammeter.v1.usage_pb2 import StreamUsageRequest, StreamUsageResponse, UsageEvent
from ammeter.v1.usage_pb2_grpc import UsageServiceStub

WINDOW = 16
GIVE_UP_SECONDS = 60.0
_RETRYABLE = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.CANCELLED,  # we never cancel: a server that stops does
    }
)


class StreamEndedError(Exception):
    """The server closed a stream with OK before it had answered everything."""


@dataclass(frozen=True)
class Batch:
    """Events with the line number of each, and the offset in the input after the last."""

    events: Sequence[UsageEvent]
    numbers: Sequence[int]
    end: int


class Sender:
    """One run over `batches`, where a None says that nothing is to be sent for now.

    `answered` hears of each batch, `waiting` of each pause.
    """

    def __init__(
        self,
        stub: UsageServiceStub,
        batches: Iterator[Batch | None],
        *,
        answered: Callable[[Batch, StreamUsageResponse], None],
        waiting: Callable[[str, float], None],
        give_up_seconds: float = GIVE_UP_SECONDS,
    ) -> None:
        self._stub = stub
        self._batches = batches
        self._answered = answered
        self._waiting = waiting
        self._give_up_seconds = give_up_seconds
        self._unanswered: OrderedDict[int, Batch] = OrderedDict()
        self._next_sequence = 1
        self._exhausted = False

    def run(self) -> None:
        """Send everything; raises the last grpc.RpcError after `give_up_seconds` without an answer."""
        while not self._done():
            retrying = Retrying(
                retry=retry_if_exception(_may_pass),
                stop=stop_after_delay(self._give_up_seconds),
                wait=wait_exponential_jitter(initial=0.2, max=5.0, jitter=0.2),
                before_sleep=self._say_waiting,
                reraise=True,
            )
            retrying(self._stream_once)

    def _done(self) -> bool:
        return self._exhausted and not self._unanswered

    def _stream_once(self) -> None:
        """Run one stream; return early if it broke after some progress, so that patience starts anew."""
        requests: SimpleQueue[StreamUsageRequest | None] = SimpleQueue()
        for sequence, batch in self._unanswered.items():
            requests.put(StreamUsageRequest(sequence=sequence, events=batch.events))
        responses = self._stub.StreamUsage(iter(requests.get, None))
        progress = False
        try:
            while self._fill(requests):
                self._take(next(responses, None))
                progress = True
            requests.put(None)
            for _ in responses:  # the end of the stream: everything has been answered
                pass
        except (grpc.RpcError, StreamEndedError) as error:
            if not (progress and _may_pass(error)):
                raise
        finally:
            requests.put(None)  # frees the thread that gRPC reads our requests with
            responses.cancel()

    def _fill(self, requests: "SimpleQueue[StreamUsageRequest | None]") -> bool:
        """Put batches under way up to the window; say whether an answer must come now."""
        while len(self._unanswered) < WINDOW:
            try:
                batch = next(self._batches)
            except StopIteration:
                self._exhausted = True
                return bool(self._unanswered)
            if batch is None:
                if self._unanswered:
                    return True
                continue
            self._unanswered[self._next_sequence] = batch
            requests.put(StreamUsageRequest(sequence=self._next_sequence, events=batch.events))
            self._next_sequence += 1
        return True

    def _take(self, answer: StreamUsageResponse | None) -> None:
        if answer is None:
            raise StreamEndedError("the server ended the stream")
        self._answered(self._unanswered.pop(answer.sequence), answer)

    def _say_waiting(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        seconds = state.next_action.sleep if state.next_action else 0.0
        why = read_failure(error).message if isinstance(error, grpc.RpcError) else str(error)
        self._waiting(why, float(seconds))


def _may_pass(error: BaseException) -> bool:
    call = call_of(error)
    return call.code() in _RETRYABLE if call else isinstance(error, StreamEndedError)
