"""The seeded defects: each a search and a replacement in one file of the product, and the test that notices.

A defect is a file `seeded/<name>.toml`: what, file, caught_by, before, after.
What came of trying it is in caught.json, written by `make defects`.
"""

import hashlib
import json
import tomllib
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "defects.md"
_HERE = Path(__file__).parent
_RESULTS = _HERE / "caught.json"

_HEAD = """# Seeded defects

Each of these breakages was put into a copy of the product, and the test named beside it failed; without
the breakage it passed. `make defects` does it all again, `make docs` writes this page anew. The breakages are
in `tests/defects/seeded/`; `make test` checks that each still applies to the tree.

| defect | what is broken | file | caught by | on |
| --- | --- | --- | --- | --- |
"""


@dataclass(frozen=True)
class Defect:
    """A breakage; `before` stands in `file` exactly once."""

    name: str
    what: str
    file: str
    caught_by: str
    before: str
    after: str

    @property
    def digest(self) -> str:
        """Changes when the defect or its test is another one."""
        text = json.dumps([self.file, self.caught_by, self.before, self.after])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def applied(self, source: str) -> str:
        """Give the broken source; raises ValueError where it does not apply."""
        before, after = self.before.rstrip("\n"), self.after.rstrip("\n")
        if source.count(before) != 1:
            message = (
                f"{self.name}: what it replaces is {source.count(before)} times in {self.file}, not once"
            )
            raise ValueError(message)
        return source.replace(before, after)


@dataclass(frozen=True)
class Result:
    """What came of trying a defect."""

    digest: str
    caught: bool
    date: str
    commit: str


def defects() -> list[Defect]:
    """All seeded defects, by name."""
    return [
        Defect(name=path.stem, **tomllib.loads(path.read_text()))
        for path in sorted(_HERE.glob("seeded/*.toml"))
    ]


def results() -> dict[str, Result]:
    """What is known of each defect, by name."""
    if not _RESULTS.exists():
        return {}
    return {name: Result(**found) for name, found in json.loads(_RESULTS.read_text()).items()}


def keep(found: dict[str, Result]) -> None:
    """Write results, and nothing of defects that are no more."""
    known = {defect.name for defect in defects()}
    rows = {name: asdict(result) for name, result in sorted(found.items()) if name in known}
    _RESULTS.write_text(json.dumps(rows, indent=1) + "\n")


def page() -> str:
    """Write docs/defects.md."""
    found = results()
    rows = []
    for defect in defects():
        result = found.get(defect.name)
        on = "not tried" if result is None else result.date if result.caught else "**not caught**"
        path, _, test = defect.caught_by.rpartition("::")
        rows.append(
            f"| {defect.name} | {defect.what} | `{defect.file}` | `{path}`: {test.replace('_', ' ')} | {on} |"
        )
    return _HEAD + "\n".join(rows) + "\n"
