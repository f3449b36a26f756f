"""CatalogService: features and plans."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from google.protobuf.struct_pb2 import Struct, Value

from ammeter.domain.card_cadence import form_of_timing
from ammeter.domain.catalog import (
    WHOLE,
    BooleanTemplate,
    DimensionFilter,
    FailMode,
    FailRule,
    Feature,
    MeteredTemplate,
    Plan,
    RateCard,
    StaticTemplate,
    Template,
)
from ammeter.domain.catalog_rules import PhaseDraft, PlanDraft, RateCardDraft, read_fail
from ammeter.domain.plan_form import read_draft
from ammeter.errors import Violation
from ammeter.rpc import paging
from ammeter.rpc.convert import to_decimal_text, to_timestamp
from ammeter.rpc.method import ADMIN, READ, Method
from ammeter.rpc.plan_draft import draft_message
from ammeter.rpc.price import form_of_price, form_of_terms, price_message, terms_messages
from ammeter.store import catalog as store
from ammeter.store.db import Tx
from ammeter.usecases import catalog
from ammeter.usecases.live import Live
from ammeter.v1 import catalog_pb2 as pb
from ammeter.v1 import usage_pb2

# Said of a oneof that was sent with nothing in it.
_OPEN = "?"


class CatalogRpc:
    """The service."""

    service = "ammeter.v1.CatalogService"

    def __init__(self, live: Live) -> None:
        """Tell `live` what changes."""
        self._live = live

    def methods(self) -> list[Method]:
        """List the RPCs."""
        return [
            Method.write("CreateFeature", ADMIN, self.create_feature),
            Method.read("GetFeature", READ, self.get_feature),
            Method.read("ListFeatures", READ, self.list_features),
            Method.write("UpdateFeature", ADMIN, self.update_feature),
            Method.write("DeleteFeature", ADMIN, self.delete_feature),
            Method.write("CreatePlan", ADMIN, self.create_plan),
            Method.write("DraftPlan", ADMIN, self.draft_plan),
            Method.write("UpdatePlan", ADMIN, self.update_plan),
            Method.write("PublishPlan", ADMIN, self.publish_plan),
            Method.read("GetPlan", READ, self.get_plan),
            Method.read("ListPlans", READ, self.list_plans),
            Method.write("ArchivePlan", ADMIN, self.archive_plan),
        ]

    def create_feature(
        self, tx: Tx, request: pb.CreateFeatureRequest, now: datetime
    ) -> pb.CreateFeatureResponse:
        """Create a feature."""
        faults: list[Violation] = []
        feature = _read_feature(request.feature, faults)
        created = catalog.create_feature(tx, self._live, feature, now, faults)
        return pb.CreateFeatureResponse(feature=feature_message(created))

    def get_feature(self, tx: Tx, request: pb.GetFeatureRequest, now: datetime) -> pb.GetFeatureResponse:
        """Read a feature."""
        del now
        return pb.GetFeatureResponse(feature=feature_message(catalog.get_feature(tx, request.feature_key)))

    def list_features(
        self, tx: Tx, request: pb.ListFeaturesRequest, now: datetime
    ) -> pb.ListFeaturesResponse:
        """List features."""
        del now
        size, query = paging.page_size(request.page_size), paging.fingerprint(request)
        after = paging.decode_token(request.page_token, query) or ("",)
        found = store.page_features(tx, str(after[0]), size + 1)
        token = paging.encode_token(query, (found[size - 1].feature_key,)) if len(found) > size else ""
        return pb.ListFeaturesResponse(
            features=[feature_message(one) for one in found[:size]], next_page_token=token
        )

    def update_feature(
        self, tx: Tx, request: pb.UpdateFeatureRequest, now: datetime
    ) -> pb.UpdateFeatureResponse:
        """Change a feature."""
        del now
        sent, faults = request.feature, list[Violation]()
        said = {"name": bool(sent.name), "fail_mode": bool(sent.fail_mode or sent.fail_allowance)}
        mask = list(request.update_mask.paths) or [path for path, is_said in said.items() if is_said]
        draft = _read_feature(sent, faults)
        updated = catalog.update_feature(tx, self._live, draft, mask, sent.etag, faults)
        return pb.UpdateFeatureResponse(feature=feature_message(updated))

    def delete_feature(
        self, tx: Tx, request: pb.DeleteFeatureRequest, now: datetime
    ) -> pb.DeleteFeatureResponse:
        """Delete a feature."""
        del now
        catalog.delete_feature(tx, self._live, request.feature_key)
        return pb.DeleteFeatureResponse()

    def create_plan(self, tx: Tx, request: pb.CreatePlanRequest, now: datetime) -> pb.CreatePlanResponse:
        """Create a plan."""
        created = catalog.create_plan(tx, plan_draft(request.plan), now)
        return pb.CreatePlanResponse(plan=plan_message(created))

    def draft_plan(self, tx: Tx, request: pb.DraftPlanRequest, now: datetime) -> pb.DraftPlanResponse:
        """Draft a version."""
        drafted = catalog.draft_plan(tx, plan_draft(request.plan), now)
        return pb.DraftPlanResponse(plan=_with_issues(tx, drafted))

    def update_plan(self, tx: Tx, request: pb.UpdatePlanRequest, now: datetime) -> pb.UpdatePlanResponse:
        """Edit a draft."""
        sent, mask = request.plan, request.update_mask.paths
        updated = catalog.update_plan(tx, plan_draft(sent), mask, sent.etag, now)
        return pb.UpdatePlanResponse(plan=_with_issues(tx, updated))

    def publish_plan(self, tx: Tx, request: pb.PublishPlanRequest, now: datetime) -> pb.PublishPlanResponse:
        """Open a draft for subscription."""
        published = catalog.publish_plan(tx, request.plan_key, request.etag, now)
        return pb.PublishPlanResponse(plan=plan_message(published))

    def get_plan(self, tx: Tx, request: pb.GetPlanRequest, now: datetime) -> pb.GetPlanResponse:
        """Read a version of a plan."""
        del now
        plan = catalog.get_plan(tx, request.plan_key, request.version)
        return pb.GetPlanResponse(plan=_with_issues(tx, plan))

    def list_plans(self, tx: Tx, request: pb.ListPlansRequest, now: datetime) -> pb.ListPlansResponse:
        """List plans, or the versions of one."""
        del now
        size, query = paging.page_size(request.page_size), paging.fingerprint(request)
        if request.plan_key:
            before = paging.read_token(request.page_token, query, paging.natural)
            found = catalog.list_versions(tx, request.plan_key, before, size + 1)
        else:
            after = paging.decode_token(request.page_token, query) or ("",)
            found = store.page_plans(tx, str(after[0]), size + 1)
        last = found[size - 1] if len(found) > size else None
        key = last and ((last.version,) if request.plan_key else (last.plan_key,))
        return pb.ListPlansResponse(
            plans=[_with_issues(tx, one) for one in found[:size]],
            next_page_token=paging.encode_token(query, key) if key else "",
        )

    def archive_plan(self, tx: Tx, request: pb.ArchivePlanRequest, now: datetime) -> pb.ArchivePlanResponse:
        """Archive a plan."""
        archived = catalog.archive_plan(tx, request.plan_key, now, request.version)
        return pb.ArchivePlanResponse(plan=plan_message(archived))


def plan_draft(sent: pb.Plan) -> PlanDraft:
    """Read a plan as it was sent."""
    phases = tuple(
        PhaseDraft(one.phase_key, one.name, one.duration, tuple(map(_card_draft, one.rate_cards)))
        for one in sent.phases
    )
    return PlanDraft(
        sent.plan_key,
        sent.name,
        sent.currency,
        sent.billing_cadence,
        tuple(map(_card_draft, sent.rate_cards)),
        sent.minimum_amount,
        phases,
    )


def _card_draft(sent: pb.RateCard) -> RateCardDraft:
    price, entitlement = sent.price, sent.entitlement
    price_kind = (price.WhichOneof("kind") or _OPEN) if sent.HasField("price") else ""
    template_kind = (entitlement.WhichOneof("kind") or _OPEN) if sent.HasField("entitlement") else ""
    return RateCardDraft(
        sent.rate_card_key,
        sent.name,
        sent.feature_key,
        price_kind,
        form_of_price(price),
        form_of_terms(sent),
        template_kind,
        entitlement.metered.allowance,
        entitlement.metered.soft_limit,
        _config(entitlement.static.config) if template_kind == "static" else None,
        sent.in_advance,
        sent.billing_cadence,
        sent.one_time,
    )


def _config(struct: Struct) -> dict[str, Any]:
    return {name: _value(value) for name, value in struct.fields.items()}


def _value(value: Value) -> object:
    """Read a JSON value; numbers without a fraction become ints, which is how they were meant."""
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return _config(value.struct_value)
    if kind == "list_value":
        return [_value(item) for item in value.list_value.values]
    if kind == "number_value":
        number = value.number_value
        return int(number) if number.is_integer() else number
    if kind in {"string_value", "bool_value"}:
        return getattr(value, kind)
    return None


def feature_message(feature: Feature) -> pb.Feature:
    """Write a feature."""
    return pb.Feature(
        feature_key=feature.feature_key,
        name=feature.name,
        meter_key=feature.meter_key,
        filters=[
            usage_pb2.DimensionFilter(dimension=one.dimension, values=one.values) for one in feature.filters
        ],
        create_time=to_timestamp(feature.create_time),
        fail_mode=fail_mode(feature.fail),
        fail_allowance="" if feature.fail.allowance is None else to_decimal_text(feature.fail.allowance),
        etag=feature.etag,
    )


def fail_mode(rule: FailRule) -> "pb.FailMode.ValueType":
    """Write a fail mode."""
    return pb.FailMode.Value(f"FAIL_MODE_{rule.mode.value}")


def _read_feature(sent: pb.Feature, faults: list[Violation]) -> Feature:
    """Read a feature as sent; what is wrong with its fail mode is added to `faults`."""
    mode = FailMode.CLOSED
    if sent.fail_mode not in pb.FailMode.values():
        faults.append(Violation("feature.fail_mode", f"must be one of {', '.join(pb.FailMode.keys()[1:])}"))
    elif sent.fail_mode:
        mode = FailMode(pb.FailMode.Name(sent.fail_mode).removeprefix("FAIL_MODE_"))
    filters = tuple(DimensionFilter(one.dimension, tuple(one.values)) for one in sent.filters)
    fail = read_fail("feature", mode, sent.fail_allowance, faults)
    return Feature(sent.feature_key, sent.name, sent.meter_key, filters, fail=fail)


def _with_issues(tx: Tx, plan: Plan) -> pb.Plan:
    issues = [pb.PlanIssue(field=field, description=why) for field, why in catalog.issues_of(tx, plan)]
    return plan_message(plan, issues)


def plan_message(plan: Plan, issues: Sequence[pb.PlanIssue] = ()) -> pb.Plan:
    """Write a version of a plan."""
    whole = plan.phases == (WHOLE,)
    message = pb.Plan(
        plan_key=plan.plan_key,
        name=plan.name,
        currency=plan.currency,
        billing_cadence=plan.billing_cadence,
        state=pb.Plan.State.Value(f"STATE_{plan.state.upper()}"),
        create_time=to_timestamp(plan.create_time),
        archive_time=to_timestamp(plan.archive_time),
        minimum_amount="" if plan.minimum_amount is None else to_decimal_text(plan.minimum_amount),
        version=plan.version,
        publish_time=to_timestamp(plan.publish_time),
        update_time=to_timestamp(plan.update_time),
        etag=plan.etag,
        issues=issues,
    )
    if plan.form is not None:
        message.MergeFrom(draft_message(read_draft(plan.form)))
    elif whole:
        message.rate_cards.extend(card_message(card) for card in plan.rate_cards)
    else:
        message.phases.extend(
            pb.Phase(
                phase_key=phase.phase_key,
                name=phase.name,
                duration=phase.duration,
                rate_cards=[card_message(card) for card in plan.cards_of(number)],
            )
            for number, phase in enumerate(plan.phases)
        )
    return message


def card_message(card: RateCard) -> pb.RateCard:
    """Write a rate card."""
    return pb.RateCard(
        rate_card_key=card.rate_card_key,
        name=card.name,
        feature_key=card.feature_key,
        price=price_message(card.price) if card.price else None,
        entitlement=_template_message(card.entitlement) if card.entitlement else None,
        **form_of_timing(card),
        **terms_messages(card.terms),
    )


def _template_message(template: Template) -> pb.EntitlementTemplate:
    if isinstance(template, BooleanTemplate):
        return pb.EntitlementTemplate(boolean=pb.BooleanTemplate())
    if isinstance(template, StaticTemplate):
        static = pb.StaticTemplate()
        static.config.update(template.config)
        return pb.EntitlementTemplate(static=static)
    assert isinstance(template, MeteredTemplate)  # noqa: S101 - the last kind there is
    metered = pb.MeteredTemplate(
        allowance=to_decimal_text(template.allowance), soft_limit=template.soft_limit
    )
    return pb.EntitlementTemplate(metered=metered)
