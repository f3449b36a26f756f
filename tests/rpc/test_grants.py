"""Entitlements by hand and grants over the wire, by the API and by the command line."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count

import pytest

from ammeter.v1 import entitlement_pb2 as pb
from ammeter.v1 import history_pb2
from ammeter.v1.catalog_pb2 import FAIL_MODE_CLOSED
from ammeter.v1.usage_pb2 import WINDOW_SIZE_HOUR, WINDOW_SIZE_MINUTE
from tests.rpc.shop import Shop, stamp, unique
from tests.rpc.terminal import Terminal
from tests.rpc.wire import refusal
from tests.serving import ServerProcess, Stubs

_events: Iterator[int] = count(1)


@pytest.fixture(scope="module")
def shop(stubs: Stubs) -> Shop:
    return Shop(stubs, "grants")


@pytest.fixture(scope="module")
def feature(shop: Shop) -> str:
    return shop.feature(shop.meter())


def entitle(shop: Shop, feature: str, customer: str, **metered: object) -> pb.Entitlement:
    fields: dict[str, object] = {"allowance": "10", "usage_period": {"cadence": "P1M"}, **metered}
    wanted = pb.Entitlement(
        customer_key=customer,
        feature_key=feature,
        metered=fields,  # type: ignore[arg-type]  # a dict will do
        from_time=datetime.now(UTC) - timedelta(days=1),  # type: ignore[arg-type]  # a datetime will do
    )
    request = pb.CreateEntitlementRequest(entitlement=wanted)
    return shop.stubs.entitlements.CreateEntitlement(request).entitlement


def grant(shop: Shop, entitlement: pb.Entitlement, amount: str, **fields: object) -> pb.Grant:
    wanted = pb.Grant(entitlement_id=entitlement.entitlement_id, amount=amount, **fields)  # type: ignore[arg-type]
    return shop.stubs.entitlements.CreateGrant(pb.CreateGrantRequest(grant=wanted)).grant


def check(shop: Shop, customer: str, feature: str) -> pb.Access:
    asked = pb.EntitlementCheck(customer_key=customer, feature_key=feature)
    return shop.stubs.entitlements.CheckEntitlement(pb.CheckEntitlementRequest(check=asked)).access


def test_grants_fill_what_use_empties_and_survive_a_restart(
    shop: Shop, feature: str, server: ServerProcess
) -> None:
    subject = unique("user")
    customer = shop.customer(subject)
    made = entitle(shop, feature, customer, preserve_overage=True)
    assert made.metered.usage_period.anchor_time == made.from_time
    shop.record(shop.event(subject, "12.5"))
    assert check(shop, customer, feature).overage == "2.5"
    first = grant(shop, made, "5", priority=-1, rollover_maximum="4")
    grant(shop, made, "7", recurrence={"cadence": "P1W"})
    shop.record(shop.event(subject, "1"))
    found = check(shop, customer, feature)
    assert (found.access, found.balance, found.allowance, found.usage) == (True, "8.5", "10", "13.5")
    voided = shop.stubs.entitlements.VoidGrant(pb.VoidGrantRequest(grant_id=first.grant_id)).grant
    assert voided.HasField("void_time")
    # In the minute that it began: it never counted, and the other pays the debt.
    assert check(shop, customer, feature).balance == "3.5"
    server.kill()
    server.start()
    again = Shop(server.stubs(), "grants")
    assert check(again, customer, feature).balance == "3.5"
    listed = again.stubs.entitlements.ListGrants(pb.ListGrantsRequest(entitlement_id=made.entitlement_id))
    assert [each.amount for each in listed.grants] == ["5", "7"]
    assert listed.grants[0] == voided
    shop.stubs = again.stubs


def test_grants_are_listed_in_pages(shop: Shop, feature: str) -> None:
    made = entitle(shop, feature, shop.customer())
    ids = [grant(shop, made, str(amount)).grant_id for amount in (1, 2, 3)]
    request = pb.ListGrantsRequest(entitlement_id=made.entitlement_id, page_size=2)
    first = shop.stubs.entitlements.ListGrants(request)
    request.page_token = first.next_page_token
    second = shop.stubs.entitlements.ListGrants(request)
    assert [each.grant_id for page in (first, second) for each in page.grants] == sorted(ids)
    assert not second.next_page_token


def test_a_reset_begins_a_period(shop: Shop, feature: str) -> None:
    subject = unique("user")
    customer = shop.customer(subject)
    made = entitle(shop, feature, customer)
    shop.record(shop.event(subject, "4", time=stamp(datetime.now(UTC) - timedelta(minutes=30))))
    assert check(shop, customer, feature).balance == "6"
    at = stamp(datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(minutes=10))
    request = pb.ResetUsageRequest(
        entitlement_id=made.entitlement_id, reset_time=at, move_anchor=True, preserve_overage=False
    )
    begun = shop.stubs.entitlements.ResetUsage(request)
    assert begun.period_start_time == at
    found = check(shop, customer, feature)
    assert (found.balance, found.period_start_time, found.period_end_time) == (
        "10",
        at,
        begun.period_end_time,
    )


def test_all_features_of_a_customer_at_once(shop: Shop, feature: str) -> None:
    customer = shop.customer()
    other = shop.feature()
    entitle(shop, feature, customer)
    wanted = pb.Entitlement(customer_key=customer, feature_key=other)
    wanted.static.config.update({"max": 2})
    shop.stubs.entitlements.CreateEntitlement(pb.CreateEntitlementRequest(entitlement=wanted))
    answer = shop.stubs.entitlements.ListAccess(pb.ListAccessRequest(customer_key=customer))
    found = {each.feature_key: each.access for each in answer.features}
    assert list(found) == sorted([feature, other])
    assert found[feature] == check(shop, customer, feature)
    assert found[other].config["max"] == 2
    nobody = refusal(shop.stubs.entitlements.ListAccess, pb.ListAccessRequest(customer_key="nobody"))
    assert nobody.code == "NOT_FOUND"
    early = refusal(
        shop.stubs.entitlements.ListAccess, pb.ListAccessRequest(customer_key=customer, min_position=-1)
    )
    assert list(early.fields) == ["min_position"]


def test_overlaps_and_overrides(shop: Shop, feature: str) -> None:
    customer = shop.customer()
    first = entitle(shop, feature, customer)
    wanted = pb.Entitlement(customer_key=customer, feature_key=feature, boolean=pb.BooleanEntitlement())
    failure = refusal(
        shop.stubs.entitlements.CreateEntitlement, pb.CreateEntitlementRequest(entitlement=wanted)
    )
    assert (failure.code, failure.reason) == ("FAILED_PRECONDITION", "FEATURE_OVERLAP")
    assert first.entitlement_id in failure.message
    answer = shop.stubs.entitlements.OverrideEntitlement(pb.OverrideEntitlementRequest(entitlement=wanted))
    assert answer.overridden.entitlement_id == first.entitlement_id
    assert answer.overridden.to_time == answer.entitlement.from_time
    assert check(shop, customer, feature) == pb.Access(
        access=True, reason=pb.ACCESS_REASON_ALLOWED, fail_mode=FAIL_MODE_CLOSED
    )
    request = pb.DeleteEntitlementRequest(entitlement_id=answer.entitlement.entitlement_id)
    ended = shop.stubs.entitlements.DeleteEntitlement(request).entitlement
    assert ended.HasField("to_time")
    assert check(shop, customer, feature).reason == pb.ACCESS_REASON_ENTITLEMENT_NOT_ACTIVE
    again = refusal(shop.stubs.entitlements.DeleteEntitlement, request)
    assert (again.code, again.reason) == ("FAILED_PRECONDITION", "WRONG_STATE")
    nothing = refusal(
        shop.stubs.entitlements.OverrideEntitlement, pb.OverrideEntitlementRequest(entitlement=wanted)
    )
    assert nothing.reason == "WRONG_STATE"


def test_faults_name_their_fields(shop: Shop, feature: str) -> None:
    made = entitle(shop, feature, shop.customer())
    wanted = pb.Grant(
        entitlement_id=made.entitlement_id,
        amount="0",
        priority=5000,
        rollover_minimum="2",
        rollover_maximum="1",
        recurrence=pb.Recurrence(),
    )
    failure = refusal(shop.stubs.entitlements.CreateGrant, pb.CreateGrantRequest(grant=wanted))
    assert failure.code == "INVALID_ARGUMENT"
    assert set(failure.fields) == {
        "grant.amount",
        "grant.priority",
        "grant.rollover_minimum",
        "grant.recurrence.cadence",
    }
    unset = pb.Entitlement(customer_key=made.customer_key, feature_key=feature)
    unset.metered.usage_period.SetInParent()
    failure = refusal(
        shop.stubs.entitlements.CreateEntitlement, pb.CreateEntitlementRequest(entitlement=unset)
    )
    assert list(failure.fields) == ["entitlement.metered.usage_period.cadence"]
    for call, request in (
        (shop.stubs.entitlements.CreateGrant, pb.CreateGrantRequest()),
        (shop.stubs.entitlements.VoidGrant, pb.VoidGrantRequest(grant_id="grt_x")),
        (shop.stubs.entitlements.ListGrants, pb.ListGrantsRequest(entitlement_id="ent_x")),
        (shop.stubs.entitlements.ResetUsage, pb.ResetUsageRequest(entitlement_id="ent_x")),
        (shop.stubs.entitlements.DeleteEntitlement, pb.DeleteEntitlementRequest(entitlement_id="ent_x")),
    ):
        assert refusal(call, request).code == "NOT_FOUND"


def test_history_and_explanation_agree_with_checks(shop: Shop, feature: str) -> None:
    subject = unique("user")
    customer = shop.customer(subject)
    made = entitle(shop, feature, customer)
    shop.record(shop.event(subject, "11"))
    added = grant(shop, made, "5")
    asked = pb.EntitlementCheck(customer_key=customer, feature_key=feature, amount="4.5")
    answer = shop.stubs.entitlements.ExplainAccess(pb.ExplainAccessRequest(check=asked))
    checked = shop.stubs.entitlements.CheckEntitlement(pb.CheckEntitlementRequest(check=asked))
    assert answer.access == checked.access
    assert answer.entitlement == made
    assert [each.grant_id for each in answer.segment.grants] == ["", added.grant_id]
    assert answer.sentences[-1].startswith("No for 4.5")
    request = history_pb2.GetEntitlementHistoryRequest(
        entitlement_id=made.entitlement_id, window_size=WINDOW_SIZE_HOUR, time_zone="Europe/Berlin"
    )
    told = shop.stubs.entitlements.GetEntitlementHistory(request)
    assert told.segments[-1].end_balance == checked.access.balance == "4"
    assert sum(float(each.usage) for each in told.windows) == 11
    assert told.segments[0].ends[0].grant_id == added.grant_id
    assert told.segments[0].ends[0].cause == history_pb2.SegmentEnd.CAUSE_GRANT_STARTED
    assert told.position == checked.position
    request.window_size, request.time_zone = WINDOW_SIZE_MINUTE, ""
    assert list(refusal(shop.stubs.entitlements.GetEntitlementHistory, request).fields) == ["window_size"]
    request.window_size, request.time_zone = WINDOW_SIZE_HOUR, "Mars"
    assert list(refusal(shop.stubs.entitlements.GetEntitlementHistory, request).fields) == ["time_zone"]
    malformed = refusal(shop.stubs.entitlements.ExplainAccess, pb.ExplainAccessRequest())
    assert set(malformed.fields) == {"check.customer_key", "check.feature_key"}


def test_the_command_line_grants_and_takes_back(shop: Shop, feature: str, server: ServerProcess) -> None:
    terminal = Terminal(server.address)
    customer = shop.customer()
    made = terminal.json(
        "entitlement", "create", customer, feature, "--every", "P1M", "--allowance", "10", "--from", "1d"
    )
    identity = made["entitlement_id"]
    granted = terminal.json("grant", "create", identity, "5", "--every", "P1D", "--rollover-maximum", "1")
    assert granted["recurrence"]["cadence"] == "P1D"
    assert "15" in terminal.run("check", customer, feature).stdout
    assert "15 is left" in terminal.run("explain", customer, feature).stdout
    told = terminal.run("entitlement", "history", identity, "--hours").stdout
    assert f"grant started {granted['grant_id']}" in told
    assert "P1D" in terminal.run("grant", "list", identity).stdout
    assert terminal.json("grant", "void", granted["grant_id"])["void_time"]
    assert terminal.json("access", customer)["features"][0]["access"]["balance"] == "10"
    assert "yes" in terminal.run("access", customer).stdout
    assert "period" in terminal.run("entitlement", "reset", identity, "--at", "5m", "--move-anchor").stdout
    assert "by hand" in terminal.run("entitlement", "list", customer).stdout
    terminal.run("entitlement", "create", customer, feature, "--override", "--config", '{"max": 3}')
    listed = terminal.json("entitlement", "list", customer)["entitlements"]
    assert listed[0]["entitlement_id"] == identity
    assert listed[1]["static"] == {"config": {"max": 3.0}}
    assert "entitlement" in terminal.run("entitlement", "delete", listed[1]["entitlement_id"]).stdout
    terminal.run("check", customer, feature, code=3)
    bad = terminal.run("entitlement", "create", customer, feature, "--config", "[1]", code=2)
    assert "JSON object" in bad.stderr
