"""A network that can be told to fail: cut, stall, reset, half-open; over TCP or Unix sockets.

with FaultProxy(target) as proxy:     # "host:port", or the path of a socket
    client.connect(proxy.address)     # a path, too, if it was given one to listen on
    proxy.stall()                     # nothing arrives any more, either way
    proxy.mend()                      # as new; what was held back arrives
"""

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Self

_BUFFER = 65_536
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)

Ends = tuple[asyncio.StreamWriter, asyncio.StreamWriter]


class FaultProxy:
    """Forwards connections; runs in a thread of its own, its methods may be called from any."""

    def __init__(self, target: str | Path, listen: Path | None = None) -> None:
        self.connections = 0
        self._target = target
        self._listen = listen
        self._loop = asyncio.new_event_loop()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._open: set[Ends] = set()
        self._server: asyncio.Server | None = None
        self._dead: set[asyncio.StreamWriter] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self.address = ""

    def __enter__(self) -> Self:
        self._thread.start()
        self.address = asyncio.run_coroutine_threadsafe(self._serve(), self._loop).result()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._finish(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def cut(self) -> None:
        """Close all connections in order; new ones are served."""
        self._do(lambda: self._end(reset=False))

    def reset(self) -> None:
        """Close all connections with RST: what is in flight is lost."""
        self._do(lambda: self._end(reset=True))

    def stall(self) -> None:
        """Let nothing pass, on connections old and new, until it is mended."""
        self._do(self._flowing.clear)

    def half_open(self) -> None:
        """The far side is gone, and those who connected do not notice until it is mended."""
        self._do(self._lose_far_sides)

    def mend(self) -> None:
        """Let everything pass again; whoever was left half-open gets a reset."""
        self._do(self._mend)

    def _do(self, action: Callable[[], object]) -> None:
        async def act() -> None:
            action()

        asyncio.run_coroutine_threadsafe(act(), self._loop).result()

    async def _serve(self) -> str:
        if self._listen is not None:
            self._server = await asyncio.start_unix_server(self._accept, self._listen)
            return str(self._listen)
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _finish(self) -> None:
        if self._server is not None:
            self._server.close()
        self._mend()
        self._end(reset=True)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _accept(self, near_reader: asyncio.StreamReader, near: asyncio.StreamWriter) -> None:
        await self._flowing.wait()
        try:
            if isinstance(self._target, Path):
                far_reader, far = await asyncio.open_unix_connection(self._target)
            else:
                host, _, port = self._target.rpartition(":")
                far_reader, far = await asyncio.open_connection(host, int(port))
        except OSError:
            near.close()
            return
        self.connections += 1
        ends = (near, far)
        self._open.add(ends)
        await asyncio.gather(self._forward(near_reader, far, near), self._forward(far_reader, near, far))
        self._open.discard(ends)

    async def _forward(
        self, reader: asyncio.StreamReader, to: asyncio.StreamWriter, source: asyncio.StreamWriter
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_BUFFER):
                await self._flowing.wait()
                if to in self._dead:
                    return
                to.write(data)
                await to.drain()
        if to not in self._dead and source not in self._dead:
            to.close()

    def _end(self, *, reset: bool) -> None:
        for ends in self._open:
            for end in ends:
                _close(end, reset=reset)

    def _lose_far_sides(self) -> None:
        for near, far in self._open:
            self._dead.add(near)
            self._dead.add(far)
            _close(far, reset=True)

    def _mend(self) -> None:
        for end in self._dead:
            _close(end, reset=True)
        self._dead.clear()
        self._flowing.set()


def _close(end: asyncio.StreamWriter, *, reset: bool) -> None:
    if end.transport.is_closing():
        return
    if reset and end.get_extra_info("socket").family == socket.AF_INET:
        end.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    if reset:
        end.transport.abort()
    else:
        end.close()
