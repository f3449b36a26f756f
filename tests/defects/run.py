"""Puts seeded defects into a copy of the tree, one at a time, and sees whether their tests notice."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from tests.defects import catalog
from tests.defects.catalog import ROOT, Defect, Result

_SECONDS = 3600
_PYTEST = (
    *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "--no-header"),
    *("-m", "long or not long"),
)


@contextmanager
def copy_of_the_tree() -> Iterator[Path]:
    """Copy all files that are, or may come, under version control, and the compiled core."""
    with tempfile.TemporaryDirectory(prefix="ammeter-defects-") as name:
        # Postgres runs as another account and has to be able to enter.
        Path(name).chmod(0o755)
        files = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.check_output(files, cwd=ROOT, text=True).split("\0")
        compiled = [str(path.relative_to(ROOT)) for path in ROOT.glob("service/ammeter/_native*.so")]
        for one in (*listed, *compiled):
            if one and (ROOT / one).is_file():
                target = Path(name, one)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / one, target)
        yield Path(name)


def passing(tree: Path, tests: Iterable[str]) -> set[str]:
    """Run tests on a sound tree, those of Python in one go; returns which pass."""
    wanted = set(tests)
    python = sorted(test for test in wanted if ".py::" in test)
    said = _run(tree, [*_PYTEST, "-rA", *python]).stdout if python else ""
    good, bad = (
        {line.split()[1].partition("[")[0] for line in said.splitlines() if line.startswith(words)}
        for words in (("PASSED ",), ("FAILED ", "ERROR "))
    )
    return (good - bad) | {test for test in wanted - set(python) if passes(tree, test)}


def passes(tree: Path, test: str) -> bool:
    """Run one test on a tree; raises RuntimeError when it did not even run."""
    done = _run(tree, [*_PYTEST, "-x", test] if ".py::" in test else _cargo_command(test))
    said = done.stdout + done.stderr
    ran = any(word in said for word in (" passed", " failed", " error", "panicked"))
    if not ran or "could not compile" in said:
        message = f"{test} did not run:\n{said[-2000:]}"
        raise RuntimeError(message)
    return done.returncode == 0


def _run(tree: Path, command: Sequence[str]) -> "subprocess.CompletedProcess[str]":
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("AMMETER_")},
        "PYTHONPATH": f"{tree / 'service'}:{tree}",
        # A file that is broken and mended within a second must not be taken for its former self.
        "PYTHONDONTWRITEBYTECODE": "1",
        "CARGO_TARGET_DIR": str(ROOT / "target" / "defects"),
        "PYO3_PYTHON": sys.executable,
    }
    return subprocess.run(
        command, cwd=tree, env=environment, capture_output=True, text=True, timeout=_SECONDS, check=False
    )


def _cargo_command(test: str) -> list[str]:
    path, _, name = test.partition("::")
    target = ["--lib"] if path.startswith("native/src/") else ["--test", Path(path).parent.name]
    return ["cargo", "test", "-p", "ammeter-native", "--no-default-features", *target, name]


@contextmanager
def broken(tree: Path, defect: Defect) -> Iterator[None]:
    """Put a defect in, and take it out again."""
    path = tree / defect.file
    source = path.read_text()
    path.write_text(defect.applied(source))
    try:
        yield
    finally:
        path.write_text(source)


def main(names: Sequence[str]) -> int:
    """Try the defects named, or all; keep and print the results."""
    wanted = [defect for defect in catalog.defects() if not names or defect.name in names]
    commit = subprocess.check_output(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, text=True).strip()
    failures = 0
    with copy_of_the_tree() as tree:
        sound = passing(tree, {defect.caught_by for defect in wanted})
        for defect in wanted:
            test = defect.caught_by
            with broken(tree, defect):
                caught = test in sound and not passes(tree, test)
            word = "caught" if caught else "NOT CAUGHT" if test in sound else "its test fails without it"
            print(f"{defect.name}: {word}", flush=True)  # noqa: T201 - the product of this program
            failures += not caught
            date = datetime.now(UTC).date().isoformat()
            found = catalog.results()
            catalog.keep(found | {defect.name: Result(defect.digest, caught, date, commit)})
    catalog.PAGE.write_text(catalog.page())
    return failures
