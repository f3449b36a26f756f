"""Each feature says what callers do who get no answer, and every answer carries it."""

from typing import Any

import pytest

from ammeter.v1 import catalog_pb2 as pb
from ammeter.v1 import entitlement_pb2
from tests.rpc.shop import Shop, unique
from tests.rpc.terminal import Terminal
from tests.rpc.wire import refusal
from tests.serving import ServerProcess, Stubs

CLOSED, OPEN, WITHIN = pb.FAIL_MODE_CLOSED, pb.FAIL_MODE_OPEN, pb.FAIL_MODE_OPEN_WITHIN


@pytest.fixture(scope="module")
def shop(stubs: Stubs) -> Shop:
    return Shop(stubs, "fail")


def read(shop: Shop, feature_key: str) -> pb.Feature:
    return shop.stubs.catalog.GetFeature(pb.GetFeatureRequest(feature_key=feature_key)).feature


def update(shop: Shop, feature_key: str, *paths: str, **fields: Any) -> pb.Feature:  # noqa: ANN401 - fields of Feature
    request = pb.UpdateFeatureRequest(feature=pb.Feature(feature_key=feature_key, **fields))
    request.update_mask.paths.extend(paths)
    return shop.stubs.catalog.UpdateFeature(request).feature


def told(shop: Shop, customer_key: str, feature_key: str) -> set[tuple[int, str]]:
    """What every way to ask says of it."""
    check = entitlement_pb2.EntitlementCheck(customer_key=customer_key, feature_key=feature_key)
    service = shop.stubs.entitlements
    answers = [
        service.CheckEntitlement(entitlement_pb2.CheckEntitlementRequest(check=check)).access,
        service.ExplainAccess(entitlement_pb2.ExplainAccessRequest(check=check)).access,
        *service.BatchCheckEntitlements(
            entitlement_pb2.BatchCheckEntitlementsRequest(checks=[check, check])
        ).accesses,
    ]
    listed = service.ListAccess(entitlement_pb2.ListAccessRequest(customer_key=customer_key)).features
    answers += [one.access for one in listed if one.feature_key == feature_key]
    return {(answer.fail_mode, answer.fail_allowance) for answer in answers}


def entitle(shop: Shop, feature_key: str, **kind: Any) -> str:  # noqa: ANN401 - fields of Entitlement
    customer = shop.customer()
    draft = entitlement_pb2.Entitlement(customer_key=customer, feature_key=feature_key, **kind)
    shop.stubs.entitlements.CreateEntitlement(entitlement_pb2.CreateEntitlementRequest(entitlement=draft))
    return customer


def test_a_feature_is_closed_unless_it_says_otherwise(shop: Shop) -> None:
    feature = shop.feature()
    assert (read(shop, feature).fail_mode, read(shop, feature).fail_allowance) == (CLOSED, "")
    assert told(shop, entitle(shop, feature, boolean={}), feature) == {(CLOSED, "")}


def test_every_answer_carries_the_mode_as_it_is_now(shop: Shop) -> None:
    feature = shop.feature(shop.meter(), fail_mode=WITHIN, fail_allowance="12.50")
    metered = {"allowance": "10", "usage_period": {"cadence": "P1M"}}
    customer = entitle(shop, feature, metered=metered)
    assert told(shop, customer, feature) == {(WITHIN, "12.5")}
    update(shop, feature, fail_mode=OPEN)
    assert told(shop, customer, feature) == {(OPEN, "")}


@pytest.mark.parametrize("entitled", [True, False])
def test_those_without_an_entitlement_are_told_too(shop: Shop, *, entitled: bool) -> None:
    feature = shop.feature(fail_mode=OPEN)
    config = {"static": {"config": {"seats": 3}}}
    customer = entitle(shop, feature, **config) if entitled else shop.customer()
    assert told(shop, customer, feature) == {(OPEN, "")}
    assert told(shop, customer, "nothing") == {(CLOSED, "")} if entitled else True
    check = entitlement_pb2.EntitlementCheck(customer_key="nobody", feature_key=feature)
    request = entitlement_pb2.CheckEntitlementRequest(check=check)
    assert shop.stubs.entitlements.CheckEntitlement(request).access.fail_mode == OPEN


def test_an_update_changes_what_it_names_and_the_etag(shop: Shop) -> None:
    feature = shop.feature(shop.meter(), fail_mode=WITHIN, fail_allowance="1")
    first = read(shop, feature)
    renamed = update(shop, feature, "name", name="new", fail_mode=OPEN)
    assert (renamed.name, renamed.fail_mode, renamed.fail_allowance) == ("new", WITHIN, "1")
    assert renamed.etag != first.etag
    assert update(shop, feature, "name", name="new") == renamed, "what changes nothing keeps it"
    unnamed = update(shop, feature, "name", "fail_mode")
    assert (unnamed.name, unnamed.fail_mode) == ("", CLOSED)
    assert update(shop, feature, fail_mode=WITHIN, fail_allowance="2").fail_allowance == "2"
    assert read(shop, feature).meter_key == first.meter_key


def test_an_update_of_an_older_state_is_refused(shop: Shop) -> None:
    feature = shop.feature()
    first = read(shop, feature)
    update(shop, feature, etag=first.etag, fail_mode=OPEN)
    stale = pb.Feature(feature_key=feature, etag=first.etag, fail_mode=CLOSED)
    failure = refusal(shop.stubs.catalog.UpdateFeature, pb.UpdateFeatureRequest(feature=stale))
    assert (failure.code, failure.reason) == ("ABORTED", "ETAG_MISMATCH")
    assert read(shop, feature).fail_mode == OPEN


@pytest.mark.parametrize(
    ("fields", "faulty"),
    [
        ({"fail_mode": 9}, "feature.fail_mode"),
        ({"fail_mode": WITHIN}, "feature.fail_allowance"),
        ({"fail_mode": WITHIN, "fail_allowance": "0"}, "feature.fail_allowance"),
        ({"fail_mode": WITHIN, "fail_allowance": "-1"}, "feature.fail_allowance"),
        ({"fail_mode": WITHIN, "fail_allowance": "many"}, "feature.fail_allowance"),
        ({"fail_mode": OPEN, "fail_allowance": "1"}, "feature.fail_allowance"),
        ({"fail_allowance": "1"}, "feature.fail_allowance"),
        ({"fail_mode": WITHIN, "fail_allowance": "1"}, "feature.fail_mode"),
    ],
)
def test_a_mode_that_says_nothing_clear_is_refused(shop: Shop, fields: dict[str, Any], faulty: str) -> None:
    draft = pb.Feature(feature_key=unique("f"), **fields)
    failure = refusal(shop.stubs.catalog.CreateFeature, pb.CreateFeatureRequest(feature=draft))
    assert faulty in failure.fields
    changed = pb.Feature(feature_key=shop.feature(), **fields)
    failure = refusal(shop.stubs.catalog.UpdateFeature, pb.UpdateFeatureRequest(feature=changed))
    assert faulty in failure.fields


def test_faults_of_the_mode_are_told_with_all_others(shop: Shop) -> None:
    draft = pb.Feature(feature_key="UPPER", fail_mode=OPEN, fail_allowance="1")
    failure = refusal(shop.stubs.catalog.CreateFeature, pb.CreateFeatureRequest(feature=draft))
    assert set(failure.fields) == {"feature.feature_key", "feature.fail_allowance"}


@pytest.mark.parametrize("path", ["meter_key", "filters", "fail_allowance", ""])
def test_what_a_feature_measures_cannot_be_named(shop: Shop, path: str) -> None:
    request = pb.UpdateFeatureRequest(feature=pb.Feature(feature_key=shop.feature()))
    request.update_mask.paths.append(path)
    assert "update_mask" in refusal(shop.stubs.catalog.UpdateFeature, request).fields


def test_the_command_line_sets_and_shows_it(shop: Shop, server: ServerProcess) -> None:
    terminal = Terminal(server.address)
    key = unique("cli")
    made = terminal.json("feature", "create", key, "--meter", shop.meter(), "--fail", "1000")
    assert (made["fail_mode"], made["fail_allowance"]) == ("FAIL_MODE_OPEN_WITHIN", "1000")
    assert terminal.json("feature", "update", key, "--fail", "open")["fail_mode"] == "FAIL_MODE_OPEN"
    assert "open" in terminal.run("feature", "get", key).stdout
    assert "without an answer" in terminal.run("feature", "list").stdout
    terminal.run("feature", "update", key, "--fail", "wide", code=1)
    terminal.run("feature", "update", key, code=2)
