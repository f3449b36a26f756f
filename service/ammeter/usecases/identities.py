"""Keep identities in files: what is old leaves memory, and a start need not read all segments."""

import threading
from collections.abc import Iterable

import structlog

from ammeter.usecases.engine import EngineError, Runs

_PLACE_SECONDS = 0.05

_log = structlog.get_logger()


def save_identities(
    runs: Runs, tenant_ids: Iterable[int], least: int, now_us: int, stopping: threading.Event
) -> None:
    """Write what no file of a tenant has, where that is at least `least` identities; merge files.

    Raises EngineError DAMAGED_RUN: a new engine makes up for the file.
    """
    for tenant_id in tenant_ids:
        try:
            _save(runs, tenant_id, least, stopping)
            while not stopping.is_set() and runs.merge(tenant_id, now_us):
                pass
        except EngineError as error:
            if error.reason != "DISK":
                raise
            _log.warning("identities stay in memory", tenant_id=tenant_id, error=error.message)


def _save(runs: Runs, tenant_id: int, least: int, stopping: threading.Event) -> None:
    draft = runs.save(tenant_id, least)
    if draft is None:
        return
    # A file has only what is durable: what came last may not be, yet.
    while not runs.place(draft):
        if stopping.wait(_PLACE_SECONDS):
            runs.give_up(draft)
            return


def move_out(runs: Runs, tenant_ids: Iterable[int], now_us: int) -> int:
    """Let memory go of what files have and is older than the hot span; returns how many identities.

    Raises EngineError DAMAGED_RUN.
    """
    moved = 0
    for tenant_id in tenant_ids:
        runs.expire(tenant_id, now_us)
        moved += runs.move_out(tenant_id, now_us)
    if moved:
        _log.info("old identities left memory", identities=moved)
    return moved
