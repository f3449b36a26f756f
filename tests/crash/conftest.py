"""Servers and databases that are there to be killed."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ammeter.store.embedded import EmbeddedPostgres
from tests.serving import ServerProcess


@pytest.fixture
def server(new_database: Callable[[], str], tmp_path: Path) -> Iterator[ServerProcess]:
    """A server of one test, on a database of its own; always about to write a checkpoint."""
    with ServerProcess(new_database(), tmp_path, checkpoint_interval_seconds=0.05) as process:
        yield process


@pytest.fixture(scope="module")
def mortal_postgres(open_directory: Path, request: pytest.FixtureRequest) -> Iterator[EmbeddedPostgres]:
    """A Postgres that may be killed and frozen; as safe as in production, fsync and all."""
    directory = open_directory / request.module.__name__.rpartition(".")[2]
    with EmbeddedPostgres(directory, options={"shared_buffers": "64MB"}) as postgres:
        yield postgres
