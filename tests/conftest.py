"""What every folder of tests may ask for: a Postgres, a database, random numbers, real data."""

import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

# gRPC's handlers can crash the child when Postgres is started while calls are under way.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")


import psycopg
import pytest
from hypothesis import settings

from ammeter.store.embedded import EmbeddedPostgres
from ammeter.store.migrate import migrate

# A failure prints how to repeat it; nothing is derandomized, so that every run looks elsewhere.
settings.register_profile("ammeter", print_blob=True, derandomize=False, deadline=None)
settings.load_profile("ammeter")


@pytest.fixture(scope="session")
def open_directory() -> Iterator[Path]:
    """A directory that every account can enter (pytest's own are closed to others)."""
    path = Path(tempfile.mkdtemp(prefix="ammeter-test-"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="session")
def postgres(open_directory: Path) -> Iterator[EmbeddedPostgres]:
    """A running server, as safe as in production; pytest-xdist has one per worker."""
    server = EmbeddedPostgres(open_directory / "session", options={"shared_buffers": "64MB"})
    server.start()
    yield server
    server.stop(timeout_seconds=1)  # its last checkpoint is of hundreds of databases that nobody wants


@pytest.fixture(scope="session")
def new_database(postgres: EmbeddedPostgres) -> Callable[[], str]:
    """A function that makes a migrated, empty database and returns its URL."""
    migrate(postgres.url)
    template, _, rest = postgres.url.partition("/ammeter?")
    numbers = count(1)

    def make() -> str:
        name = f"test_{next(numbers)}"
        with psycopg.connect(f"{template}/postgres?{rest}", autocommit=True) as conn:
            conn.execute(f"CREATE DATABASE {name} TEMPLATE ammeter".encode())
        return f"{template}/{name}?{rest}"

    return make


@pytest.fixture(scope="module")
def database_url(new_database: Callable[[], str]) -> str:
    """A database that the tests of one module share."""
    return new_database()


@pytest.fixture
def rng() -> random.Random:
    """Random numbers; a failure shows the seed, AMMETER_TEST_SEED repeats it."""
    seed = int(os.environ.get("AMMETER_TEST_SEED") or random.SystemRandom().getrandbits(32))
    print(f"AMMETER_TEST_SEED={seed}")  # noqa: T201 - pytest shows it when the test fails
    return random.Random(seed)  # noqa: S311 - to be repeated, not to be secret


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real traces beside the checkout; may be missing, but not in CI."""
    path = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not path.is_dir():
        if os.environ.get("CI") == "true":
            pytest.fail(f"{path} is missing: tests on real data must not be skipped in CI")
        pytest.skip(f"{path} is missing: real data is tested where it is present")
    return path
