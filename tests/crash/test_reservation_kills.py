"""Kill the server under reservations: what was granted stays granted, nothing is granted twice."""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest

from ammeter import faults
from ammeter.v1 import entitlement_pb2, usage_pb2
from ammeter.v1 import reservation_pb2 as pb
from tests.crash.results import publish, time_is_up
from tests.rpc.shop import Shop
from tests.rpc.test_grants import check, entitle
from tests.serving import ServerProcess, Stubs

ALLOWANCE = 200
KILLS = 5
MANY_KILLS = 500
CALLERS = 6
_RETRYABLE = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED}


@dataclass
class Account:
    """A customer with a hard limit, and what its callers were told."""

    customer: str
    subject: str
    feature: str
    held: dict[str, int] = field(default_factory=dict)
    used: int = 0
    ended: Counter[str] = field(default_factory=Counter)
    names: list[str] = field(default_factory=list)


def _open(stubs: Stubs, allowance: int = ALLOWANCE) -> Account:
    shop = Shop(stubs, "kill")
    feature = shop.feature(shop.meter())
    subject = f"user-{feature}"
    customer = shop.customer(subject)
    entitle(shop, feature, customer, allowance=str(allowance))
    return Account(customer, subject, feature)


class Caller(threading.Thread):
    """Reserves, and settles, releases, renews or leaves; sends everything again until it is answered."""

    def __init__(self, address: str, name: str, account: Account, seed: int) -> None:
        super().__init__(name=name, daemon=True)
        self.failure: BaseException | None = None
        self.failed_calls = 0
        self.granted: dict[str, str] = {}
        self.held: dict[str, int] = {}
        self.used = 0
        self._address = address
        self._account = account
        self._rng = random.Random(seed)  # noqa: S311 - to be repeated
        self._stopping = threading.Event()
        self._number = 0

    def finish(self) -> None:
        self._stopping.set()

    def run(self) -> None:
        try:
            with ServerProcess.open_channel(self._address) as channel:
                self._stubs = Stubs(channel)
                while not self._stopping.is_set():
                    self._work()
        except BaseException as error:  # noqa: BLE001 - the test asks for it
            self.failure = error

    def _fresh(self) -> str:
        self._number += 1
        return f"{self.name}/{self._number}"

    def _deliver(self, method: Callable[..., object], request: object) -> object:
        while True:
            try:
                return method(request, timeout=5)
            except grpc.RpcError as error:
                if error.code() not in _RETRYABLE:
                    raise
                self.failed_calls += 1
                time.sleep(0.05)

    def _work(self) -> None:
        name, amount = self._fresh(), self._rng.randrange(1, 4)
        request = pb.ReserveRequest(
            customer_key=self._account.customer,
            feature_key=self._account.feature,
            amount=str(amount),
            lifetime_ms=3_600_000,
            lease=self._rng.random() < 0.3,
            request_id=name,
        )
        answer = self._deliver(self._stubs.reservations.Reserve, request)
        assert isinstance(answer, pb.ReserveResponse)
        if not answer.HasField("reservation"):
            time.sleep(0.005)
            return
        mine = answer.reservation
        self.granted[name] = mine.reservation_id
        self.held[mine.reservation_id] = amount
        self._end(mine, amount)

    def _end(self, mine: pb.Reservation, amount: int) -> None:
        what = self._rng.random()
        identity, used = mine.reservation_id, self._rng.randrange(amount + 1)
        if mine.lease and what < 0.5:
            request = pb.RenewLeaseRequest(
                reservation_id=identity,
                generation=mine.generation,
                used_amount=str(used),
                amount=str(amount),
                lifetime_ms=3_600_000,
                events=self._events(used),
                request_id=self._fresh(),
            )
            answer = self._deliver(self._stubs.reservations.RenewLease, request)
            assert isinstance(answer, pb.RenewLeaseResponse)
            self.used += used
            self.held[identity] = int(answer.reservation.held_amount)
            amount, used = self.held[identity], 0
        if what < 0.7:
            settle = pb.SettleReservationRequest(
                reservation_id=identity, amount=str(used), events=self._events(used), request_id=self._fresh()
            )
            self._deliver(self._stubs.reservations.SettleReservation, settle)
            self.used += used
            self.held[identity] = 0
        elif what < 0.98:
            release = pb.ReleaseReservationRequest(reservation_id=identity, request_id=self._fresh())
            self._deliver(self._stubs.reservations.ReleaseReservation, release)
            self.held[identity] = 0

    def _events(self, used: int) -> list[usage_pb2.UsageEvent]:
        if not used:
            return []
        event = usage_pb2.UsageEvent(
            id=self._fresh(), source=self.name, type="kill.used", subject=self._account.subject
        )
        event.properties["tokens"] = str(used)
        return [event]


def _all(stubs: Stubs, customer: str) -> list[pb.Reservation]:
    found: list[pb.Reservation] = []
    request = pb.ListReservationsRequest(customer_key=customer, page_size=1000)
    while True:
        page = stubs.reservations.ListReservations(request)
        found.extend(page.reservations)
        if not page.next_page_token:
            return found
        request.page_token = page.next_page_token


def _kill_under_load(server: ServerProcess, rng: random.Random, most: int) -> dict[str, int]:
    end = time_is_up()
    # So much that there is something to grant up to the last kill.
    allowance = ALLOWANCE if most <= KILLS else 1_000_000
    account = _open(server.stubs(), allowance)
    callers = [Caller(server.address, f"c{n}", account, rng.getrandbits(32)) for n in range(CALLERS)]
    for caller in callers:
        caller.start()
    kills = 0
    while kills < most and time.monotonic() < end:
        time.sleep(rng.random() * 0.6)
        server.kill()
        server.start()
        kills += 1
    time.sleep(0.5)
    for caller in callers:
        caller.finish()
    for caller in callers:
        caller.join(60)
        assert not caller.is_alive()
        if caller.failure is not None:
            raise caller.failure
    _judge(server.stubs(), account, callers, allowance)
    return {
        "kills": kills,
        "granted": sum(len(caller.granted) for caller in callers),
        "unanswered calls": sum(caller.failed_calls for caller in callers),
    }


def _judge(stubs: Stubs, account: Account, callers: list[Caller], allowance: int) -> None:
    """Compare what the callers were told with what the server says."""
    stored = {one.reservation_id: one for one in _all(stubs, account.customer)}
    granted = [identity for caller in callers for identity in caller.granted.values()]
    assert len(granted) == len(set(granted)), "one grant for each request"
    assert stored.keys() == set(granted), "no grant is lost, none was made that nobody was told of"
    for caller in callers:
        for identity, held in caller.held.items():
            assert int(stored[identity].held_amount) == held, stored[identity]
    access = check(Shop(stubs), account.customer, account.feature)
    used, held = sum(one.used for one in callers), sum(sum(one.held.values()) for one in callers)
    assert (int(access.usage), int(access.held or 0)) == (used, held)
    assert int(access.balance) == allowance - used - held
    assert access.overage == "0"


def test_no_grant_is_lost_or_made_twice_whenever_the_server_dies(
    server: ServerProcess, rng: random.Random
) -> None:
    figures = _kill_under_load(server, rng, KILLS)
    print(f"{figures}; 0 lost, 0 twice")  # noqa: T201 - to publish
    assert figures["granted"] > KILLS


@pytest.mark.long
def test_no_grant_is_lost_or_made_twice_in_five_hundred_deaths(
    server: ServerProcess, rng: random.Random
) -> None:
    figures = _kill_under_load(server, rng, MANY_KILLS)
    publish("reservation-kills", f"{figures}; 0 grants lost, 0 made twice")
    assert figures["granted"] > figures["kills"]


# One thing at a time


@pytest.fixture
def faulty(new_database: Callable[[], str], tmp_path: Path) -> Iterator[ServerProcess]:
    server = ServerProcess(new_database(), tmp_path, test_faults=True)
    try:
        yield server
    finally:
        server.close()


def _reserve(stubs: Stubs, account: Account, name: str, amount: int = 1) -> pb.ReserveResponse:
    request = pb.ReserveRequest(
        customer_key=account.customer, feature_key=account.feature, amount=str(amount), request_id=name
    )
    return stubs.reservations.Reserve(request)


def _access(stubs: Stubs, account: Account) -> entitlement_pb2.Access:
    return check(Shop(stubs), account.customer, account.feature)


def test_a_grant_waits_for_its_commit(faulty: ServerProcess) -> None:
    faulty.change(faults="decide.before=delay:300,decide.after=delay:300")
    faulty.start()
    stubs = faulty.stubs()
    account = _open(stubs)
    started = time.monotonic()
    assert _reserve(stubs, account, "a").access.access
    assert time.monotonic() - started >= 0.6


@pytest.mark.parametrize("point", ["decide.before", "decide.after"])
def test_a_decision_whose_commit_was_not_heard_of_is_made_once(faulty: ServerProcess, point: str) -> None:
    faulty.change(faults=f"{point}=lose@1,{point}=lose@3")
    faulty.start()
    stubs = faulty.stubs()
    account = _open(stubs)
    mine = _reserve(stubs, account, "a", 5).reservation
    assert _access(stubs, account).held == "5"
    event = usage_pb2.UsageEvent(id="e", source="s", type="kill.used", subject=account.subject)
    event.properties["tokens"] = "3"
    request = pb.SettleReservationRequest(
        reservation_id=mine.reservation_id, amount="3", events=[event], request_id="b"
    )
    stubs.reservations.SettleReservation(request)
    access = _access(stubs, account)
    assert (access.usage, access.held) == ("3", "")
    assert len(_all(stubs, account.customer)) == 1


@pytest.mark.parametrize(
    "point", ["decide.before", "decide.after", "commit.before", "commit.after", "fold.before"]
)
def test_hold_and_usage_change_places_both_or_not_at_all(faulty: ServerProcess, point: str) -> None:
    faulty.start()
    account = _open(faulty.stubs())
    mine = _reserve(faulty.stubs(), account, "a", 5).reservation
    faulty.kill()
    faulty.change(faults=f"{point}=die@1")
    faulty.start()
    event = usage_pb2.UsageEvent(id="e", source="s", type="kill.used", subject=account.subject)
    event.properties["tokens"] = "3"
    request = pb.SettleReservationRequest(
        reservation_id=mine.reservation_id, amount="3", events=[event], request_id="b"
    )
    with pytest.raises(grpc.RpcError):
        faulty.stubs().reservations.SettleReservation(request, timeout=10)
    faulty.process.wait()
    assert faulty.process.returncode == faults.EXIT_CODE
    faulty.change(faults=None)
    faulty.start()
    stubs = faulty.stubs()
    access = _access(stubs, account)
    assert (access.usage, access.held) in {("0", "5"), ("3", "")}
    stubs.reservations.SettleReservation(request)
    access = _access(stubs, account)
    assert (access.usage, access.held) == ("3", "")


def test_who_stood_by_knows_what_is_held(new_database: Callable[[], str], tmp_path: Path) -> None:
    url = new_database()
    first, second = ServerProcess(url, tmp_path), ServerProcess(url, tmp_path)
    try:
        first.start()
        account = _open(first.stubs())
        second.launch()
        answer = _reserve(first.stubs(), account, "a", 5)
        first.kill()
        second.wait_until_serving()
        stubs = second.stubs()
        assert _access(stubs, account).held == "5"
        assert _reserve(stubs, account, "a", 5) == answer
        release = pb.ReleaseReservationRequest(reservation_id=answer.reservation.reservation_id)
        stubs.reservations.ReleaseReservation(release)
        assert _access(stubs, account).held == ""
    finally:
        first.close()
        second.close()
