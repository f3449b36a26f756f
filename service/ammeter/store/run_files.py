"""The directory of an engine's files of identities.

They are a cache: whoever has none reads the segments. No two processes use
one directory, and no file of another database is looked at.
"""

import fcntl
import os
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import structlog

from ammeter.store import segments
from ammeter.store.db import Database

# Processes of one machine on one database: a writer and those that stand by.
_DIRECTORIES = 8

_log = structlog.get_logger()


class RunDirectory:
    """A directory that is ours until the process ends."""

    def __init__(self, path: Path, lock: int) -> None:
        """`lock`: the descriptor that holds the lock."""
        self.path = path
        self._lock = lock


def claim(db: Database, home: Path) -> RunDirectory | None:
    """Take a directory of this database's that no other process has; None if there is none to be had."""
    with db.engine() as conn:
        hash_key = segments.hash_key(conn)
    name = sha256(b"identities" + hash_key).hexdigest()[:16]
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = home.stat()
        if found.st_uid != os.geteuid() or found.st_mode & 0o022:
            _log.warning("identities stay in memory: their directory is not ours alone", directory=str(home))
            return None
        return _first_free([home / f"{name}-{number}" for number in range(_DIRECTORIES)])
    except OSError as error:
        _log.warning("identities stay in memory: no directory", directory=str(home), error=str(error))
        return None


def _first_free(directories: Sequence[Path]) -> RunDirectory | None:
    for directory in directories:
        directory.mkdir(mode=0o700, exist_ok=True)
        lock = os.open(directory / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            continue
        return RunDirectory(directory, lock)
    return None
