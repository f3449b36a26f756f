"""NotificationService over the wire: rules, and each thing told once."""

from itertools import islice
from typing import Any

import pytest

from ammeter.v1 import access_pb2, entitlement_pb2, reservation_pb2
from ammeter.v1 import notification_pb2 as pb
from tests.rpc.shop import Shop, eventually, minutes_ago, stamp, unique
from tests.rpc.terminal import Terminal
from tests.rpc.wire import refusal
from tests.serving import ServerProcess, Stubs

USAGE, BALANCE, LOW, EXHAUSTED, RESET = range(1, 6)


@pytest.fixture(scope="module")
def shop(stubs: Stubs) -> Shop:
    return Shop(stubs, "told")


class Account:
    """A customer with an allowance of a feature of its own, and what its rules told."""

    def __init__(self, shop: Shop, allowance: str = "100", **metered: Any) -> None:  # noqa: ANN401 - fields
        self.shop = shop
        self.subject = unique("user")
        self.feature = shop.feature(shop.meter())
        self.customer = shop.customer(self.subject)
        fields = {"allowance": allowance, "usage_period": {"cadence": "P1M"}, **metered}
        draft = entitlement_pb2.Entitlement(
            customer_key=self.customer,
            feature_key=self.feature,
            metered=fields,  # type: ignore[arg-type]
            from_time=stamp(minutes_ago(60 * 24 * 20)),
        )
        request = entitlement_pb2.CreateEntitlementRequest(entitlement=draft)
        self.entitlement = shop.stubs.entitlements.CreateEntitlement(request).entitlement

    def rule(self, kind: int, **fields: Any) -> str:  # noqa: ANN401 - fields of Threshold
        return self.shop.threshold(kind=kind, feature_key=self.feature, **fields).threshold_id

    def use(self, tokens: object, **fields: Any) -> None:  # noqa: ANN401 - fields of UsageEvent
        self.shop.record(self.shop.event(self.subject, tokens, **fields))

    def told(self) -> list[pb.Notification]:
        request = pb.ListNotificationsRequest(feature_key=self.feature)
        return list(self.shop.stubs.notifications.ListNotifications(request).notifications)

    def hears(self, *rules: str) -> list[pb.Notification]:
        """Wait until these rules, and no others, have told; returns what."""
        eventually(lambda: len(self.told()) >= len(rules))
        told = self.told()
        assert sorted(one.threshold.threshold_id for one in told) == sorted(rules)
        return told

    def settle(self) -> None:
        """Wait until all that was used was looked at: a further rule tells what is so."""
        rule = self.rule(BALANCE, amount="0")
        eventually(lambda: any(one.threshold.threshold_id == rule for one in self.told()))
        self.shop.stubs.notifications.DeleteThreshold(pb.DeleteThresholdRequest(threshold_id=rule))


def test_exactly_all_of_it_is_a_hundred_percent(shop: Shop) -> None:
    account = Account(shop)
    most, full, none = (
        account.rule(USAGE, percent="80"),
        account.rule(USAGE, percent="100"),
        account.rule(EXHAUSTED),
    )
    account.use("79.999999999999")
    account.use("0.000000000001")
    (first,) = account.hears(most)
    assert (first.usage, first.balance, first.overage) == ("80", "20", "0")
    assert (first.entitlement_id, first.customer_key) == (
        account.entitlement.entitlement_id,
        account.customer,
    )
    times = (first.period_start_time, first.create_time, first.period_end_time)
    assert sorted(one.seconds for one in times) == [one.seconds for one in times]
    account.use("20")
    told = account.hears(most, full, none)
    assert [one.usage for one in told] == ["80", "100", "100"]
    assert [one.sequence for one in told] == sorted(one.sequence for one in told)


def test_each_thing_is_told_once_whatever_goes_up_and_down(shop: Shop) -> None:
    account = Account(shop)
    half, low = account.rule(USAGE, percent="50"), account.rule(LOW, amount="40")
    account.use("60")
    account.hears(half, low)
    for tokens in ("-60", "60", "-30", "100", "5"):
        account.use(tokens)
    account.use("5", time=stamp(minutes_ago(60 * 24)))
    overrun = account.rule(USAGE, percent="120")
    account.hears(half, low, overrun)
    assert account.told()[-1].overage == "40"


def test_a_rule_tells_at_once_what_holds_already_and_of_each_entitlement(shop: Shop) -> None:
    account = Account(shop)
    account.use("10")
    rule = account.rule(USAGE, amount="10")
    account.hears(rule)
    other = shop.customer("other-" + account.subject)
    metered = {"allowance": "5", "usage_period": {"cadence": "P1M"}}
    draft = entitlement_pb2.Entitlement(customer_key=other, feature_key=account.feature, metered=metered)  # type: ignore[arg-type]
    shop.stubs.entitlements.CreateEntitlement(entitlement_pb2.CreateEntitlementRequest(entitlement=draft))
    shop.record(shop.event("other-" + account.subject, 30))
    account.hears(rule, rule)
    about = account.told()[1]
    assert (about.customer_key, about.overage) == (other, "25")
    request = pb.ListNotificationsRequest(customer_key=other)
    assert list(shop.stubs.notifications.ListNotifications(request).notifications) == [about]


def test_grants_move_percentages_and_a_reset_by_hand_begins_anew(shop: Shop) -> None:
    account = Account(shop)
    rule, reset = account.rule(USAGE, percent="90"), account.rule(RESET)
    grant = entitlement_pb2.Grant(entitlement_id=account.entitlement.entitlement_id, amount="100")
    shop.stubs.entitlements.CreateGrant(entitlement_pb2.CreateGrantRequest(grant=grant))
    account.use("179")
    account.use("1")
    (told,) = account.hears(rule)
    assert (told.usage, told.balance) == ("180", "20")
    request = entitlement_pb2.ResetUsageRequest(
        entitlement_id=account.entitlement.entitlement_id, reset_time=stamp(minutes_ago(0))
    )
    begun = shop.stubs.entitlements.ResetUsage(request)
    late = account.rule(EXHAUSTED)
    account.use("2000")
    eventually(lambda: len(account.told()) >= 3)
    after = account.told()[1:]
    assert {one.threshold.threshold_id for one in after} <= {rule, reset, late}
    assert begun.period_start_time in [one.period_start_time for one in after]


def test_a_deleted_rule_is_silent_and_what_it_told_stays(shop: Shop) -> None:
    account = Account(shop)
    gone, kept = account.rule(USAGE, amount="1"), account.rule(USAGE, amount="2")
    account.use("1")
    account.hears(gone)
    shop.stubs.notifications.DeleteThreshold(pb.DeleteThresholdRequest(threshold_id=gone))
    failure = refusal(shop.stubs.notifications.GetThreshold, pb.GetThresholdRequest(threshold_id=gone))
    assert failure.code == "NOT_FOUND"
    account.use("1")
    first, _ = account.hears(gone, kept)
    assert first.threshold.amount == "1"


def test_watching_goes_on_from_any_sequence_without_a_gap(shop: Shop) -> None:
    account = Account(shop, "1000")
    rules = [account.rule(USAGE, amount=str(10 * level)) for level in range(1, 11)]
    request = pb.WatchNotificationsRequest(feature_key=account.feature)
    stream = shop.stubs.notifications.WatchNotifications(request, timeout=30)
    for _ in range(10):
        account.use("10")
    heard = [answer.notification for answer in islice(stream, 10)]
    stream.cancel()
    assert [one.threshold.threshold_id for one in heard] == rules
    for number, one in enumerate(heard):
        request.after_sequence = one.sequence
        again = shop.stubs.notifications.WatchNotifications(request, timeout=30)
        rest = [answer.notification for answer in islice(again, 9 - number)]
        again.cancel()
        assert rest == heard[number + 1 :]
    assert account.told() == heard


def test_after_a_death_nothing_is_told_twice_and_nothing_is_missing(
    server: ServerProcess, shop: Shop
) -> None:
    account = Account(shop, "1000")
    rules = [account.rule(USAGE, percent=str(level)) for level in (1, 2, 50)]
    account.use("15")
    account.hears(rules[0])
    account.use("10")
    server.restart()
    account.hears(*rules[:2])
    account.use("500")
    account.hears(*rules)


@pytest.mark.parametrize(
    ("fields", "faulty"),
    [
        ({}, {"threshold.kind"}),
        ({"kind": 77}, {"threshold.kind"}),
        ({"kind": USAGE}, {"threshold.amount"}),
        ({"kind": USAGE, "amount": "1", "percent": "1"}, {"threshold.amount"}),
        ({"kind": USAGE, "amount": "0"}, {"threshold.amount"}),
        ({"kind": LOW, "percent": "-1"}, {"threshold.percent"}),
        ({"kind": BALANCE, "amount": "much"}, {"threshold.amount"}),
        ({"kind": RESET, "amount": "1", "percent": "x"}, {"threshold.amount", "threshold.percent"}),
    ],
)
def test_a_rule_that_says_nothing_clear_is_refused(
    shop: Shop, fields: dict[str, Any], faulty: set[str]
) -> None:
    request = pb.CreateThresholdRequest(threshold=pb.Threshold(**fields))
    failure = refusal(shop.stubs.notifications.CreateThreshold, request)
    assert (failure.code, set(failure.fields)) == ("INVALID_ARGUMENT", faulty)


def test_a_rule_about_nothing_there_is_refused(shop: Shop) -> None:
    create = shop.stubs.notifications.CreateThreshold
    for about, code in (
        ({"customer_key": "nobody"}, "NOT_FOUND"),
        ({"feature_key": "nothing"}, "NOT_FOUND"),
        ({"feature_key": shop.feature()}, "INVALID_ARGUMENT"),
    ):
        threshold = pb.Threshold(kind=EXHAUSTED, **about)  # type: ignore[arg-type]
        assert refusal(create, pb.CreateThresholdRequest(threshold=threshold)).code == code
    failure = refusal(
        shop.stubs.notifications.ListNotifications, pb.ListNotificationsRequest(after_sequence=-1)
    )
    assert set(failure.fields) == {"after_sequence"}


def test_the_command_line_makes_rules_and_shows_what_they_told(shop: Shop, server: ServerProcess) -> None:
    account, terminal = Account(shop), Terminal(server.address)
    made = terminal.json("threshold", "create", "usage", "80%", "--feature", account.feature)
    assert (made["kind"], made["percent"]) == ("THRESHOLD_KIND_USAGE", "80")
    account.use("80")
    account.hears(made["threshold_id"])
    assert made["threshold_id"] in terminal.run("threshold", "list").stdout
    assert "80%" in terminal.run("threshold", "get", made["threshold_id"]).stdout
    listed = terminal.run("notification", "list", "--feature", account.feature).stdout
    assert account.customer in listed
    child = terminal.popen("notification", "watch", "--feature", account.feature)
    assert child.stdout is not None
    assert account.customer in child.stdout.readline()
    child.terminate()
    child.communicate()
    terminal.run("threshold", "delete", made["threshold_id"])
    terminal.run("threshold", "create", "sometimes", code=2)


def test_holds_are_watched_and_what_is_told_is_usage(shop: Shop) -> None:
    account = Account(shop)
    low, spent, most = (
        account.rule(LOW, amount="40"),
        account.rule(EXHAUSTED),
        account.rule(USAGE, percent="80"),
    )
    request = access_pb2.WatchAccessRequest(customer_keys=[account.customer], feature_keys=[account.feature])
    stream = shop.stubs.access.WatchAccess(request, timeout=60)
    seen: list[tuple[int, int, int, str]] = []

    def watched(*wanted: object) -> None:
        """Read until a state says so; hold and usage change places at once in all of them."""
        while not seen or seen[-1] != wanted:
            access = next(stream).state.access
            if access.balance:
                balance, held, usage = (
                    int(text or "0") for text in (access.balance, access.held, access.usage)
                )
                assert balance + held + usage == 100 + int(access.overage), access
                seen.append((balance, held, usage, "yes" if access.access else "no"))

    def told(*rules: str) -> None:
        def ours() -> set[str]:
            return {one.threshold.threshold_id for one in account.told()} & {low, spent, most}

        eventually(lambda: len(ours()) >= len(rules))
        assert ours() == {*rules}

    def reserve(amount: int) -> str:
        wanted = reservation_pb2.ReserveRequest(
            customer_key=account.customer, feature_key=account.feature, amount=str(amount)
        )
        return shop.stubs.reservations.Reserve(wanted).reservation.reservation_id

    def settle(reservation_id: str, used: int) -> None:
        shop.stubs.reservations.SettleReservation(
            reservation_pb2.SettleReservationRequest(
                reservation_id=reservation_id,
                amount=str(used),
                events=[shop.event(account.subject, used)],
            )
        )

    watched(100, 0, 0, "yes")
    first = reserve(70)
    watched(30, 70, 0, "yes")
    account.settle()
    told()
    settle(first, 65)
    watched(35, 0, 65, "yes")
    told(low)
    rest = reserve(35)
    watched(0, 35, 65, "no")
    account.settle()
    told(low)
    shop.stubs.reservations.ReleaseReservation(reservation_pb2.ReleaseReservationRequest(reservation_id=rest))
    watched(35, 0, 65, "yes")
    settle(reserve(30), 36)
    watched(0, 0, 101, "no")
    told(low, spent, most)
    stream.cancel()
