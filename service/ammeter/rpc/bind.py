"""Turns Methods into gRPC handlers: authentication, decoding, errors, metrics.

A method that is not bound here does not exist: the router knows only methods
with a scope.
"""

import asyncio
import hashlib
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, NoReturn, Protocol, TypeAlias, TypeVar

import grpc
from google.protobuf import descriptor_pool
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from ammeter import metrics
from ammeter.domain.key import Caller
from ammeter.errors import AlreadyExistsError, InvalidInputError, UnavailableError, Violation, invalid
from ammeter.rpc.auth import Authenticator
from ammeter.rpc.method import Method, Run
from ammeter.rpc.status import public_error, status_of
from ammeter.rpc.text import refuse_nul
from ammeter.store import requests
from ammeter.store.db import Database, Tx

_STATUS_KEY = "grpc-status-details-bin"
MAX_REQUEST_ID = 128

# What kind of message a request is.
Decoded = TypeVar("Decoded", bound=Message)

Context = grpc.aio.ServicerContext[Any, Any]
# Generic in the stubs only.
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


class Service(Protocol):
    """A file of rpc/: its full name and its methods."""

    service: str

    def methods(self) -> list[Method]:
        """Every method of the service."""


class Router(grpc.GenericRpcHandler):
    """Finds handlers by path; answers NOT_SERVING while closed."""

    def __init__(self) -> None:
        """Start closed."""
        self._handlers: dict[str, Handler] = {}
        self._closed: dict[str, Handler] = {}
        self._why = "the server is starting: try again"

    def open(self, handlers: dict[str, Handler]) -> None:
        """Serve these from now on."""
        self._handlers = handlers

    def close(self, why: str) -> None:
        """Answer every call with UNAVAILABLE and `why` from now on."""
        self._why = why
        self._handlers = {}

    def service(self, details: grpc.HandlerCallDetails) -> "Handler | None":
        """Answer grpc's look-up."""
        handler = self._handlers.get(details.method)
        if handler is None and not self._handlers and details.method.startswith("/ammeter.v1."):
            # As a stream: it refuses calls of any kind, and those that send nothing, at once.
            return grpc.stream_stream_rpc_method_handler(self._refuse)
        return handler

    async def _refuse(self, _requests: AsyncIterator[bytes], context: Context) -> NoReturn:
        error = UnavailableError(self._why, reason="NOT_SERVING", retry_seconds=0.5)
        await abort(context, "refused", error)


async def abort(context: Context, path: str, error: BaseException) -> NoReturn:
    """End a call with the status that the error maps to."""
    public = public_error(error)
    code, status = status_of(public)
    metrics.RPCS.labels(path, code.name).inc()
    await context.abort(code, status.message, ((_STATUS_KEY, status.SerializeToString()),))


class Binder:
    """Makes handlers that share an authenticator, a database and a thread pool."""

    def __init__(
        self,
        auth: Authenticator,
        db: Database,
        pool: ThreadPoolExecutor,
        recheck: Callable[[], None],
        gate: Callable[[], None],
    ) -> None:
        """`recheck` makes memory follow commits nobody was told of; `gate` raises while it may be stale."""
        self._gate = gate
        self._recheck = recheck
        self._uncertain = threading.Event()
        self._auth = auth
        self._db = db
        self._pool = pool

    def bind(self, services: Iterable[Service]) -> dict[str, Handler]:
        """Make the handler of every method; raises LookupError for one the API does not declare."""
        handlers = {}
        for service in services:
            declared = descriptor_pool.Default().FindServiceByName(service.service)
            methods = {method.name: method for method in service.methods()}
            missing = {method.name for method in declared.methods} ^ methods.keys()
            if missing:
                message = f"{service.service}: declared and bound methods differ in {sorted(missing)}"
                raise LookupError(message)
            for descriptor in declared.methods:
                path = f"/{service.service}/{descriptor.name}"
                request = GetMessageClass(descriptor.input_type)
                handlers[path] = self._handler(methods[descriptor.name], path, request)
        return handlers

    def _handler(self, method: Method, path: str, request: type[Message]) -> Handler:
        if method.run is Run.RAW_STREAM:
            return grpc.stream_stream_rpc_method_handler(self._raw_stream(method, path))
        if method.run is Run.STREAM:
            return grpc.unary_stream_rpc_method_handler(self._stream(method, path, request))
        return grpc.unary_unary_rpc_method_handler(self._unary(method, path, request))

    def _unary(self, method: Method, path: str, request: type[Message]) -> Callable[..., Awaitable[bytes]]:
        answer = self._answer(method, path, request)
        seconds = metrics.RPC_SECONDS.labels(path)
        succeeded = metrics.RPCS.labels(path, grpc.StatusCode.OK.name)

        async def handle(body: bytes, context: Context) -> bytes:
            started = time.perf_counter()
            try:
                self._gate()
                caller = await self._auth.caller(context.invocation_metadata(), method.scope)
                response = await answer(caller, body)
            except Exception as error:  # noqa: BLE001 - whatever it is, the caller gets a status
                await abort(context, path, error)
            else:
                succeeded.inc()
                return response
            finally:
                seconds.observe(time.perf_counter() - started)

        return handle

    def _answer(
        self, method: Method, path: str, request: type[Message]
    ) -> Callable[[Caller, bytes], Awaitable[bytes]]:
        call = method.call

        async def direct(caller: Caller, body: bytes) -> bytes:
            response: Message = await call(caller, decode(request, body), datetime.now(UTC))
            return response.SerializeToString()

        def in_thread(caller: Caller, body: bytes) -> bytes:
            message, now = decode(request, body), datetime.now(UTC)
            if method.run is Run.PLAIN:
                plain: Message = call(caller, message, now)
                return plain.SerializeToString()
            if method.run is Run.WRITE:
                return self._write(caller, path, message, now, call)
            with self._db.tenant(caller.tenant_id) as tx:
                found: Message = call(tx, message, now)
                return found.SerializeToString()

        async def threaded(caller: Caller, body: bytes) -> bytes:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._pool, in_thread, caller, body)

        return {Run.RAW: call, Run.DIRECT: direct}.get(method.run, threaded)

    def _write(
        self, caller: Caller, path: str, message: Message, now: datetime, call: Callable[..., Message]
    ) -> bytes:
        if self._uncertain.is_set():
            self._recheck()
            self._uncertain.clear()
        try:
            with self._db.tenant(caller.tenant_id) as tx:
                return once(tx, path, message, now, lambda: call(tx, message, now))
        except UnavailableError:
            # It may have been committed all the same, unseen by memory; a
            # repeat would get the stored answer before memory knows.
            self._uncertain.set()
            raise

    def _stream(
        self, method: Method, path: str, request: type[Message]
    ) -> Callable[[bytes, Context], AsyncIterator[bytes]]:
        async def handle(body: bytes, context: Context) -> AsyncIterator[bytes]:
            try:
                caller = await self._auth.caller(context.invocation_metadata(), method.scope)
                items: Iterator[Message] = method.call(caller, decode(request, body), datetime.now(UTC))
                loop = asyncio.get_running_loop()
                while (item := await loop.run_in_executor(self._pool, next, items, None)) is not None:
                    yield item.SerializeToString()
            except Exception as error:  # noqa: BLE001 - whatever it is, the caller gets a status
                await abort(context, path, error)
            metrics.RPCS.labels(path, grpc.StatusCode.OK.name).inc()

        return handle

    def _raw_stream(self, method: Method, path: str) -> Callable[..., AsyncIterator[bytes]]:
        async def handle(bodies: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
            metadata = context.invocation_metadata()
            try:
                async for answer in method.call(lambda: self._auth.caller(metadata, method.scope), bodies):
                    yield answer
            except Exception as error:  # noqa: BLE001 - whatever it is, the caller gets a status
                await abort(context, path, error)
            metrics.RPCS.labels(path, grpc.StatusCode.OK.name).inc()

        return handle


def decode(request: type[Decoded], body: bytes) -> Decoded:
    """Parse a request; raises InvalidInputError (MALFORMED_REQUEST, or a text with NUL)."""
    try:
        message = request.FromString(body)
    except DecodeError as error:
        why = f"is not a valid {request.DESCRIPTOR.full_name}: check the client's encoding and its UTF-8"
        raise InvalidInputError([Violation("request", why)], reason="MALFORMED_REQUEST") from error
    refuse_nul(message, body)
    return message


def once(tx: Tx, path: str, request: Message, now: datetime, run: Callable[[], Message]) -> bytes:
    """Run a mutation, or give the first answer when its request_id was used before."""
    request_id: str = getattr(request, "request_id", "")
    if not request_id:
        return run().SerializeToString()
    if len(request_id) > MAX_REQUEST_ID or "\0" in request_id:
        raise invalid("request_id", f"must be at most {MAX_REQUEST_ID} characters, without NUL")
    digest = hashlib.sha256(request.SerializeToString(deterministic=True)).digest()
    before = requests.lock_and_find(tx, request_id)
    if before is not None:
        if (before.method, before.content_digest) != (path, digest):
            message = f"request_id {request_id!r} was used with other content: use a new one"
            raise AlreadyExistsError(message, reason="REQUEST_ID_CONFLICT", field="request_id")
        return before.response
    response = run().SerializeToString()
    requests.remember(tx, request_id, requests.Answered(path, digest, response), now)
    return response
