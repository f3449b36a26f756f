"""The project keeps its own rules."""

import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = (".py", ".rs", ".sql", ".proto")
MAX_LINES = 400
MAX_README_WORDS = 900

# Character classes keep these patterns from finding themselves.
FORBIDDEN = {
    "the host of a package registry": re.compile(r"pypi[.]org|python[h]osted|(?:index|static)[.]crates[.]io"),
    "a path of somebody's machine": re.compile(r"(?<![\w.~-])/(?:home|Users|work|opt|root)/"),
}


def committed_files() -> Iterator[Path]:
    names = subprocess.check_output(["git", "ls-files", "-z"], cwd=ROOT, text=True)
    for name in names.split("\0"):
        path = ROOT / name
        if name and path.is_file():
            yield path


def dependencies() -> set[str]:
    """Names of everything we ask for by name, in Python and in Rust."""
    found = tomllib.loads((ROOT / "pyproject.toml").read_text())
    groups = [found["project"]["dependencies"], *found["dependency-groups"].values()]
    entries = [entry for group in groups for entry in group if isinstance(entry, str)]
    crate = tomllib.loads((ROOT / "native" / "Cargo.toml").read_text())
    return {
        *(re.split(r"[\[<>=~ ]", entry)[0] for entry in entries),
        *crate["dependencies"],
        *crate.get("dev-dependencies", {}),
    }


def test_every_dependency_has_its_sentence_and_licence() -> None:
    page = (ROOT / "docs" / "dependencies.md").read_text()
    rows = re.findall(r"^\| `([^`]+)` \| ([^|]+) \| [^|]+\. \|$", page, flags=re.MULTILINE)
    assert {name for name, _ in rows} == dependencies()


def test_every_locked_package_has_a_hash_and_nothing_says_where_it_comes_from() -> None:
    for lock in ("requirements.lock", "requirements-dev.lock"):
        text = (ROOT / lock).read_text()
        requirements = re.split(r"(?<!\\)\n(?! )", text)
        for requirement in requirements:
            if "==" in requirement:
                assert "--hash=sha256:" in requirement, requirement
        assert "://" not in text
        assert "--index" not in text


def test_no_file_grows_past_what_a_reader_holds() -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for path in committed_files()
        if path.suffix in SOURCES
        and not path.is_relative_to(ROOT / "tests")
        and not path.is_relative_to(ROOT / "native" / "tests")
        and not path.is_relative_to(ROOT / "service" / "ammeter" / "v1")
        and (lines := len(path.read_text().splitlines())) > MAX_LINES
    }
    assert not long


@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_file_names(what: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in committed_files()
        if path.name != "Cargo.lock"  # Cargo writes its registry's name into it
        and (match := FORBIDDEN[what].search(path.read_text(errors="ignore")))
    ]
    assert not found


def test_the_readme_is_read_in_five_minutes() -> None:
    assert len((ROOT / "README.md").read_text().split()) < MAX_README_WORDS


def test_every_command_of_the_makefile_explains_itself() -> None:
    listed = subprocess.check_output(["make", "help"], cwd=ROOT, text=True)
    for target in ("build", "run", "test", "check", "bench", "long", "proto", "lock", "docs", "clean"):
        assert re.search(rf"^{target} +\S", listed, flags=re.MULTILINE), target
