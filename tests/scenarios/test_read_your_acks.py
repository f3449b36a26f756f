"""A check sent after an acknowledgement sees what was acknowledged: pair after pair, many at once."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ammeter.v1 import entitlement_pb2
from tests.crash.results import publish, time_is_up
from tests.rpc.shop import Shop, unique
from tests.serving import ServerProcess

_WRITERS = 8


@pytest.fixture
def server(new_database: Callable[[], str], tmp_path: Path) -> Iterator[ServerProcess]:
    with ServerProcess(new_database(), tmp_path) as process:
        yield process


def _pairs(server: ServerProcess, count: int, seconds: float) -> tuple[int, list[str]]:
    """Write, then check, until `count` or the time is over; returns how many pairs, and what was stale."""
    shop = Shop(server.stubs(), "acks")
    feature = shop.feature(shop.meter())
    stale: list[str] = []
    done = [0] * _WRITERS
    deadline = time.monotonic() + seconds

    def work(number: int) -> None:
        mine = Shop(server.stubs(), "acks")
        subject = unique(f"user-{number}")
        customer = mine.customer(subject)
        metered = {"allowance": "1000000000", "usage_period": {"cadence": "P1M"}}
        draft = entitlement_pb2.Entitlement(customer_key=customer, feature_key=feature, metered=metered)  # type: ignore[arg-type]
        mine.stubs.entitlements.CreateEntitlement(entitlement_pb2.CreateEntitlementRequest(entitlement=draft))
        check = entitlement_pb2.EntitlementCheck(customer_key=customer, feature_key=feature)
        request = entitlement_pb2.CheckEntitlementRequest(check=check)
        for used in range(1, count // _WRITERS + 1):
            position = mine.record(mine.event(subject, 1)).position
            answer = mine.stubs.entitlements.CheckEntitlement(request)
            if answer.access.usage != str(used) or answer.position < position:
                stale.append(f"{customer}: {used} were acknowledged, {answer.access.usage} seen")
            done[number] = used
            if time.monotonic() > deadline:
                return

    threads = [threading.Thread(target=work, args=(number,)) for number in range(_WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(done), stale


def test_of_two_thousand_pairs_none_is_stale(server: ServerProcess) -> None:
    count, stale = _pairs(server, 2_000, 600)
    assert count == 2_000
    assert not stale


@pytest.mark.long
def test_of_a_million_pairs_none_is_stale(server: ServerProcess) -> None:
    count, stale = _pairs(server, 1_000_000, min(7_200, time_is_up() - time.monotonic()))
    publish("write-then-check", f"{count:,} write-then-check pairs by {_WRITERS} callers, {len(stale)} stale")
    assert not stale
