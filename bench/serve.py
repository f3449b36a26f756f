"""The server as it is, with two handlers more: empty ones to compare with. Only for benchmarks.

Arguments are name=value, for bench.compare: switch_interval (seconds), gc (off: never collect).
"""

import gc
import sys

import grpc

from ammeter import server
from ammeter.config import Settings
from ammeter.rpc.bind import Router

EMPTY = "/ammeter.bench/Empty"
# As EMPTY, but its answer is as long as that to a check.
FILLED = "/ammeter.bench/Filled"


class _RouterWithEmpty(Router):
    def service(self, details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[bytes, bytes] | None":
        """Find an empty handler, or what the product finds."""
        if details.method in _HANDLERS:
            return _HANDLERS[details.method]
        return super().service(details)


async def _empty(body: bytes, _context: object) -> bytes:
    return body


async def _filled(_body: bytes, _context: object) -> bytes:
    return _ANSWER


_ANSWER = bytes(80)
_HANDLERS: "dict[str, grpc.RpcMethodHandler[bytes, bytes]]" = {
    EMPTY: grpc.unary_unary_rpc_method_handler(_empty),
    FILLED: grpc.unary_unary_rpc_method_handler(_filled),
}


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
