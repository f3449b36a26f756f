"""What an RPC is to the server: a name, the scope it needs, and how to run it."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any

from google.protobuf.message import Message

from ammeter.domain.key import ADMIN, CHECK, INGEST, READ, Caller
from ammeter.store.db import Tx

__all__ = ["ADMIN", "CHECK", "INGEST", "READ", "Caller", "Method", "Run"]


class Run(Enum):
    """Where and how a method's function runs."""

    READ = "read"
    WRITE = "write"
    PLAIN = "plain"
    DIRECT = "direct"
    STREAM = "stream"
    RAW = "raw"
    RAW_STREAM = "raw_stream"


@dataclass(frozen=True)
class Method:
    """One RPC. Made by the constructors below, one for each way to run."""

    name: str
    scope: str
    run: Run
    call: Callable[..., Any]

    @classmethod
    def read(cls, name: str, scope: str, call: Callable[[Tx, Any, datetime], Message]) -> "Method":
        """Run in a worker thread, in a transaction of the caller's tenant."""
        return cls(name, scope, Run.READ, call)

    @classmethod
    def write(cls, name: str, scope: str, call: Callable[[Tx, Any, datetime], Message]) -> "Method":
        """As read; and a repeat of its request_id returns the first answer."""
        return cls(name, scope, Run.WRITE, call)

    @classmethod
    def plain(cls, name: str, scope: str, call: Callable[[Caller, Any, datetime], Message]) -> "Method":
        """Run in a worker thread; it opens its own transactions."""
        return cls(name, scope, Run.PLAIN, call)

    @classmethod
    def direct(
        cls, name: str, scope: str, call: Callable[[Caller, Any, datetime], Awaitable[Message]]
    ) -> "Method":
        """Run on the event loop; it must not block."""
        return cls(name, scope, Run.DIRECT, call)

    @classmethod
    def stream(
        cls, name: str, scope: str, call: Callable[[Caller, Any, datetime], Iterator[Message]]
    ) -> "Method":
        """Iterate in a worker thread; each item is one response."""
        return cls(name, scope, Run.STREAM, call)

    @classmethod
    def raw(cls, name: str, scope: str, call: Callable[[Caller, bytes], Awaitable[bytes]]) -> "Method":
        """Run on the event loop, bytes in and bytes out."""
        return cls(name, scope, Run.RAW, call)

    @classmethod
    def raw_stream(
        cls,
        name: str,
        scope: str,
        call: Callable[[Callable[[], Awaitable[Caller]], AsyncIterator[bytes]], AsyncIterator[bytes]],
    ) -> "Method":
        """Run on the event loop, a stream of bytes in and one out.

        The function gets a way to authenticate again (cheap, cached), so that
        a key revoked meanwhile ends the stream.
        """
        return cls(name, scope, Run.RAW_STREAM, call)
