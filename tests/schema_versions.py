"""Versions of the program that differ in the schema they know: copies of the tree with migrations added."""

import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

_MIGRATION = '''"""Made by a test."""

from alembic import op

revision = "{revision}"
down_revision = "{before}"
branch_labels = None
depends_on = None
{still_serves}

def upgrade() -> None:
    {body}
'''


def copy_migrations(directory: Path) -> Path:
    """Copy what there is to a directory that must not exist; give it to `migrate` as scripts."""
    shutil.copytree(ROOT / "migrations", directory, ignore=shutil.ignore_patterns("__pycache__"))
    return directory


def copy_program(directory: Path) -> Path:
    """Copy the program and its migrations; gives the directory to put first on the module path."""
    shutil.copytree(
        ROOT / "service" / "ammeter",
        directory / "service" / "ammeter",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    copy_migrations(directory / "migrations")
    return directory / "service"


def add_migration(scripts: Path, name: str, body: str, *, still_serves: int | None = None) -> str:
    """Write the next migration; its body is indented by four spaces from its second line on."""
    before = max(int(path.name[:4]) for path in (scripts / "versions").glob("[0-9]*.py"))
    revision = f"{before + 1:04}"
    serves = "" if still_serves is None else f'still_serves = "{still_serves:04}"\n'
    text = _MIGRATION.format(revision=revision, before=f"{before:04}", still_serves=serves, body=body)
    (scripts / "versions" / f"{revision}_{name}.py").write_text(text)
    return revision
