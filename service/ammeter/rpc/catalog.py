"""CatalogService: features and plans."""

from datetime import datetime
from typing import Any

from google.protobuf.struct_pb2 import Struct, Value

from ammeter.domain.catalog import (
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
from ammeter.domain.catalog_rules import PlanDraft, RateCardDraft, read_fail
from ammeter.errors import Violation
from ammeter.rpc import paging
from ammeter.rpc.convert import to_decimal_text, to_timestamp
from ammeter.rpc.method import ADMIN, READ, Method
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
        sent = request.plan
        cards = tuple(_card_draft(card) for card in sent.rate_cards)
        draft = PlanDraft(
            sent.plan_key, sent.name, sent.currency, sent.billing_cadence, cards, sent.minimum_amount
        )
        return pb.CreatePlanResponse(plan=plan_message(catalog.create_plan(tx, draft, now)))

    def get_plan(self, tx: Tx, request: pb.GetPlanRequest, now: datetime) -> pb.GetPlanResponse:
        """Read a plan."""
        del now
        return pb.GetPlanResponse(plan=plan_message(catalog.get_plan(tx, request.plan_key)))

    def list_plans(self, tx: Tx, request: pb.ListPlansRequest, now: datetime) -> pb.ListPlansResponse:
        """List plans."""
        del now
        size, query = paging.page_size(request.page_size), paging.fingerprint(request)
        after = paging.decode_token(request.page_token, query) or ("",)
        found = store.page_plans(tx, str(after[0]), size + 1)
        token = paging.encode_token(query, (found[size - 1].plan_key,)) if len(found) > size else ""
        return pb.ListPlansResponse(plans=[plan_message(one) for one in found[:size]], next_page_token=token)

    def archive_plan(self, tx: Tx, request: pb.ArchivePlanRequest, now: datetime) -> pb.ArchivePlanResponse:
        """Archive a plan."""
        return pb.ArchivePlanResponse(plan=plan_message(catalog.archive_plan(tx, request.plan_key, now)))


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


def plan_message(plan: Plan) -> pb.Plan:
    """Write a plan."""
    return pb.Plan(
        plan_key=plan.plan_key,
        name=plan.name,
        currency=plan.currency,
        billing_cadence=plan.billing_cadence,
        rate_cards=[_card_message(card) for card in plan.rate_cards],
        state=pb.Plan.State.Value(f"STATE_{plan.state.upper()}"),
        create_time=to_timestamp(plan.create_time),
        archive_time=to_timestamp(plan.archive_time),
        minimum_amount="" if plan.minimum_amount is None else to_decimal_text(plan.minimum_amount),
    )


def _card_message(card: RateCard) -> pb.RateCard:
    return pb.RateCard(
        rate_card_key=card.rate_card_key,
        name=card.name,
        feature_key=card.feature_key,
        price=price_message(card.price) if card.price else None,
        entitlement=_template_message(card.entitlement) if card.entitlement else None,
        in_advance=card.in_advance,
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
