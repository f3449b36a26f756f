"""What other processes of a benchmark cost: the CPU time of Postgres, and of those that make invoices."""

import contextlib
import os
import re
from pathlib import Path
from typing import NamedTuple

_KIB_OF_MIB = 1024


class Hands(NamedTuple):
    """The CPU time of the processes that make invoices, and what the largest of them held at most."""

    seconds: float
    mib: int


def hands_now() -> Hands:
    """Look at those of this process."""
    seconds, mib = 0.0, 0
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended
            if "ammeter.workers.hand" in (process / "cmdline").read_text():
                columns = (process / "stat").read_text().rpartition(")")[2].split()
                if int(columns[1]) == os.getpid():
                    seconds += (int(columns[11]) + int(columns[12])) / os.sysconf("SC_CLK_TCK")
                    held = re.search(r"VmHWM:\s*(\d+)", (process / "status").read_text())
                    mib = max(mib, int(held[1]) // _KIB_OF_MIB if held else 0)
    return Hands(seconds, mib)


def postgres_seconds(directory: str) -> float:
    """Add up the CPU time of the Postgres in a directory."""
    parents: dict[int, tuple[int, float]] = {}
    root = 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            columns = (process / "stat").read_text().rpartition(")")[2].split()
            words = (process / "cmdline").read_text().split("\0")
        except OSError:
            continue  # it has ended
        pid = int(process.name)
        parents[pid] = int(columns[1]), (int(columns[11]) + int(columns[12])) / os.sysconf("SC_CLK_TCK")
        if "postgres" in words[0] and any(directory in word for word in words):
            root = pid
    return sum(seconds for pid, (parent, seconds) in parents.items() if root in {pid, parent})
