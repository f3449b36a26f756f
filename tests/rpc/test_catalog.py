"""CatalogService over the wire."""

import time
from typing import Any

from google.protobuf.json_format import MessageToDict, ParseDict

from ammeter.v1 import catalog_pb2 as pb
from ammeter.v1 import meter_pb2, price_pb2, usage_pb2
from tests.rpc.wire import refusal
from tests.serving import Stubs


def create_meter(stubs: Stubs, key: str, aggregation: str = "SUM", *dimensions: str) -> None:
    meter = meter_pb2.Meter(
        meter_key=key,
        event_type="use",
        aggregation=meter_pb2.Aggregation.Value(f"AGGREGATION_{aggregation}"),
        value_property="" if aggregation == "COUNT" else "n",
        dimensions=dimensions,
    )
    stubs.meters.CreateMeter(meter_pb2.CreateMeterRequest(meter=meter))
    while (
        stubs.meters.GetMeter(meter_pb2.GetMeterRequest(meter_key=key)).meter.state
        != meter_pb2.Meter.STATE_ACTIVE
    ):
        time.sleep(0.02)


def create_feature(stubs: Stubs, key: str, meter_key: str = "", **filters: list[str]) -> pb.Feature:
    conditions = [
        usage_pb2.DimensionFilter(dimension=name, values=values) for name, values in filters.items()
    ]
    feature = pb.Feature(feature_key=key, meter_key=meter_key, filters=conditions)
    return stubs.catalog.CreateFeature(pb.CreateFeatureRequest(feature=feature)).feature


def test_features_are_read_back_listed_and_deleted(stubs: Stubs) -> None:
    create_meter(stubs, "cat_tokens", "SUM", "model")
    created = create_feature(stubs, "cat_large", "cat_tokens", model=["l", "xl"])
    assert stubs.catalog.GetFeature(pb.GetFeatureRequest(feature_key="cat_large")).feature == created
    assert created in stubs.catalog.ListFeatures(pb.ListFeaturesRequest()).features
    stubs.catalog.DeleteFeature(pb.DeleteFeatureRequest(feature_key="cat_large"))
    failure = refusal(stubs.catalog.GetFeature, pb.GetFeatureRequest(feature_key="cat_large"))
    assert (failure.code, failure.reason) == ("NOT_FOUND", "NOT_FOUND")


def test_a_meter_that_a_feature_uses_stays(stubs: Stubs) -> None:
    create_meter(stubs, "cat_used")
    create_feature(stubs, "cat_using", "cat_used")
    failure = refusal(stubs.meters.DeleteMeter, meter_pb2.DeleteMeterRequest(meter_key="cat_used"))
    assert (failure.code, failure.reason) == ("FAILED_PRECONDITION", "IN_USE")


PLAN = {
    "planKey": "cat_basic",
    "name": "Basic",
    "currency": "EUR",
    "billingCadence": "P1M",
    "rateCards": [
        {"rateCardKey": "base", "name": "Base fee", "price": {"flat": {"amount": "20"}}},
        {"rateCardKey": "setup", "price": {"flat": {"amount": "5"}}, "oneTime": True},
        {
            "rateCardKey": "year",
            "price": {"flat": {"amount": "9"}},
            "billingCadence": "P1Y",
            "inAdvance": True,
        },
        {
            "rateCardKey": "use",
            "featureKey": "cat_metered",
            "price": {"unit": {"unitAmount": "0.000000000001"}},
            "entitlement": {"metered": {"allowance": "1000000", "softLimit": True}},
        },
        {
            "rateCardKey": "models",
            "featureKey": "cat_static",
            "entitlement": {
                "static": {"config": {"max": 3.0, "names": ["s", None, 1.5], "deep": {"a": True}}}
            },
        },
        {"rateCardKey": "sso", "featureKey": "cat_boolean", "entitlement": {"boolean": {}}},
    ],
}


def test_a_plan_is_read_back_as_created_and_archived_once(stubs: Stubs) -> None:
    create_meter(stubs, "cat_meter")
    create_feature(stubs, "cat_metered", "cat_meter")
    create_feature(stubs, "cat_static")
    create_feature(stubs, "cat_boolean")
    created = stubs.catalog.CreatePlan(pb.CreatePlanRequest(plan=ParseDict(PLAN, pb.Plan()))).plan
    said = MessageToDict(created)
    assert said.pop("state") == "STATE_ACTIVE"
    assert said.pop("createTime") == said.pop("publishTime") == said.pop("updateTime")
    assert (said.pop("version"), said.pop("etag")) == (1, '"1.1"')
    assert said == PLAN
    assert stubs.catalog.GetPlan(pb.GetPlanRequest(plan_key="cat_basic")).plan == created
    assert created in stubs.catalog.ListPlans(pb.ListPlansRequest()).plans
    archived = stubs.catalog.ArchivePlan(pb.ArchivePlanRequest(plan_key="cat_basic")).plan
    assert archived.state == pb.Plan.STATE_ARCHIVED
    assert stubs.catalog.ArchivePlan(pb.ArchivePlanRequest(plan_key="cat_basic")).plan == archived
    in_use = refusal(stubs.catalog.DeleteFeature, pb.DeleteFeatureRequest(feature_key="cat_static"))
    assert (in_use.code, in_use.reason) == ("FAILED_PRECONDITION", "IN_USE")


def test_every_fault_of_a_plan_has_its_path(stubs: Stubs) -> None:
    plan = pb.Plan(
        plan_key="cat_faulty",
        rate_cards=[
            pb.RateCard(rate_card_key="a", price=price_pb2.Price()),
            pb.RateCard(rate_card_key="b", price=price_pb2.Price(flat=price_pb2.FlatPrice(amount="1.005"))),
            pb.RateCard(rate_card_key="c", feature_key="cat_nothing"),
        ],
    )
    plan.rate_cards.add(rate_card_key="d", feature_key="cat_nothing").entitlement.SetInParent()
    failure = refusal(stubs.catalog.CreatePlan, pb.CreatePlanRequest(plan=plan))
    assert sorted(failure.fields) == [
        "plan.rate_cards[0].price",
        "plan.rate_cards[1].price.flat.amount",
        "plan.rate_cards[2].feature_key",
        "plan.rate_cards[3].entitlement",
        "plan.rate_cards[3].feature_key",
    ]


def test_a_configuration_with_what_json_cannot_hold_is_refused(stubs: Stubs) -> None:
    create_feature(stubs, "cat_config")
    for value in (float("nan"), float("inf"), "a\0b"):
        plan = pb.Plan(plan_key="cat_config")
        card = plan.rate_cards.add(rate_card_key="a", feature_key="cat_config")
        card.entitlement.static.config.update({"x": value})
        failure = refusal(stubs.catalog.CreatePlan, pb.CreatePlanRequest(plan=plan))
        (field,) = failure.fields
        assert field.startswith("plan.rate_cards[0].entitlement.static.config")


TIERS = [{"upTo": "100.5", "unitAmount": "0.5", "flatAmount": "1.5"}, {"flatAmount": "0"}]
PRICES: dict[str, Any] = {
    "flat": {"amount": "20"},
    "unit": {"unitAmount": "0"},
    "graduated": {"tiers": TIERS},
    "volume": {"tiers": TIERS},
    "package": {"packageSize": "1000", "packageAmount": "0.0001"},
    "percentage": {
        "percentage": "2.9",
        "eventAmount": "0.3",
        "freeAmount": "0",
        "freeEventCount": "9223372036854775807",
    },
    "graduatedPercentage": {"tiers": [{"upTo": "1", "percentage": "100"}, {"percentage": "0"}]},
    "dynamic": {"multiplier": "1.2"},
    "matrix": {
        "dimensions": ["region", "model"],
        "cells": [{"values": ["eu", ""], "unitAmount": "1"}, {"values": ["", "x"], "unitAmount": "0"}],
        "defaultUnitAmount": "3",
    },
}
AROUND: list[dict[str, Any]] = [
    {"unitConversion": {"divideBy": "1000", "rounding": "ROUNDING_CEILING", "precision": 2}},
    {"unitConversion": {"multiplyBy": "60"}, "discounts": {"usageQuantity": "5", "percentage": "100"}},
    {"unitConversion": {"rounding": "ROUNDING_HALF_UP"}, "commitments": {"minimumAmount": "0"}},
    {"discounts": {"percentage": "0.5"}, "commitments": {"minimumAmount": "1", "maximumAmount": "1.01"}},
    {"unitConversion": {"divideBy": "3", "rounding": "ROUNDING_FLOOR"}},
]


def test_every_kind_of_price_is_read_back_as_created(stubs: Stubs) -> None:
    create_meter(stubs, "cat_prices", "SUM", "model", "region")
    cards: list[dict[str, Any]] = []
    for kind, price in PRICES.items():
        cards.append({"rateCardKey": f"k{len(cards)}", "price": {kind: price}})
        if kind != "flat":
            feature_key = f"cat_price{len(cards)}"
            create_feature(stubs, feature_key, "cat_prices")
            cards[-1]["featureKey"] = feature_key
    for card, around in zip(cards[1:], AROUND, strict=False):
        card.update(around)
    cards[0]["inAdvance"] = True
    plan = {
        "planKey": "cat_prices",
        "currency": "USD",
        "billingCadence": "P1M",
        "rateCards": cards,
        "minimumAmount": "99.5",
    }
    created = stubs.catalog.CreatePlan(pb.CreatePlanRequest(plan=ParseDict(plan, pb.Plan()))).plan
    said = MessageToDict(created)
    for name in ("state", "createTime", "publishTime", "updateTime", "version", "etag"):
        assert said.pop(name)
    assert said == plan
    plan["planKey"] = "cat_drafted"
    drafted = stubs.catalog.DraftPlan(pb.DraftPlanRequest(plan=ParseDict(plan, pb.Plan()))).plan
    assert not drafted.issues
    assert {name: MessageToDict(drafted)[name] for name in plan} == plan, "drafts keep what was sent"
    published = stubs.catalog.PublishPlan(pb.PublishPlanRequest(plan_key="cat_drafted")).plan
    assert {name: MessageToDict(published)[name] for name in plan} == plan
    assert stubs.catalog.GetPlan(pb.GetPlanRequest(plan_key="cat_prices")).plan == created


def test_faults_of_prices_have_their_paths(stubs: Stubs) -> None:
    create_meter(stubs, "cat_faults", "SUM", "model")
    create_feature(stubs, "cat_faults", "cat_faults")
    card = {
        "rateCardKey": "a",
        "featureKey": "cat_faults",
        "price": {"matrix": {"dimensions": ["region"], "cells": [{"values": []}]}},
        "unitConversion": {"rounding": 9},
        "discounts": {"usageQuantity": "1"},
    }
    tiers = [{"upTo": "5"}, {"upTo": "4", "unitAmount": "-1"}]
    other = {"rateCardKey": "b", "price": {"volume": {"tiers": tiers}}}
    plan = {"planKey": "cat_faults", "rateCards": [card, other], "minimumAmount": "1.001"}
    request = pb.CreatePlanRequest(plan=ParseDict(plan, pb.Plan()))
    failure = refusal(stubs.catalog.CreatePlan, request)
    assert sorted(failure.fields) == [
        "plan.minimum_amount",
        "plan.rate_cards[0].discounts.usage_quantity",
        "plan.rate_cards[0].price.matrix.cells[0].unit_amount",
        "plan.rate_cards[0].price.matrix.cells[0].values",
        "plan.rate_cards[0].price.matrix.default_unit_amount",
        "plan.rate_cards[0].price.matrix.dimensions[0]",
        "plan.rate_cards[0].unit_conversion.rounding",
        "plan.rate_cards[1].feature_key",
        "plan.rate_cards[1].price.volume.tiers[0]",
        "plan.rate_cards[1].price.volume.tiers[1].unit_amount",
        "plan.rate_cards[1].price.volume.tiers[1].up_to",
    ]
