"""How long a server takes from its start until it serves, with millions of events behind it."""

import shutil
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
    """Write history; start on it without a checkpoint, with one, with one but without files of identities."""
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

    found: dict[str, Any] = {"events": count}
    try:
        for name in ("without_checkpoint", "with_checkpoint", "without_files"):
            if name == "without_files":
                shutil.rmtree(server.identities)
            found[f"ready_seconds_{name}"] = server.start()
            with Client(server.address) as client:
                require_totals(client, kind, expected, sources)
            events, seconds = server.recovered()
            found[f"read_back_{name}"] = events
            found[f"events_per_second_{name}"] = events / seconds
            found[f"resident_mib_{name}"] = server.resident_bytes() / 2**20
            server.stop()
    finally:
        server.kill()
    return found
