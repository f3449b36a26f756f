"""The server as it is, with one handler more: an empty one to compare with. Only for benchmarks.

Arguments are name=value, for bench.compare: switch_interval (seconds), gc (off: never collect).
"""

import gc
import sys

import grpc

from ammeter import server
from ammeter.config import Settings
from ammeter.rpc.bind import Router

EMPTY = "/ammeter.bench/Empty"


class _RouterWithEmpty(Router):
    def service(self, details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[bytes, bytes] | None":
        """Find the empty handler, or what the product finds."""
        if details.method == EMPTY:
            return _HANDLER
        return super().service(details)


async def _empty(body: bytes, _context: object) -> bytes:
    return body


_HANDLER: "grpc.RpcMethodHandler[bytes, bytes]" = grpc.unary_unary_rpc_method_handler(_empty)


def _tune(name: str, value: str) -> None:
    if name == "switch_interval":
        sys.setswitchinterval(float(value))
    elif name == "gc" and value == "off":
        gc.disable()
    else:
        raise SystemExit(f"{name}={value} is not known")


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        _tune(*argument.split("=", 1))
    vars(server)["Router"] = _RouterWithEmpty  # the one thing that differs
    server.serve(Settings())
