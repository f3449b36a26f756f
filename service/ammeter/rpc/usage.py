"""UsageService: events in, usage and events out."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from google.protobuf.duration_pb2 import Duration

from ammeter.domain import keys
from ammeter.domain.window import SIZES, minute_time
from ammeter.errors import (
    AmmeterError,
    InvalidInputError,
    RetryableError,
    UnavailableError,
    Violation,
    invalid,
)
from ammeter.rpc.convert import from_timestamp, to_decimal_text, to_timestamp, whole_minute
from ammeter.rpc.method import INGEST, READ, Caller, Method
from ammeter.rpc.paging import encode_token, fingerprint, natural, page_size, read_token
from ammeter.store import owners
from ammeter.store.db import Database
from ammeter.usecases import events, query
from ammeter.usecases.engine import Engine, Receipt, message_sequence
from ammeter.usecases.record import Intake
from ammeter.v1 import usage_pb2

_MAX_FILTER_VALUES = 1000
_MAX_US = 2**62
# Less than a key's revocation may take to be noticed.
_REAUTHENTICATE_SECONDS = 4.0


class UsageRpc:
    """Messages to and from the intake, the queries and the event search."""

    service = "ammeter.v1.UsageService"

    def __init__(
        self, db: Database, engine: Engine, intake: Intake, window_bytes: int, position_wait_seconds: float
    ) -> None:
        """`window_bytes` bounds what a stream may have unanswered."""
        self._db = db
        self._engine = engine
        self._intake = intake
        self._window_bytes = window_bytes
        self._wait_seconds = position_wait_seconds
        self._readers: set[asyncio.Task[None]] = set()

    def drain(self) -> None:
        """Stop reading streams: they answer what they have admitted and end with UNAVAILABLE."""
        for reader in self._readers:
            reader.cancel()

    def methods(self) -> list[Method]:
        """Every method of the service."""
        return [
            Method.raw("RecordUsage", INGEST, self.record),
            Method.raw_stream("StreamUsage", INGEST, self.stream),
            Method.plain("QueryUsage", READ, self.query),
            Method.plain("ListEvents", READ, self.list_events),
        ]

    async def record(self, caller: Caller, body: bytes) -> bytes:
        """Admit, wait until durable, answer."""
        receipt = await self._intake.admit(caller.tenant_id, body)
        future = self._intake.durable(receipt)
        if future is not None:
            await asyncio.shield(future)
        return self._intake.answer(caller.tenant_id, receipt)

    async def stream(
        self, authenticate: Callable[[], Awaitable[Caller]], bodies: AsyncIterator[bytes]
    ) -> AsyncIterator[bytes]:
        """Answer each message in order; read no further while too much is unanswered."""
        session = _StreamSession(self._intake, self._window_bytes)
        reader = asyncio.create_task(session.read(authenticate, bodies))
        guard = asyncio.create_task(_refused(authenticate))
        guard.add_done_callback(lambda _: reader.cancel())
        self._readers.add(reader)
        try:
            async for answer in session.answers():
                yield answer
            if reader.cancelled():
                if guard.done():
                    raise guard.result()
                message = "the server is stopping: open a new stream and send again what was not answered"
                raise UnavailableError(message, reason="NOT_SERVING", retry_seconds=0.2)
            await reader
        finally:
            self._readers.discard(reader)
            guard.cancel()
            reader.cancel()

    def query(
        self, caller: Caller, request: usage_pb2.QueryUsageRequest, _now: datetime
    ) -> usage_pb2.QueryUsageResponse:
        """Aggregate a meter."""
        wanted = _usage_query(request)
        mark = fingerprint(request)
        size = page_size(request.page_size, default=1000, maximum=10_000)
        after = read_token(request.page_token, mark, _row_key)
        if request.min_position:
            query.wait_for_position(self._engine, caller.tenant_id, request.min_position, self._wait_seconds)
        rows, following, position = query.usage_report(
            self._db, self._engine, caller.tenant_id, wanted, after, size
        )
        response = usage_pb2.QueryUsageResponse(position=position)
        for row in rows:
            response.rows.add(
                from_time=to_timestamp(minute_time(row.from_minute)),
                to_time=to_timestamp(minute_time(row.to_minute)),
                group_values=row.groups,
                value=None if row.value is None else to_decimal_text(row.value),
                event_count=row.event_count,
            )
        if following is not None:
            response.next_page_token = encode_token(mark, (following[0], *following[1]))
        return response

    def list_events(
        self, caller: Caller, request: usage_pb2.ListEventsRequest, _now: datetime
    ) -> usage_pb2.ListEventsResponse:
        """Find stored events, newest first."""
        mark = fingerprint(request)
        token = read_token(request.page_token, mark, _event_place)
        position = self._engine.position(caller.tenant_id)
        head, *before = token or (position, *events.NEWEST)
        found, following = events.find_events(
            self._db,
            self._engine,
            caller.tenant_id,
            _event_filter(request),
            (before[0], before[1]),
            page_size(request.page_size),
        )
        response = usage_pb2.ListEventsResponse(position=head)
        self._add_events(caller.tenant_id, found, response)
        if following is not None:
            response.next_page_token = encode_token(mark, (head, *following))
        return response

    def _add_events(
        self, tenant_id: int, found: list[events.FoundEvent], response: usage_pb2.ListEventsResponse
    ) -> None:
        parsed = [usage_pb2.UsageEvent.FromString(hit.event) for hit in found]
        with self._db.tenant(tenant_id) as tx:
            keys = owners.revision_keys(tx, {number for hit in found for number in hit.revision_ids})
            spans = owners.subject_owners(tx, {event.subject for event in parsed})
        for event, hit in zip(parsed, found, strict=True):
            delay = Duration()
            delay.FromMicroseconds(hit.recorded_us - hit.time_us)
            stored = response.events.add(
                position=hit.position,
                index=hit.place,
                content_digest=hit.digest,
                meter_keys=sorted(keys[number] for number in hit.revision_ids if number in keys),
                customer_key=events.owner_at(spans.get(event.subject, ()), hit.time_us),
                delay=delay,
            )
            stored.event.CopyFrom(event)
            stored.recorded_time.FromMicroseconds(hit.recorded_us)


async def _refused(authenticate: Callable[[], Awaitable[Caller]]) -> AmmeterError:
    """Wait until the caller of a stream, which may be idle, is not welcome any more; returns why."""
    while True:
        await asyncio.sleep(_REAUTHENTICATE_SECONDS)
        try:
            await authenticate()
        except RetryableError:
            continue
        except AmmeterError as error:
            return error


class _StreamSession:
    """One StreamUsage call: what was admitted and is not answered yet."""

    def __init__(self, intake: Intake, window_bytes: int) -> None:
        self._intake = intake
        self._window_bytes = window_bytes
        self._open: deque[tuple[int, Receipt, int, asyncio.Future[None] | None]] = deque()
        self._open_bytes = 0
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._ended = False

    async def read(self, authenticate: Callable[[], Awaitable[Caller]], bodies: AsyncIterator[bytes]) -> None:
        """Admit messages until the client closes its side, or one is refused."""
        sequence: int | None = None
        try:
            await authenticate()
            async for body in bodies:
                caller = await authenticate()
                number = message_sequence(body)
                if sequence is not None and number <= sequence:
                    why = f"is {number} after {sequence}: it must increase within a stream"
                    raise InvalidInputError([Violation("sequence", why)], reason="SEQUENCE_NOT_INCREASING")
                sequence = number
                receipt = await self._admit(caller.tenant_id, body)
                self._open.append((caller.tenant_id, receipt, len(body), self._intake.durable(receipt)))
                self._open_bytes += len(body)
                self._changed.set()
                if self._open_bytes >= self._window_bytes:
                    self._room.clear()
                    await self._room.wait()
        finally:
            self._ended = True
            self._changed.set()

    async def _admit(self, tenant_id: int, body: bytes) -> Receipt:
        # Back-pressure on a stream is not an error: it is simply not read.
        while True:
            try:
                return await self._intake.admit(tenant_id, body)
            except AmmeterError as error:
                if error.reason != "BACK_PRESSURE":
                    raise
                await asyncio.sleep(0.005)

    async def answers(self) -> AsyncIterator[bytes]:
        """Yield answers in order, until the reader has ended and all is answered."""
        while True:
            while self._open:
                tenant_id, receipt, size, future = self._open[0]
                if future is not None:
                    await asyncio.shield(future)
                self._open.popleft()
                self._open_bytes -= size
                if self._open_bytes < self._window_bytes:
                    self._room.set()
                yield self._intake.answer(tenant_id, receipt)
            if self._ended and not self._open:
                return
            self._changed.clear()
            if not self._ended:
                await self._changed.wait()


def _usage_query(request: usage_pb2.QueryUsageRequest) -> query.UsageQuery:
    from_time = from_timestamp(request.from_time, "from_time", present=request.HasField("from_time"))
    to_time = from_timestamp(request.to_time, "to_time", present=request.HasField("to_time"))
    if from_time is None or to_time is None:
        raise invalid("to_time" if from_time else "from_time", "is required: give the span to aggregate")
    from_minute, to_minute = whole_minute(from_time, "from_time"), whole_minute(to_time, "to_time")
    if to_minute <= from_minute:
        raise invalid("to_time", "must be after from_time; the span is [from_time, to_time)")
    if request.min_position < 0:
        raise invalid("min_position", "must not be negative")
    if not 0 <= request.window_size < len(SIZES):
        raise invalid("window_size", "is no WindowSize")
    for field in ("subjects", "customer_keys"):
        if len(getattr(request, field)) > _MAX_FILTER_VALUES:
            raise invalid(field, f"must be at most {_MAX_FILTER_VALUES}")
    return query.UsageQuery(
        meter_key=request.meter_key,
        from_minute=from_minute,
        to_minute=to_minute,
        size=SIZES[request.window_size],
        zone=_zone(request.time_zone),
        group_by=tuple(request.group_by),
        subjects=tuple(request.subjects),
        customer_keys=tuple(request.customer_keys),
        filters=tuple((f.dimension, tuple(f.values)) for f in request.filters),
        fill=request.fill,
    )


def _row_key(window: object, *groups: object) -> query.Key:
    return natural(window), tuple(str(value) for value in groups)


def _event_place(head: object, position: object, index: object) -> tuple[int, int, int]:
    return natural(head), natural(position), min(natural(index), events.NEWEST[1])


def _zone(name: str) -> ZoneInfo:
    violations = keys.time_zone("time_zone", name or keys.DEFAULT_ZONE)
    if violations:
        raise InvalidInputError(violations)
    return ZoneInfo(name or keys.DEFAULT_ZONE)


def _event_filter(request: usage_pb2.ListEventsRequest) -> events.EventFilter:
    from_time = from_timestamp(request.from_time, "from_time", present=request.HasField("from_time"))
    to_time = from_timestamp(request.to_time, "to_time", present=request.HasField("to_time"))
    return events.EventFilter(
        from_us=-_MAX_US if from_time is None else _microseconds(from_time),
        to_us=_MAX_US if to_time is None else _microseconds(to_time),
        event_type=request.type,
        subject=request.subject,
        event_id=request.id,
        source=request.source,
    )


def _microseconds(time: datetime) -> int:
    return (time - minute_time(0)) // timedelta(microseconds=1)
