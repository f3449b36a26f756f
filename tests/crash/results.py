"""Figures of long runs, kept as files when asked for.

AMMETER_TEST_RESULTS=1 keeps them in results/; AMMETER_TEST_SECONDS ends a
long test early: the figures say how far it came.
"""

import math
import os
import platform
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path

_DIRECTORY = Path(__file__).parent / "results"


def time_is_up() -> float:
    """When to end, by the monotonic clock."""
    return time.monotonic() + float(os.environ.get("AMMETER_TEST_SECONDS") or math.inf)


def publish(name: str, figure: str) -> None:
    """Print a figure and, if results are kept, write results/<name>-<date>.txt."""
    print(figure)  # noqa: T201 - the figure to publish
    if not os.environ.get("AMMETER_TEST_RESULTS"):
        return
    now = datetime.now(UTC)
    commit = subprocess.check_output(
        ["git", "rev-parse", "--short", "HEAD"], cwd=_DIRECTORY.parent, text=True
    )
    machine = f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()} {platform.release()}"
    lines = [
        figure,
        f"seed: {os.environ.get('AMMETER_TEST_SEED', 'not given')}",
        f"commit: {commit.strip()}",
        f"machine: {machine}; load average at the end {os.getloadavg()[0]:.1f}",
        f"date: {now:%Y-%m-%d %H:%M} UTC",
    ]
    _DIRECTORY.mkdir(exist_ok=True)
    (_DIRECTORY / f"{name}-{now:%Y-%m-%d}.txt").write_text("\n".join(lines) + "\n")
