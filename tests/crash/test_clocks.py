"""The server's wall clock lies and jumps while it holds balance, and clients' clocks are a day off."""

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ammeter.client import Client
from ammeter.client.leases import Leases
from ammeter.v1 import reservation_pb2 as pb
from ammeter.v1 import usage_pb2
from tests.rpc.shop import Shop, eventually, stamp
from tests.rpc.test_grants import check, entitle
from tests.serving import ServerProcess

HOUR = 3600
DAY = 86_400


class Liar:
    """A server whose wall clock is off by as much as one says."""

    def __init__(self, database_url: str, directory: Path) -> None:
        library = directory / "clock.so"
        source = Path(__file__).parent / "clock.c"
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
        self._file = directory / "clock"
        self.jump(0)
        self.server = ServerProcess(database_url, directory)
        self.server.preload(library, LYING_CLOCK=self._file)

    def jump(self, seconds: int) -> None:
        """Let it be so far off from now on."""
        fresh = self._file.with_suffix(".new")
        fresh.write_text(str(seconds))
        fresh.replace(self._file)


@pytest.fixture
def liar(new_database: Callable[[], str], tmp_path: Path) -> Iterator[Liar]:
    if shutil.which("cc") is None:
        pytest.skip("no C compiler for the clock that lies")
    liar = Liar(new_database(), tmp_path)
    try:
        liar.server.start()
        yield liar
    finally:
        liar.server.close()


def _open(shop: Shop, subject: str, feature: str, allowance: str) -> str:
    customer = shop.customer(subject)
    entitle(shop, feature, customer, allowance=allowance, usage_period={"cadence": "P1Y"})
    return customer


def test_holds_and_leases_last_as_long_as_they_were_given_whatever_the_servers_clock_does(liar: Liar) -> None:
    shop = Shop(liar.server.stubs(), "clock")
    feature = shop.feature(shop.meter())
    customer = _open(shop, "user", feature, "100")

    def held() -> str:
        return check(shop, customer, feature).held

    def reserve(lifetime_ms: int, *, lease: bool = False) -> pb.Reservation:
        request = pb.ReserveRequest(
            customer_key=customer, feature_key=feature, amount="10", lifetime_ms=lifetime_ms, lease=lease
        )
        return shop.stubs.reservations.Reserve(request).reservation

    began = time.monotonic()
    reserve(4000)
    liar.jump(HOUR)
    while time.monotonic() < began + 3:
        assert held() == "10" or time.monotonic() > began + 4, "an hour has passed only on the wall"
        time.sleep(0.2)
    eventually(lambda: held() == "")
    reserve(1500)
    liar.jump(-HOUR)
    eventually(lambda: held() == ""), "no later than it would, though the clock went back two hours"
    # A lease on a hard limit goes on counting, and is renewed and settled over the jumps.
    with Client(liar.server.address) as client:
        used = 0
        with Leases(client, amount=10, lifetime_seconds=2, say_no_seconds=0.05) as leases:
            lease = leases.of(customer, feature)
            for jump in (0, DAY // 4, -DAY // 4, HOUR, 0, -HOUR):
                liar.jump(jump)
                for _ in range(20):
                    take = lease.take(1)
                    if take.allowed:
                        used += 1
                        event = shop.event("user", 1)
                        event.ClearField("time")
                        lease.done(take, events=[event])
    liar.jump(0)
    access = check(shop, customer, feature)
    assert used == 100, "all of it, and not one more"
    assert (access.usage, access.balance, access.held, access.overage) == ("100", "0", "", "0")


def test_events_are_placed_by_the_clock_of_the_server_and_their_own(liar: Liar) -> None:
    shop = Shop(liar.server.stubs(), "clock")
    feature = shop.feature(shop.meter())
    for off in (HOUR, -HOUR):
        liar.jump(off)
        subject = f"user{off}"
        customer = _open(shop, subject, feature, "100")
        results = {}
        for seconds in (0, DAY, -22 * HOUR, -40 * DAY):
            event = shop.event(subject, 1)
            event.time.CopyFrom(stamp(datetime.now(UTC) + timedelta(seconds=off + seconds)))
            answer = shop.stubs.usage.RecordUsage(usage_pb2.RecordUsageRequest(events=[event]))
            results[seconds] = answer.results[0].reason if answer.results else "ACCEPTED"
        assert results == {
            0: "ACCEPTED",
            DAY: "EVENT_IN_FUTURE",
            -22 * HOUR: "ACCEPTED",
            -40 * DAY: "EVENT_TOO_OLD",
        }
        assert check(shop, customer, feature).usage == "2"
