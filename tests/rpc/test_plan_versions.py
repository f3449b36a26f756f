"""Versions and phases of plans over the wire."""

from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict, ParseDict

from ammeter.v1 import catalog_pb2 as pb
from ammeter.v1 import entitlement_pb2 as ent
from ammeter.v1 import subscription_pb2
from tests.rpc.shop import Shop, flat, minutes_ago, unique
from tests.rpc.wire import refusal
from tests.serving import Stubs


@pytest.fixture(scope="module")
def shop(stubs: Stubs) -> Shop:
    return Shop(stubs, "versions")


def version(shop: Shop, key: str, number: int = 0) -> pb.Plan:
    return shop.stubs.catalog.GetPlan(pb.GetPlanRequest(plan_key=key, version=number)).plan


def test_a_plan_is_drafted_mended_published_and_followed_by_another(shop: Shop) -> None:
    key = unique("plan")
    faulty = pb.Plan(plan_key=key, rate_cards=[flat("1.005")], currency="EUR")
    drafted = shop.stubs.catalog.DraftPlan(pb.DraftPlanRequest(plan=faulty)).plan
    assert (drafted.version, drafted.state) == (1, pb.Plan.STATE_DRAFT)
    assert [one.field for one in drafted.issues] == ["plan.rate_cards[0].price.flat.amount"]
    assert version(shop, key) == drafted
    second = refusal(shop.stubs.catalog.DraftPlan, pb.DraftPlanRequest(plan=faulty))
    assert (second.code, second.reason) == ("FAILED_PRECONDITION", "WRONG_STATE")
    early = refusal(shop.stubs.catalog.PublishPlan, pb.PublishPlanRequest(plan_key=key))
    assert early.code == "INVALID_ARGUMENT"
    assert list(early.fields) == ["plan.rate_cards[0].price.flat.amount"]
    mended = pb.Plan(plan_key=key, rate_cards=[flat("1")], etag=drafted.etag)
    request = pb.UpdatePlanRequest(plan=mended)
    request.update_mask.paths.append("rate_cards")
    updated = shop.stubs.catalog.UpdatePlan(request).plan
    assert (updated.currency, len(updated.issues), updated.rate_cards[0]) == ("EUR", 0, flat("1"))
    stale = refusal(shop.stubs.catalog.UpdatePlan, request)
    assert (stale.code, stale.reason) == ("ABORTED", "ETAG_MISMATCH")
    stale = refusal(shop.stubs.catalog.PublishPlan, pb.PublishPlanRequest(plan_key=key, etag=drafted.etag))
    assert stale.reason == "ETAG_MISMATCH"
    publish = pb.PublishPlanRequest(plan_key=key, etag=updated.etag)
    published = shop.stubs.catalog.PublishPlan(publish).plan
    assert (published.version, published.state) == (1, pb.Plan.STATE_ACTIVE)
    assert published.publish_time == published.update_time
    frozen = refusal(shop.stubs.catalog.UpdatePlan, pb.UpdatePlanRequest(plan=mended))
    assert (frozen.code, frozen.reason) == ("FAILED_PRECONDITION", "WRONG_STATE")
    assert list(frozen.fields) == ["plan.plan_key"]
    shop.draft(flat("2"), plan_key=key)
    assert version(shop, key) == published
    shop.stubs.catalog.PublishPlan(pb.PublishPlanRequest(plan_key=key))
    assert version(shop, key).version == 2
    assert version(shop, key, 1).state == pb.Plan.STATE_ARCHIVED
    listed = pb.ListPlansRequest(plan_key=key, page_size=1)
    first = shop.stubs.catalog.ListPlans(listed)
    listed.page_token = first.next_page_token
    rest = shop.stubs.catalog.ListPlans(listed)
    assert [one.version for one in (*first.plans, *rest.plans)] == [2, 1]
    assert not rest.next_page_token


PHASED: dict[str, Any] = {
    "name": "With a trial",
    "currency": "USD",
    "billingCadence": "P1M",
    "phases": [
        {"phaseKey": "trial", "name": "Trial", "duration": "P14D"},
        {
            "phaseKey": "intro",
            "duration": "P3M",
            "rateCards": [{"rateCardKey": "base", "price": {"flat": {"amount": "10"}}}],
        },
        {
            "phaseKey": "paid",
            "rateCards": [{"rateCardKey": "base", "price": {"flat": {"amount": "20"}}, "inAdvance": True}],
        },
    ],
}


@pytest.mark.parametrize("at_once", [True, False])
def test_a_plan_with_phases_is_read_back_as_it_was_sent(shop: Shop, at_once: bool) -> None:  # noqa: FBT001
    wanted = {"planKey": unique("plan"), **PHASED}
    plan = ParseDict(wanted, pb.Plan())
    if at_once:
        made = shop.stubs.catalog.CreatePlan(pb.CreatePlanRequest(plan=plan)).plan
    else:
        drafted = shop.stubs.catalog.DraftPlan(pb.DraftPlanRequest(plan=plan)).plan
        assert {name: MessageToDict(drafted)[name] for name in wanted} == wanted
        publish = pb.PublishPlanRequest(plan_key=plan.plan_key)
        made = shop.stubs.catalog.PublishPlan(publish).plan
    assert {name: MessageToDict(made)[name] for name in wanted} == wanted
    assert not made.rate_cards


def test_a_subscription_runs_through_the_phases_of_its_version(shop: Shop) -> None:
    feature = shop.feature()
    plan = ParseDict({"planKey": unique("plan"), **PHASED}, pb.Plan())
    entitling = plan.phases[0].rate_cards.add(rate_card_key="sso", feature_key=feature)
    entitling.entitlement.boolean.SetInParent()
    shop.stubs.catalog.CreatePlan(pb.CreatePlanRequest(plan=plan))
    start = minutes_ago(14 * 1440 + 5)
    made = shop.subscribe(shop.customer(), plan.plan_key, start)
    assert (made.plan_key, made.plan_version, made.phase_key) == (plan.plan_key, 1, "intro")
    assert [one.phase_key for one in made.spans] == ["trial", "intro", "paid"]
    assert made.spans[0].end_time == made.spans[1].start_time == made.anchor_time == made.period_start_time
    assert made.anchor_time.seconds - made.start_time.seconds == 14 * 86_400
    assert not made.spans[2].HasField("end_time")
    shop.draft(flat("1"), plan_key=plan.plan_key)
    shop.stubs.catalog.PublishPlan(pb.PublishPlanRequest(plan_key=plan.plan_key))
    request = subscription_pb2.GetSubscriptionRequest(subscription_id=made.subscription_id)
    assert shop.stubs.subscriptions.GetSubscription(request).subscription == made
    check = ent.EntitlementCheck(customer_key=made.customer_key, feature_key=feature)
    access = shop.stubs.entitlements.CheckEntitlement(ent.CheckEntitlementRequest(check=check)).access
    assert access.reason == ent.ACCESS_REASON_ENTITLEMENT_NOT_ACTIVE, "the trial is over"


def test_faults_of_phases_have_their_paths(shop: Shop) -> None:
    plan = pb.Plan(
        plan_key=unique("plan"),
        phases=[
            pb.Phase(phase_key="a", duration="P1M", rate_cards=[flat("1"), flat("2")]),
            pb.Phase(phase_key="a", duration="fortnight", rate_cards=[flat("-1")]),
            pb.Phase(phase_key="", duration="P1M"),
        ],
    )
    failed = refusal(shop.stubs.catalog.CreatePlan, pb.CreatePlanRequest(plan=plan))
    assert sorted(failed.fields) == [
        "plan.phases[0].rate_cards[1].rate_card_key",
        "plan.phases[1].duration",
        "plan.phases[1].phase_key",
        "plan.phases[1].rate_cards[0].price.flat.amount",
        "plan.phases[2].duration",
        "plan.phases[2].phase_key",
    ]


def test_a_draft_that_cannot_be_kept_is_refused(shop: Shop) -> None:
    plan = pb.Plan(plan_key=unique("plan"))
    card = plan.rate_cards.add(rate_card_key="a")
    card.entitlement.static.config.update({"x": float("nan")})
    failed = refusal(shop.stubs.catalog.DraftPlan, pb.DraftPlanRequest(plan=plan))
    assert (failed.code, list(failed.fields)) == ("INVALID_ARGUMENT", ["plan"])
    card.entitlement.static.config.update({"x": "y" * 1_100_000})
    failed = refusal(shop.stubs.catalog.DraftPlan, pb.DraftPlanRequest(plan=plan))
    assert (failed.code, list(failed.fields)) == ("INVALID_ARGUMENT", ["plan"])
    failed = refusal(shop.stubs.catalog.DraftPlan, pb.DraftPlanRequest(plan=pb.Plan(plan_key="No")))
    assert (failed.code, list(failed.fields)) == ("INVALID_ARGUMENT", ["plan.plan_key"])


def test_a_draft_keeps_whatever_was_sent_of_a_rate_card(shop: Shop) -> None:
    """Each field of RateCard alone, so that a field that drafts forget is noticed."""
    for field in pb.RateCard.DESCRIPTOR.fields:
        card = pb.RateCard()
        if field.message_type is not None:
            getattr(card, field.name).SetInParent()
        else:
            setattr(card, field.name, True if field.type == field.TYPE_BOOL else "x")
        plan = pb.Plan(plan_key=unique("plan"), rate_cards=[card])
        drafted = shop.stubs.catalog.DraftPlan(pb.DraftPlanRequest(plan=plan)).plan
        assert drafted.rate_cards[0] == card, field.name
