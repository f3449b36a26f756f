"""How long a server takes from its start until it serves, with millions of events behind it."""

from pathlib import Path
from typing import Any

from ammeter.client import Client
from bench.child import Child
from bench.core import Core
from bench.kinds import LlmGateway
from bench.machine import Server
from bench.tenant import require_totals, set_up

_PER_SOURCE = 500_000


def measure(url: str, directory: Path, millions: int) -> dict[str, Any]:
    """Write history, start on it without a checkpoint, and once more with one."""
    directory.mkdir()
    kind = LlmGateway()
    server = Server(url, directory)
    server.start()
    with Client(server.address) as client:
        set_up(client)
    server.stop()
    sources = millions * 1_000_000 // _PER_SOURCE
    with Child(Core) as core:
        expected = core.ask("prepare", kind, _PER_SOURCE, 1)
        count = core.ask("history", url, sources)
    assert count == expected.accepted * sources
    try:
        cold = server.start()
        with Client(server.address) as client:
            require_totals(client, kind, expected, sources)
        resident = server.resident_bytes()
        server.stop()
        warm = server.start()
        with Client(server.address) as client:
            require_totals(client, kind, expected, sources)
    finally:
        server.kill()
    return {
        "events": count,
        "ready_seconds_without_checkpoint": cold,
        "ready_seconds_with_checkpoint": warm,
        "resident_mib": resident / 2**20,
    }
