"""How soon a process that stood by serves after the writer's death, with millions of events behind it.

`python -m bench.standby [MILLIONS]` prints the seconds of a cold start without
and with a checkpoint, and those of the change; nothing else should be running.
"""

import argparse
import shutil
import tempfile
import threading
import time
from pathlib import Path

from ammeter.client import Client
from bench.child import Child
from bench.core import Core
from bench.kinds import LlmGateway
from bench.machine import Server, load_average, new_database, postgres
from bench.tenant import require_totals, set_up

_PER_SOURCE = 500_000
_POLL_SECONDS = 0.02


def measure(url: str, directory: Path, millions: int) -> dict[str, float]:
    """Write history, start on it, stand by, kill the writer."""
    kind = LlmGateway()
    writer, other = Server(url, directory / "a"), Server(url, directory / "b")
    for one in (writer, other):
        one.log.parent.mkdir(parents=True)
    writer.start()
    with Client(writer.address) as client:
        set_up(client)
    writer.stop()
    sources = millions * 1_000_000 // _PER_SOURCE
    with Child(Core) as core:
        expected = core.ask("prepare", kind, _PER_SOURCE, 1)
        core.ask("history", url, sources)
    try:
        cold = writer.start()
        writer.stop()
        checkpointed = writer.start()
        waiting = threading.Thread(target=other.start)
        waiting.start()
        while not other.log.exists() or "identities are known" not in other.log.read_text():
            time.sleep(_POLL_SECONDS)
        writer.kill()
        killed = time.monotonic()
        waiting.join()
        changed = time.monotonic() - killed
        with Client(other.address) as client:
            require_totals(client, kind, expected, sources)
    finally:
        writer.kill()
        other.kill()
    return {
        "cold start without checkpoint": cold,
        "cold start with checkpoint": checkpointed,
        "change of the writer": changed,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.standby", description=__doc__)
    parser.add_argument("millions", type=int, nargs="?", default=10, help="events in history, in millions")
    millions = parser.parse_args().millions
    directory = Path(tempfile.mkdtemp(prefix="ammeter-standby-"))
    directory.chmod(0o711)  # Postgres may run as another account
    before = load_average()
    try:
        with postgres(directory) as running:
            found = measure(new_database(running.url, "standby"), directory, millions)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    for what, seconds in found.items():
        print(f"{what}: {seconds:.2f} s at {millions} M events")
    print(f"load before {before:.1f}, after {load_average():.1f}")


if __name__ == "__main__":
    main()
