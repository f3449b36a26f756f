"""The operating system's account that runs the embedded Postgres.

Postgres refuses to run as root, so root hands it to an ordinary account; that
account may be unable to enter directories that root works in. What it can
reach is found out by trying, as permission bits do not tell all.
"""

import os
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from pwd import getpwnam, getpwuid
from typing import IO, Final, Self

from ammeter.errors import InternalError

PREFERRED: Final = ("ammeter", "postgres", "nobody")
"""Accounts that root may use; the first one that exists is taken."""

# Nothing of our own environment (PG*, LD_*, locale) has a say in how Postgres runs.
_ENVIRONMENT: Final = {"PATH": os.defpath, "LC_ALL": "C"}


class Detached(subprocess.Popen[bytes]):
    """A process that may outlive us: Popen would warn when it does."""

    def __del__(self) -> None:
        """Leave it alone."""


@dataclass(frozen=True)
class Account:
    """An account, and what can be done as it."""

    name: str
    uid: int
    gid: int

    @classmethod
    def by_uid(cls, uid: int) -> Self:
        """Look the account up; Postgres, too, insists that it has a name."""
        try:
            entry = getpwuid(uid)
        except KeyError:
            message = f"user id {uid} has no account, which Postgres needs: add one to /etc/passwd"
            raise InternalError(message) from None
        return cls(entry.pw_name, entry.pw_uid, entry.pw_gid)

    @classmethod
    def own(cls) -> Self:
        """Return who we are, or for root whom it uses."""
        if not is_root():
            return cls.by_uid(os.geteuid())
        for name in PREFERRED:
            try:
                return cls.by_uid(getpwnam(name).pw_uid)
            except KeyError:
                continue
        message = f"Postgres does not run as root: add one of the accounts {', '.join(PREFERRED)}"
        raise InternalError(message)

    def give(self, paths: Iterable[Path]) -> None:
        """Make it the owner of what we made."""
        if is_root():
            for path in paths:
                os.chown(path, self.uid, self.gid, follow_symlinks=False)

    def can_enter(self, directory: Path) -> bool:
        """Try to change into a directory."""
        return self.run(["/bin/sh", "-c", 'cd "$1"', "sh", str(directory)])[0] == 0

    def can_execute(self, binary: Path) -> bool:
        """Try to run a program."""
        try:
            return self.run([str(binary), "--version"])[0] == 0
        except PermissionError:
            return False

    def run(self, command: Sequence[str]) -> tuple[int, str]:
        """Run a command to its end; return its exit status and all it printed."""
        with self.launch(command, subprocess.PIPE) as process:
            output, _ = process.communicate()
        return process.returncode, output.decode(errors="replace").strip()

    def launch(self, command: Sequence[str], output: IO[bytes] | int) -> Detached:
        """Start a program in a session of its own, out of reach of our terminal's Ctrl-C."""
        return Detached(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd="/",  # ours may be closed to it
            env=_ENVIRONMENT,
            umask=0o077,
            start_new_session=True,
            user=self.uid if is_root() else None,
            group=self.gid if is_root() else None,
            extra_groups=[] if is_root() else None,
        )


def is_root() -> bool:
    """Tell whether we may, and must, drop privileges."""
    return os.geteuid() == 0
