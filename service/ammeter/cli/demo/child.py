"""`ammeter serve` as a child process, from its start to its clean end."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from ammeter.errors import UnavailableError

_START_SECONDS = 90.0
_STOP_SECONDS = 30.0
_LOG_LINES = 15


@contextmanager
def server(address: str, log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a server while the block runs; its output goes to `log`.

    It gets a session of its own, so that a Ctrl-C reaches us alone and we end it in order.
    """
    command = [sys.executable, "-m", "ammeter.cli", "serve"]
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        child = subprocess.Popen(  # noqa: S603 - ourselves
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, "AMMETER_LISTEN": address},
        )
        try:
            yield child
        finally:
            stop(child)


def stop(child: "subprocess.Popen[bytes]") -> None:
    """Ask the server to drain and end; insist if it does not."""
    if child.poll() is not None:
        return
    child.send_signal(signal.SIGTERM)
    try:
        child.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def wait_until_serving(child: "subprocess.Popen[bytes]", address: str, log: Path) -> None:
    """Poll the server's health until it serves. Raises UnavailableError, with the end of the log."""
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if child.poll() is not None:
            raise UnavailableError(f"the server stopped with exit code {child.returncode}; {last_words(log)}")
        if is_serving(address):
            return
        time.sleep(0.1)
    raise UnavailableError(f"the server does not serve after {_START_SECONDS:.0f} s; {last_words(log)}")


def is_serving(address: str) -> bool:
    """Ask the health service once."""
    with grpc.insecure_channel(address) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=2)  # type: ignore[attr-defined] # made at run time
        except grpc.RpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def last_words(log: Path) -> str:
    """Return the end of the server's log, with where the rest is."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join([f"its log ({log}) ends with", *(f"  {line}" for line in lines[-_LOG_LINES:])])
