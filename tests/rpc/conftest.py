"""A server over the wire, with a database of its own."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.serving import ServerProcess, Stubs


@pytest.fixture(scope="module")
def server(
    new_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """A running server on a fresh, migrated database; shared by the tests of one module."""
    directory: Path = tmp_path_factory.mktemp("server")
    with ServerProcess(new_database(), directory) as process:
        yield process


@pytest.fixture(scope="module")
def stubs(server: ServerProcess) -> Stubs:
    """Stubs of every service, calling without a key as the default tenant."""
    return server.stubs()
