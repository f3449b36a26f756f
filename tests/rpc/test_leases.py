"""Leases over the wire: decided locally, renewed in the background, never beyond a hard limit."""

import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest

from ammeter.client import Client
from ammeter.client.leases import Lease, Leases, Verdict
from ammeter.v1 import catalog_pb2, entitlement_pb2, usage_pb2
from ammeter.v1 import reservation_pb2 as pb
from tests.crash.results import publish
from tests.rpc.shop import Shop, eventually, unique
from tests.rpc.test_grants import check, entitle
from tests.rpc.wire import refusal
from tests.serving import ServerProcess, Stubs

RACERS = 20
LIMIT = 60


@pytest.fixture(scope="module")
def shop(stubs: Stubs) -> Shop:
    return Shop(stubs, "race")


@pytest.fixture(scope="module")
def meter(shop: Shop) -> str:
    return shop.meter()


@pytest.fixture(scope="module")
def feature(shop: Shop, meter: str) -> str:
    return shop.feature(meter)


@pytest.fixture
def client(server: ServerProcess) -> Iterator[Client]:
    with Client(server.address) as made:
        yield made


class Account:
    """A customer with an allowance of 100, and the lease of a gateway on it."""

    def __init__(self, shop: Shop, feature: str, **metered: object) -> None:
        self.shop, self.feature = shop, feature
        self.subject = unique("user")
        self.used = 0
        self.customer = shop.customer(self.subject)
        entitle(shop, feature, self.customer, **{"allowance": "100", **metered})

    def stands(self) -> tuple[str, str, str]:
        access = check(self.shop, self.customer, self.feature)
        return access.balance, access.held, access.usage

    def event(self, tokens: object) -> usage_pb2.UsageEvent:
        return self.shop.event(self.subject, tokens)

    def use(self, lease: Lease, amount: int) -> Verdict:
        take = lease.take(amount)
        if take.allowed:
            self.used += amount
            lease.done(take, events=[self.event(amount)])
        return take.verdict


def test_a_lease_is_renewed_as_it_is_used_and_settled_in_the_end(
    shop: Shop, feature: str, client: Client
) -> None:
    account = Account(shop, feature)
    with Leases(client, amount=20, lifetime_seconds=60) as leases:
        lease = leases.of(account.customer, feature)
        assert account.use(lease, 1) is Verdict.ALLOWED
        assert account.stands() == ("80", "20", "0"), "nobody was asked for the second"
        assert account.use(lease, 3) is Verdict.ALLOWED
        assert account.use(lease, 8) is Verdict.ALLOWED
        eventually(lambda: account.stands() == ("68", "20", "12"))
        assert account.use(lease, 50) is Verdict.ALLOWED, "more than it had: it asked"
        take = lease.take(10)
        assert take.allowed
        lease.done(take, used=4, events=[account.event(4)])
    assert account.stands() == ("34", "", "66"), "closed, everything is settled"


def test_the_last_unit_is_given_and_not_one_more(shop: Shop, feature: str, client: Client) -> None:
    account = Account(shop, feature, allowance="10")
    with Leases(client, amount=4, lifetime_seconds=60, say_no_seconds=0.01) as leases:
        lease = leases.of(account.customer, feature)
        deadline = time.monotonic() + 20
        used = 0
        while used < 10:
            assert time.monotonic() < deadline
            used += account.use(lease, 1).allowed
        assert account.use(lease, 1) is Verdict.LIMIT_REACHED
    assert account.stands() == ("0", "", "10")


def test_a_soft_limit_is_told_apart(shop: Shop, feature: str, client: Client) -> None:
    account = Account(shop, feature, allowance="5", soft_limit=True)
    with Leases(client, amount=5, lifetime_seconds=60, say_no_seconds=0.01) as leases:
        lease = leases.of(account.customer, feature)
        assert account.use(lease, 5) is Verdict.ALLOWED
        eventually(lambda: account.use(lease, 1) is Verdict.ALLOWED_OVER_SOFT_LIMIT)
    access = check(shop, account.customer, feature)
    assert access.overage != "0"


def test_usage_that_is_recorded_otherwise_is_recorded_first(shop: Shop, feature: str, client: Client) -> None:
    account = Account(shop, feature, allowance="10")
    with Leases(client, amount=10, lifetime_seconds=60, say_no_seconds=0.01) as leases:
        lease = leases.of(account.customer, feature)
        take = lease.take(6)
        shop.record(account.event(6))
        assert account.stands() == ("0", "10", "6"), "for a moment both count"
        lease.done(take)
    assert account.stands() == ("4", "", "6")


def test_who_is_not_entitled_is_told_so(shop: Shop, feature: str, client: Client) -> None:
    with Leases(client, amount=5) as leases:
        assert leases.of(shop.customer(), feature).take(1).verdict is Verdict.NOT_ALLOWED
        assert leases.of("nobody", feature).take(1).verdict is Verdict.NOT_ALLOWED


def test_a_lease_that_nobody_uses_is_given_back(shop: Shop, feature: str, client: Client) -> None:
    account = Account(shop, feature)
    with Leases(client, amount=20, lifetime_seconds=0.4) as leases:
        lease = leases.of(account.customer, feature)
        assert account.use(lease, 1) is Verdict.ALLOWED
        eventually(lambda: account.stands() == ("99", "", "1"))
        assert account.use(lease, 1) is Verdict.ALLOWED, "and taken again when somebody does"


def test_of_two_holders_of_one_lease_one_is_told(shop: Shop, feature: str, stubs: Stubs) -> None:
    account = Account(shop, feature)
    reserve = pb.ReserveRequest(customer_key=account.customer, feature_key=feature, amount="5", lease=True)
    mine = stubs.reservations.Reserve(reserve).reservation
    assert mine.generation == 1
    renew = pb.RenewLeaseRequest(
        reservation_id=mine.reservation_id,
        generation=1,
        used_amount="2",
        amount="5",
        events=[account.event(2)],
    )
    renewed = stubs.reservations.RenewLease(renew)
    assert (renewed.reservation.generation, renewed.reservation.held_amount) == (2, "5")
    assert account.stands() == ("93", "5", "2")
    failed = refusal(stubs.reservations.RenewLease, renew)
    assert (failed.code, failed.reason) == ("ABORTED", "GENERATION_MISMATCH")
    less = pb.RenewLeaseRequest(reservation_id=mine.reservation_id, generation=2, used_amount="0", amount="1")
    assert stubs.reservations.RenewLease(less).reservation.held_amount == "1"
    assert account.stands() == ("97", "1", "2")
    extend = pb.ExtendReservationRequest(reservation_id=mine.reservation_id)
    assert refusal(stubs.reservations.ExtendReservation, extend).reason == "WRONG_STATE"


def test_on_a_hard_limit_a_lease_that_ran_out_counts_until_somebody_says_otherwise(
    shop: Shop, feature: str, stubs: Stubs
) -> None:
    account = Account(shop, feature)
    reserve = pb.ReserveRequest(
        customer_key=account.customer, feature_key=feature, amount="5", lease=True, lifetime_ms=100
    )
    mine = stubs.reservations.Reserve(reserve).reservation
    get = pb.GetReservationRequest(reservation_id=mine.reservation_id)

    def state() -> int:
        return stubs.reservations.GetReservation(get).reservation.state

    eventually(lambda: state() == pb.Reservation.STATE_EXPIRED)
    assert account.stands() == ("95", "5", "0")
    release = pb.ReleaseReservationRequest(reservation_id=mine.reservation_id)
    stubs.reservations.ReleaseReservation(release)
    assert account.stands() == ("100", "", "0")


def test_a_lease_ends_with_the_usage_period(shop: Shop, feature: str, stubs: Stubs) -> None:
    customer = shop.customer()
    start = datetime.now(UTC) - timedelta(hours=1)
    wanted = entitlement_pb2.Entitlement(customer_key=customer, feature_key=feature)
    wanted.from_time.FromDatetime(start)
    wanted.metered.allowance = "10"
    wanted.metered.usage_period.cadence = "P1D"
    stubs.entitlements.CreateEntitlement(entitlement_pb2.CreateEntitlementRequest(entitlement=wanted))
    reserve = pb.ReserveRequest(
        customer_key=customer, feature_key=feature, amount="5", lease=True, lifetime_ms=86_400_000
    )
    made = stubs.reservations.Reserve(reserve)
    assert made.lifetime_ms < 23 * 3_600_000 + 1
    assert made.reservation.expire_time == made.access.period_end_time


# Without contact


def _fail_mode(shop: Shop, meter: str, mode: int, allowance: str = "") -> str:
    return shop.feature(meter, fail_mode=mode, fail_allowance=allowance)


@pytest.mark.parametrize(
    ("mode", "allowance", "then"),
    [
        (catalog_pb2.FAIL_MODE_CLOSED, "", [Verdict.NO_CONTACT] * 3),
        (catalog_pb2.FAIL_MODE_OPEN, "", [Verdict.ALLOWED_WITHOUT_CONTACT] * 3),
        (
            catalog_pb2.FAIL_MODE_OPEN_WITHIN,
            "8",
            [Verdict.ALLOWED_WITHOUT_CONTACT, Verdict.ALLOWED_WITHOUT_CONTACT, Verdict.NO_CONTACT],
        ),
    ],
)
def test_without_contact_the_lease_is_used_up_and_then_the_fail_mode_decides(
    mode: int,
    allowance: str,
    then: list[Verdict],
    new_database: Callable[[], str],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with ServerProcess(new_database(), tmp_path_factory.mktemp("contact")) as server:
        shop = Shop(server.stubs(), "race")
        account = Account(shop, _fail_mode(shop, shop.meter(), mode, allowance))
        other = shop.customer()
        with (
            Client(server.address) as client,
            Leases(client, amount=10, lifetime_seconds=60, wait_seconds=0.3) as leases,
        ):
            lease, barred = leases.of(account.customer, account.feature), leases.of(other, account.feature)
            assert account.use(lease, 2) is Verdict.ALLOWED
            assert barred.take(1).verdict is Verdict.NOT_ALLOWED
            server.kill()
            assert account.use(lease, 4) is Verdict.ALLOWED, "what it has it may use"
            assert account.use(lease, 5) is then[0], "four are left: not enough"
            assert account.use(lease, 4) is Verdict.ALLOWED
            assert [account.use(lease, 3), account.use(lease, 3)] == then[1:]
            time.sleep(0.3)
            assert barred.take(1).verdict is Verdict.NOT_ALLOWED, "a fail mode stands in for no right"
            server.start()
            eventually(lambda: account.use(lease, 1) is Verdict.ALLOWED, 30)
        account.shop = Shop(server.stubs(), "race")
        left = str(100 - account.used)
        assert account.stands() == (left, "", str(account.used)), "nothing used is lost"


def test_no_more_is_let_through_than_can_be_remembered_and_nothing_of_it_is_lost(
    new_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    most = 2500
    with ServerProcess(new_database(), tmp_path_factory.mktemp("backlog")) as server:
        shop = Shop(server.stubs(), "race")
        account = Account(shop, _fail_mode(shop, shop.meter(), catalog_pb2.FAIL_MODE_OPEN), allowance="9999")
        with (
            Client(server.address) as client,
            Leases(
                client, amount=10, lifetime_seconds=60, wait_seconds=0.3, max_unsent_events=most
            ) as leases,
        ):
            lease = leases.of(account.customer, account.feature)
            assert account.use(lease, 1) is Verdict.ALLOWED
            in_flight = lease.take(1)
            server.kill()
            room = most - leases.unsent_events
            verdicts = [account.use(lease, 1) for _ in range(most + 10)]
            assert verdicts[room - 1] is Verdict.ALLOWED_WITHOUT_CONTACT
            assert set(verdicts[room:]) == {Verdict.BACKLOG_FULL}
            lease.done(in_flight, events=[account.event(1)])
            account.used += 1
            assert leases.unsent_events >= most
            server.start()
            eventually(lambda: account.use(lease, 1) is Verdict.ALLOWED, 30)
        assert leases.unsent_events == 0
        account.shop = Shop(server.stubs(), "race")
        assert account.stands() == (str(9999 - account.used), "", str(account.used))


def test_a_lease_is_not_used_beyond_its_time_whatever_wall_clocks_say(
    shop: Shop, feature: str, client: Client
) -> None:
    now = [1000.0]
    account = Account(shop, feature)
    with Leases(client, amount=10, lifetime_seconds=30, clock=lambda: now[0]) as leases:
        lease = leases.of(account.customer, feature)
        first = lease.take(1)
        held = lease._budget
        assert first.allowed
        assert held.deadline == 1030.0
        now[0] += 29.9
        assert held.take(1, now[0])
        now[0] += 0.1
        assert not held.take(1, now[0])
        held.finish(1, 0)
        lease.done(first, used=0)


# Together


def test_twenty_processes_at_a_small_balance_never_use_more_than_there_is(
    shop: Shop, feature: str, server: ServerProcess
) -> None:
    account = Account(shop, feature, allowance=str(LIMIT))
    racers = [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.rpc.racer", server.address, account.customer, feature),
                *(account.subject, "lease" if number % 2 else "reservation"),
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(RACERS)
    ]
    seen = []
    while any(racer.poll() is None for racer in racers):
        balance, held, usage = map(int, (text or "0" for text in account.stands()))
        assert balance + held + usage == LIMIT, (balance, held, usage)
        seen.append(usage)
        time.sleep(0.02)
    used = [int(racer.communicate()[0].split()[0]) for racer in racers]
    assert all(racer.returncode == 0 for racer in racers)
    assert sum(used) <= LIMIT
    assert account.stands() == (str(LIMIT - sum(used)), "", str(sum(used)))
    assert sum(used) > LIMIT - 3 * RACERS


@pytest.mark.long
def test_in_a_million_takes_by_twenty_processes_a_hard_limit_is_never_exceeded(
    shop: Shop, feature: str, server: ServerProcess
) -> None:
    takes, limit = 62_500, 600_000
    account = Account(shop, feature, allowance=str(limit))
    kinds = ["takes", "takes", "takes", "takes", "reservation"]
    racers = [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.rpc.racer", server.address, account.customer, feature),
                *(account.subject, kinds[number % len(kinds)], str(takes)),
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(RACERS)
    ]
    looks = 0
    while any(racer.poll() is None for racer in racers):
        balance, held, usage = map(int, (text or "0" for text in account.stands()))
        assert balance + held + usage == limit, (balance, held, usage)
        looks += 1
        time.sleep(0.02)
    said = [tuple(map(int, racer.communicate()[0].split())) for racer in racers]
    assert all(racer.returncode == 0 for racer in racers)
    used, asked = (sum(one[at] for one in said) for at in (0, 1))
    assert asked >= 1_000_000
    assert used <= limit
    assert account.stands() == (str(limit - used), "", str(used))
    publish(
        "quota-race",
        f"{asked:,} takes and reservations by {RACERS} processes of a hard limit of {limit:,}: "
        f"{used:,} used, 0 beyond it; looked at {looks:,} times meanwhile, used + held + left was the limit",
    )


def _metrics(server: ServerProcess) -> str:
    with urllib.request.urlopen(f"http://{server.metrics_address}/metrics") as page:
        return str(page.read().decode())


def test_the_server_says_how_many_there_are(server: ServerProcess) -> None:
    page = _metrics(server)
    assert 'ammeter_reservations_total{outcome="lease"}' in page
    assert "ammeter_open_reservations" in page
