"""Reservations over the wire: held at once, durable when answered, swapped for usage in one commit."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ammeter.v1 import entitlement_pb2, usage_pb2
from ammeter.v1 import reservation_pb2 as pb
from tests.rpc.shop import Shop, eventually, key_with, stubs_with, unique
from tests.rpc.terminal import Terminal
from tests.rpc.test_grants import check, entitle, grant
from tests.rpc.wire import refusal
from tests.serving import ServerProcess, Stubs

HELD, SETTLED = pb.Reservation.STATE_HELD, pb.Reservation.STATE_SETTLED
RELEASED, EXPIRED = pb.Reservation.STATE_RELEASED, pb.Reservation.STATE_EXPIRED
Reason = entitlement_pb2.AccessReason


@pytest.fixture(scope="module")
def shop(stubs: Stubs) -> Shop:
    return Shop(stubs, "hold")


@pytest.fixture(scope="module")
def feature(shop: Shop) -> str:
    return shop.feature(shop.meter())


class Account:
    """A customer with one subject and an allowance of 10 of a feature."""

    def __init__(self, shop: Shop, feature: str, **metered: object) -> None:
        self.shop = shop
        self.feature = feature
        self.subject = unique("user")
        self.customer = shop.customer(self.subject)
        self.entitlement = entitle(shop, feature, self.customer, **metered)
        self.stub = shop.stubs.reservations

    def reserve(self, amount: str, **fields: object) -> pb.ReserveResponse:
        who = fields if "subject" in fields else {"customer_key": self.customer, **fields}
        request = pb.ReserveRequest(feature_key=self.feature, amount=amount, **who)  # type: ignore[arg-type]
        return self.stub.Reserve(request)

    def settle(
        self, reservation: pb.Reservation, amount: str, *events: usage_pb2.UsageEvent
    ) -> pb.Reservation:
        request = pb.SettleReservationRequest(
            reservation_id=reservation.reservation_id, amount=amount, events=events
        )
        return self.stub.SettleReservation(request).reservation

    def release(self, reservation: pb.Reservation) -> pb.Reservation:
        request = pb.ReleaseReservationRequest(reservation_id=reservation.reservation_id)
        return self.stub.ReleaseReservation(request).reservation

    def get(self, reservation: pb.Reservation) -> pb.Reservation:
        request = pb.GetReservationRequest(reservation_id=reservation.reservation_id)
        return self.stub.GetReservation(request).reservation

    def event(self, tokens: object) -> usage_pb2.UsageEvent:
        return self.shop.event(self.subject, tokens)

    def stands(self) -> tuple[str, str, str]:
        """(balance, held, usage), as a check says."""
        access = check(self.shop, self.customer, self.feature)
        return access.balance, access.held, access.usage


@pytest.fixture
def account(shop: Shop, feature: str) -> Account:
    return Account(shop, feature)


def test_what_is_held_counts_against_access_and_is_given_back(account: Account) -> None:
    made = account.reserve("4")
    assert made.access.access
    assert (made.access.balance, made.access.held) == ("6", "4")
    assert made.reservation.state == HELD
    assert (made.reservation.granted_amount, made.reservation.held_amount) == ("4", "4")
    assert made.lifetime_ms == 60_000
    assert account.stands() == ("6", "4", "0")
    assert account.get(made.reservation) == made.reservation
    released = account.release(made.reservation)
    assert (released.state, released.held_amount) == (RELEASED, "0")
    assert account.stands() == ("10", "", "0")
    assert account.release(made.reservation).end_time == released.end_time, "released twice stays as it is"


def test_all_or_nothing_or_what_there_is(account: Account) -> None:
    account.reserve("7")
    refused = account.reserve("4")
    assert not refused.access.access
    assert refused.access.reason == Reason.ACCESS_REASON_LIMIT_REACHED
    assert not refused.HasField("reservation")
    assert (refused.access.balance, refused.access.held) == ("3", "7")
    partial = account.reserve("4", minimum_amount="0.5")
    assert partial.access.access
    assert (partial.reservation.amount, partial.reservation.granted_amount) == ("4", "3")
    assert account.stands() == ("0", "10", "0")
    assert not account.reserve("1", minimum_amount="0.000000000001").access.access


def test_usage_takes_the_place_of_the_hold_in_one_answer(account: Account) -> None:
    made = account.reserve("4").reservation
    settled = account.settle(made, "2.5", account.event("2.5"))
    assert (settled.state, settled.settled_amount, settled.settled_late) == (SETTLED, "2.5", False)
    assert account.stands() == ("7.5", "", "2.5")
    assert account.get(made) == settled
    again = pb.SettleReservationRequest(reservation_id=made.reservation_id, amount="2.5")
    assert refusal(account.stub.SettleReservation, again).reason == "WRONG_STATE"
    assert (
        refusal(
            account.stub.ReleaseReservation, pb.ReleaseReservationRequest(reservation_id=made.reservation_id)
        ).reason
        == "WRONG_STATE"
    )


def test_more_than_was_held_may_have_been_used(account: Account) -> None:
    made = account.reserve("4").reservation
    account.settle(made, "12", account.event(12))
    access = check(account.shop, account.customer, account.feature)
    assert (access.balance, access.overage, access.usage, access.held) == ("0", "2", "12", "")


def test_no_check_sees_a_hold_and_its_usage_both_or_neither(account: Account) -> None:
    """Swap by swap, the balance only ever falls by what is reserved."""
    seen: set[tuple[str, str, str]] = set()
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            seen.add(account.stands())

    threads = [threading.Thread(target=watch) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(10):
            account.settle(account.reserve("1").reservation, "1", account.event(1))
    finally:
        done.set()
        for thread in threads:
            thread.join()
    for free, held, usage in seen:
        assert int(free) + int(held or 0) + int(usage) == 10, (free, held, usage)
        assert int(held or 0) <= 1


def test_an_event_that_is_refused_settles_nothing(account: Account) -> None:
    made = account.reserve("4").reservation
    request = pb.SettleReservationRequest(
        reservation_id=made.reservation_id, amount="1", events=[account.event("much")], request_id=unique("r")
    )
    failed = refusal(account.stub.SettleReservation, request)
    assert (failed.code, failed.reason) == ("INVALID_ARGUMENT", "EVENT_INVALID_VALUE")
    assert list(failed.fields) == ["events[0].properties[tokens]"]
    assert account.get(made).state == HELD
    assert account.stands() == ("6", "4", "0")
    event = account.event("1")
    account.shop.record(event)
    event.properties["tokens"] = "2"
    request.events[0].CopyFrom(event)
    failed = refusal(account.stub.SettleReservation, request)
    assert (failed.code, failed.reason) == ("ALREADY_EXISTS", "EVENT_CONFLICT")
    event.properties["tokens"] = "1"
    request.events[0].CopyFrom(event)
    answer = account.stub.SettleReservation(request)
    assert answer.event_results[0].outcome == usage_pb2.EVENT_OUTCOME_DUPLICATE
    assert account.stands() == ("9", "", "1"), "what was recorded before counts once"


def test_expiry_releases_by_itself_and_a_late_settlement_loses_nothing(account: Account) -> None:
    made = account.reserve("4", lifetime_ms=200).reservation
    assert account.stands() == ("6", "4", "0")
    eventually(lambda: account.stands() == ("10", "", "0"))
    found = account.get(made)
    assert (found.state, found.held_amount) == (EXPIRED, "0")
    extend = pb.ExtendReservationRequest(reservation_id=made.reservation_id)
    failed = refusal(account.stub.ExtendReservation, extend)
    assert failed.reason in {"WRONG_STATE", "NOT_FOUND"}
    assert "expired" in failed.message
    settled = account.settle(made, "3", account.event(3))
    assert (settled.state, settled.settled_late) == (SETTLED, True)
    assert account.stands() == ("7", "", "3")


def test_a_reservation_can_be_extended_but_not_shortened(account: Account) -> None:
    made = account.reserve("4", lifetime_ms=60_000).reservation
    request = pb.ExtendReservationRequest(reservation_id=made.reservation_id, lifetime_ms=3_600_000)
    longer = account.stub.ExtendReservation(request)
    assert longer.reservation.expire_time.seconds - made.expire_time.seconds >= 3500
    assert longer.lifetime_ms == 3_600_000
    request.lifetime_ms = 1000
    assert account.stub.ExtendReservation(request).reservation.expire_time == longer.reservation.expire_time


def test_what_is_held_outlives_the_process(shop: Shop, feature: str, server: ServerProcess) -> None:
    account = Account(shop, feature)
    kept, other = account.reserve("4").reservation, account.reserve("3").reservation
    short = account.reserve("1", lifetime_ms=300).reservation
    account.settle(other, "2", account.event(2))
    server.restart()
    account = _again(account, server)
    eventually(lambda: account.stands() == ("4", "4", "2"))
    assert account.get(kept).state == HELD
    assert account.get(short).state == EXPIRED
    account.settle(kept, "4", account.event(4))
    assert account.stands() == ("4", "", "6")


def _again(account: Account, server: ServerProcess) -> Account:
    found = object.__new__(Account)
    found.__dict__.update(account.__dict__)
    found.shop = Shop(server.stubs(), "hold")
    found.stub = found.shop.stubs.reservations
    return found


def test_a_request_id_is_granted_once_also_after_a_restart(
    shop: Shop, feature: str, server: ServerProcess
) -> None:
    account = Account(shop, feature)
    name = unique("once")
    first = account.reserve("4", request_id=name)
    assert account.reserve("4", request_id=name) == first
    assert account.stands() == ("6", "4", "0")
    server.restart()
    account = _again(account, server)
    assert account.reserve("4", request_id=name) == first
    assert account.stands() == ("6", "4", "0")
    request = pb.ReserveRequest(
        customer_key=account.customer, feature_key=feature, amount="5", request_id=name
    )
    assert refusal(account.stub.Reserve, request).reason == "REQUEST_ID_CONFLICT"


def test_a_refusal_is_not_remembered(account: Account) -> None:
    big, name = account.reserve("10").reservation, unique("later")
    assert not account.reserve("5", request_id=name).access.access
    account.release(big)
    assert account.reserve("5", request_id=name).access.access


def test_many_at_a_small_balance_never_get_more_than_there_is(shop: Shop, feature: str) -> None:
    account = Account(shop, feature, allowance="7")
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: account.reserve("1"), range(60)))
    assert sum(answer.access.access for answer in answers) == 7
    assert account.stands() == ("0", "7", "0")


def test_a_soft_limit_grants_beyond_and_says_so(shop: Shop, feature: str) -> None:
    account = Account(shop, feature, soft_limit=True)
    assert account.reserve("8").access.reason == Reason.ACCESS_REASON_ALLOWED
    beyond = account.reserve("8")
    assert beyond.access.access
    assert beyond.access.reason == Reason.ACCESS_REASON_ALLOWED_OVER_SOFT_LIMIT
    assert (beyond.access.balance, beyond.access.held, beyond.access.overage) == ("0", "16", "0")


def test_by_subject_and_on_grants(account: Account) -> None:
    grant(account.shop, account.entitlement, "5")
    made = account.reserve("12", subject=account.subject)
    assert made.reservation.subject == account.subject
    assert made.reservation.customer_key == account.customer
    assert account.stands() == ("3", "12", "0")


def test_what_is_reserved_stays_reserved_when_the_entitlement_ends_or_another_takes_its_place(
    account: Account,
) -> None:
    made = account.reserve("4").reservation
    draft = entitlement_pb2.Entitlement(customer_key=account.customer, feature_key=account.feature)
    draft.metered.allowance = "5"
    draft.metered.usage_period.cadence = "P1M"
    service = account.shop.stubs.entitlements
    other = service.OverrideEntitlement(entitlement_pb2.OverrideEntitlementRequest(entitlement=draft))
    assert account.stands() == ("1", "4", "0"), "it counts against the one in its place"
    service.DeleteEntitlement(
        entitlement_pb2.DeleteEntitlementRequest(entitlement_id=other.entitlement.entitlement_id)
    )
    refused = account.reserve("1")
    assert refused.access.reason == Reason.ACCESS_REASON_ENTITLEMENT_NOT_ACTIVE
    assert account.get(made).state == HELD
    settled = account.settle(made, "2", account.event(2))
    assert settled.state == SETTLED, "and what was used of it is recorded"


def test_explanations_name_what_is_held(account: Account) -> None:
    account.reserve("4")
    asked = entitlement_pb2.EntitlementCheck(customer_key=account.customer, feature_key=account.feature)
    told = account.shop.stubs.entitlements.ExplainAccess(entitlement_pb2.ExplainAccessRequest(check=asked))
    assert (told.access.balance, told.access.held) == ("6", "4")
    assert "4 is held by reservations, so 6 is free." in told.sentences


def test_lists_by_customer_and_state_page_by_page(account: Account) -> None:
    held = [account.reserve("1").reservation for _ in range(3)]
    account.release(held[1])
    request = pb.ListReservationsRequest(customer_key=account.customer, page_size=2)
    first = account.stub.ListReservations(request)
    request.page_token = first.next_page_token
    found = [*first.reservations, *account.stub.ListReservations(request).reservations]
    assert [one.reservation_id for one in found] == [one.reservation_id for one in held]
    request = pb.ListReservationsRequest(customer_key=account.customer, state=RELEASED)
    assert [one.reservation_id for one in account.stub.ListReservations(request).reservations] == [
        held[1].reservation_id
    ]


@pytest.mark.parametrize(
    ("fields", "at_fault"),
    [
        ({"amount": "0"}, ["amount"]),
        ({"amount": "-1"}, ["amount"]),
        ({"amount": "NaN", "minimum_amount": "x"}, ["amount", "minimum_amount"]),
        ({"amount": "1", "minimum_amount": "2"}, ["minimum_amount"]),
        ({"amount": "1", "minimum_amount": "0"}, ["minimum_amount"]),
        ({"amount": "1", "lifetime_ms": 86_400_001}, ["lifetime_ms"]),
        ({"amount": "1", "lifetime_ms": -1}, ["lifetime_ms"]),
        ({"amount": "1", "request_id": "x" * 129}, ["request_id"]),
    ],
)
def test_what_cannot_be_held_is_refused_by_field(
    account: Account, fields: dict[str, object], at_fault: list[str]
) -> None:
    request = pb.ReserveRequest(customer_key=account.customer, feature_key=account.feature, **fields)  # type: ignore[arg-type]
    failed = refusal(account.stub.Reserve, request)
    assert failed.code == "INVALID_ARGUMENT"
    assert list(failed.fields) == at_fault


def test_nobody_nothing_and_the_unknown_are_told_apart(account: Account) -> None:
    failed = refusal(account.stub.Reserve, pb.ReserveRequest(amount="1"))
    assert list(failed.fields) == ["customer_key", "feature_key"]
    unknown = pb.ReserveRequest(customer_key="nobody", feature_key=account.feature, amount="1")
    assert account.stub.Reserve(unknown).access.reason == Reason.ACCESS_REASON_CUSTOMER_UNKNOWN
    unknown = pb.ReserveRequest(customer_key=account.customer, feature_key="nothing", amount="1")
    assert account.stub.Reserve(unknown).access.reason == Reason.ACCESS_REASON_FEATURE_UNKNOWN
    for call, request in (
        (account.stub.SettleReservation, pb.SettleReservationRequest(reservation_id="rsv_x", amount="1")),
        (account.stub.ReleaseReservation, pb.ReleaseReservationRequest(reservation_id="rsv_x")),
        (account.stub.ExtendReservation, pb.ExtendReservationRequest(reservation_id="rsv_x")),
        (account.stub.RenewLease, pb.RenewLeaseRequest(reservation_id="rsv_x", used_amount="0", amount="1")),
        (account.stub.GetReservation, pb.GetReservationRequest(reservation_id="rsv_x")),
    ):
        assert refusal(call, request).code == "NOT_FOUND"


def test_a_boolean_feature_has_nothing_to_hold(shop: Shop) -> None:
    feature, customer = shop.feature(), shop.customer()
    draft = entitlement_pb2.Entitlement(customer_key=customer, feature_key=feature, boolean={})  # type: ignore[arg-type]
    shop.stubs.entitlements.CreateEntitlement(entitlement_pb2.CreateEntitlementRequest(entitlement=draft))
    request = pb.ReserveRequest(customer_key=customer, feature_key=feature, amount="1")
    failed = refusal(shop.stubs.reservations.Reserve, request)
    assert failed.code == "INVALID_ARGUMENT"
    assert list(failed.fields) == ["feature_key"]


def test_events_with_a_settlement_need_the_scope_to_record(
    server: ServerProcess, shop: Shop, account: Account
) -> None:
    made = account.reserve("1").reservation
    _, secret = key_with(shop.stubs, "check")
    checker = stubs_with(server, secret).reservations
    request = pb.SettleReservationRequest(
        reservation_id=made.reservation_id, amount="1", events=[account.event(1)]
    )
    failed = refusal(checker.SettleReservation, request)
    assert (failed.code, failed.reason) == ("PERMISSION_DENIED", "SCOPE_MISSING")
    del request.events[:]
    assert checker.SettleReservation(request).reservation.state == SETTLED


def test_the_command_line_reserves_settles_and_lists(
    account: Account, server: ServerProcess, tmp_path: Path
) -> None:
    terminal = Terminal(server.address)
    made = terminal.json("reservation", "reserve", account.customer, account.feature, "4", "--for", "5m")
    identity = made["reservation"]["reservation_id"]
    assert "6" in terminal.run("check", account.customer, account.feature).stdout
    assert "held" in terminal.run("check", account.customer, account.feature).stdout
    assert terminal.json("reservation", "extend", identity, "--for", "1h")["state"] == "STATE_HELD"
    refused = terminal.run("reservation", "reserve", account.customer, account.feature, "7", code=3)
    assert "limit reached" in refused.stdout
    line = {"id": unique("cli"), "source": "cli", "type": "hold.used", "subject": account.subject}
    events = tmp_path / "events.jsonl"
    events.write_text(json.dumps({**line, "properties": {"tokens": 3}}) + "\n")
    settled = terminal.json("reservation", "settle", identity, "3", "--events", str(events))
    assert settled["reservation"]["state"] == "STATE_SETTLED"
    assert account.stands() == ("7", "", "3")
    held = terminal.json(
        "reservation", "reserve", account.subject, account.feature, "9", "--subject", "--minimum", "1"
    )
    assert held["reservation"]["granted_amount"] == "7"
    released = terminal.run("reservation", "release", held["reservation"]["reservation_id"]).stdout
    assert "released" in released
    listed = terminal.run("reservation", "list", "--customer", account.customer).stdout
    assert "settled" in listed
    assert identity in terminal.run("reservation", "get", identity).stdout
    listed = terminal.json("reservation", "list", "--customer", account.customer, "--state", "settled")
    assert len(listed["reservations"]) == 1
    terminal.run("reservation", "extend", identity, "--for", "soon", code=2)
    events.write_text("{}\n")
    terminal.run("reservation", "settle", identity, "1", "--events", str(events), code=2)
