"""Points of the commit path, of checkpoints, packing and builds at which tests let things go wrong.

Nothing happens at them unless a plan is armed, which the settings allow only
in development and on an explicit word. A plan lists what happens where, and
when: "fold.before=die@3,append.after=lose@1,append.before=delay:500".

    die        the process ends at once, as if killed
    lose       the database is lost, whatever became of the statement before
    delay:MS   nothing moves on for so many milliseconds
    @N         only the Nth time the point is reached; without, each time
"""

import os
import re
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import psycopg
import structlog

from ammeter.errors import UnavailableError

EXIT_CODE = 86

_LOST = "lost on purpose"
_FORM = re.compile(r"([a-z.]+)=(die|lose|delay):?([0-9]*)(?:@([1-9][0-9]*))?")

_log = structlog.get_logger()


def _lose_driver() -> Exception:
    return psycopg.OperationalError(_LOST)


def _lose_transaction() -> Exception:
    return UnavailableError(_LOST)


# Every point, and how the database is lost there; None: nothing is asked of it there.
POINTS: dict[str, Callable[[], Exception] | None] = {
    "seal.after": None,
    "append.before": _lose_driver,
    "append.after": _lose_driver,
    "begin.before": _lose_driver,
    "begin.after": _lose_driver,
    "insert.before": _lose_driver,
    "insert.after": _lose_driver,
    "commit.before": _lose_driver,
    "commit.after": _lose_driver,
    "lookup.before": _lose_driver,
    "lookup.after": _lose_driver,
    "decide.before": _lose_driver,
    "decide.after": _lose_driver,
    "fold.before": None,
    "fold.after": None,
    "release.after": None,
    "freeze.after": None,
    "checkpoint.begun": _lose_transaction,
    "checkpoint.moved": _lose_transaction,
    "checkpoint.inserted": _lose_transaction,
    "checkpoint.after": _lose_transaction,
    "discard.after": None,
    "merge.taken": _lose_transaction,
    "merge.inserted": _lose_transaction,
    "merge.after": _lose_transaction,
    "pack.begun": _lose_transaction,
    "pack.taken": _lose_transaction,
    "pack.put": _lose_transaction,
    "pack.after": _lose_transaction,
    "build.begun": _lose_transaction,
    "activate.before": _lose_transaction,
    "activate.inserted": _lose_transaction,
    "activate.after": _lose_transaction,
}


class _Fault(NamedTuple):
    """What happens at a point; `when` 0: each time."""

    action: str
    milliseconds: int
    when: int


def _nothing(_point: str) -> None:
    """What a point does in production."""


reach: Callable[[str], None] = _nothing
"""Call it as `faults.reach(point)` where a test may want something to happen."""


def arm(plan: str) -> None:
    """Let a plan happen in this process; raises ValueError for what is none."""
    global reach  # noqa: PLW0603 - so that a point costs one empty call where nothing is armed
    faults: dict[str, list[_Fault]] = {}
    for entry in plan.split(","):
        found = _FORM.fullmatch(entry)
        point = found[1] if found else ""
        if found is None or point not in POINTS or (found[2] == "lose" and POINTS[point] is None):
            message = f"{entry!r} is no fault: give point=die, lose or delay:ms, such as fold.before=die@3"
            raise ValueError(message)
        faults.setdefault(point, []).append(_Fault(found[2], int(found[3] or 0), int(found[4] or 0)))
    counts: Counter[str] = Counter()
    lock = threading.Lock()

    def happen(point: str) -> None:
        with lock:
            counts[point] += 1
            due = [fault for fault in faults.get(point, ()) if fault.when in {0, counts[point]}]
        for fault in due:
            _happen(point, fault)

    _log.warning("faults are armed: this is a test", plan=plan)
    reach = happen


def _happen(point: str, fault: _Fault) -> None:
    _log.warning("fault", point=point, action=fault.action)
    if fault.action == "die":
        os._exit(EXIT_CODE)
    if fault.action == "delay":
        time.sleep(fault.milliseconds / 1000)
        return
    lost = POINTS[point]
    if lost is not None:
        raise lost()
