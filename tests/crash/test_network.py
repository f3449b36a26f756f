"""A network that cuts, stalls, resets and leaves connections half-open loses nothing and doubles nothing."""

import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest

from ammeter.store.embedded import EmbeddedPostgres
from tests.crash.load import Load, set_up
from tests.crash.proxy import FaultProxy
from tests.serving import ServerProcess

ROUNDS = 3
_SOCKET = ".s.PGSQL.5432"


def _go_wrong(proxy: FaultProxy, load: Load, rng: random.Random) -> None:
    """Each kind of failure, some times, in any order; after each, answers come again."""
    kinds: list[tuple[Callable[[], None], float]] = [
        (proxy.cut, 0),
        (proxy.reset, 0),
        (proxy.stall, 2),
        (proxy.half_open, 1.5),
    ] * ROUNDS
    rng.shuffle(kinds)
    for fail, seconds in kinds:
        time.sleep(0.2 + rng.random() * 0.3)
        fail()
        time.sleep(seconds * rng.random())
        proxy.mend()
        mended = time.monotonic()
        while load.last_answer() < mended:
            assert time.monotonic() < mended + 60, f"no answer since {fail.__name__} was mended"
            time.sleep(0.02)


@pytest.mark.timeout(300)
def test_a_failing_network_to_the_server_loses_and_doubles_nothing(
    server: ServerProcess, tmp_path: Path, rng: random.Random
) -> None:
    set_up(server.stubs())
    with FaultProxy(server.address) as proxy:
        with Load(proxy.address, tmp_path / "journals", rng) as load:
            _go_wrong(proxy, load, rng)
            load.settle()
        figures = load.verdict(server.stubs())
    assert figures["FAILURE"] > 0
    print(f"{4 * ROUNDS} failures between clients and server: {figures}; 0 lost, 0 doubled")  # noqa: T201


@contextmanager
def _between(postgres: EmbeddedPostgres, url: str) -> Iterator[tuple[FaultProxy, str]]:
    """A socket directory whose socket leads to Postgres by way of a proxy; and the URL over it."""
    directory = Path(tempfile.mkdtemp(prefix="ammeter-"))  # short: a socket's path has 107 bytes
    real = Path(postgres.url.partition("host=")[2].partition("&")[0].replace("%2F", "/"))
    try:
        with FaultProxy(real / _SOCKET, directory / _SOCKET) as proxy:
            yield proxy, url.replace(quote(str(real)), quote(str(directory)))
    finally:
        shutil.rmtree(directory)


@pytest.mark.timeout(300)
def test_a_failing_network_to_postgres_loses_and_doubles_nothing(
    postgres: EmbeddedPostgres, new_database: Callable[[], str], tmp_path: Path, rng: random.Random
) -> None:
    with (
        _between(postgres, new_database()) as (proxy, url),
        ServerProcess(url, tmp_path, checkpoint_interval_seconds=0.05) as server,
    ):
        assert proxy.connections > 0
        set_up(server.stubs())
        with Load(server.address, tmp_path / "journals", rng) as load:
            _go_wrong(proxy, load, rng)
            load.settle()
        server.wait_until_serving()
        figures = load.verdict(server.stubs())
        assert server.process.poll() is None
    print(f"{4 * ROUNDS} failures between server and Postgres: {figures}; 0 lost, 0 doubled")  # noqa: T201
