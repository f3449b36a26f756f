"""AccessService: access over streams."""

from collections.abc import AsyncIterator

from ammeter.errors import AmmeterError
from ammeter.rpc.check_wire import (
    WAIT_SECONDS,
    answer_all,
    decode_stream,
    fault,
    framed,
    position_field,
    require_increase,
    sequence_field,
)
from ammeter.rpc.entitlement_messages import read_check
from ammeter.rpc.method import CHECK, Method
from ammeter.rpc.streams import Authenticate, Streams
from ammeter.rpc.text import refuse_nul
from ammeter.rpc.watch import watch_access
from ammeter.usecases.live import Live
from ammeter.usecases.watch import Watch


class AccessRpc:
    """The service; checks wait up to `wait_seconds` for a min_position."""

    service = "ammeter.v1.AccessService"

    def __init__(
        self, live: Live, streams: Streams, watch: Watch, wait_seconds: float = WAIT_SECONDS
    ) -> None:
        """Answer from `live`; `streams` ends what is open when the server stops."""
        self._watch = watch
        self._live = live
        self._streams = streams
        self._wait_seconds = wait_seconds

    def methods(self) -> list[Method]:
        """List the RPCs."""
        return [
            Method.raw_stream("StreamChecks", CHECK, self.stream),
            Method.raw_stream("WatchAccess", CHECK, self.watch),
        ]

    async def watch(self, authenticate: Authenticate, bodies: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Send answers as they change."""
        async with self._streams.open(authenticate) as caller:
            body = await anext(aiter(bodies), b"")
            async for response in watch_access(self._live, self._watch, caller, body):
                yield response

    async def stream(self, authenticate: Authenticate, bodies: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Answer checks one after the other; the next is read when an answer was taken."""
        last: int | None = None
        async with self._streams.open(authenticate):
            async for body in bodies:
                caller = await authenticate()
                request = decode_stream(body)
                try:
                    require_increase(request.sequence, last)
                    last = request.sequence
                    refuse_nul(request, body)
                    asked, violations = read_check(request.check, "check")
                    accesses, position = await answer_all(
                        self._live, caller, (asked,), violations, request.min_position, self._wait_seconds
                    )
                except AmmeterError as error:
                    yield fault(request.sequence, error)
                    continue
                rule = self._live.fail_rule(caller.tenant_id, asked.feature_key)
                yield framed(accesses[0], rule) + position_field(position) + sequence_field(request.sequence)
