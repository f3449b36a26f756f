"""Drafts of plans, faults and all, as messages: the fields that were sent."""

from typing import Any

from google.protobuf.json_format import ParseDict

from ammeter.domain.catalog_rules import PlanDraft, RateCardDraft
from ammeter.rpc.price import draft_terms
from ammeter.v1 import catalog_pb2 as pb


def draft_message(draft: PlanDraft) -> pb.Plan:
    """Write what was sent of a draft."""
    return pb.Plan(
        plan_key=draft.plan_key,
        name=draft.name,
        currency=draft.currency,
        billing_cadence=draft.billing_cadence,
        rate_cards=[_card(card) for card in draft.rate_cards],
        minimum_amount=draft.minimum_amount,
        phases=[
            pb.Phase(
                phase_key=phase.phase_key,
                name=phase.name,
                duration=phase.duration,
                rate_cards=[_card(card) for card in phase.rate_cards],
            )
            for phase in draft.phases
        ],
    )


def _card(card: RateCardDraft) -> pb.RateCard:
    message = pb.RateCard(
        rate_card_key=card.rate_card_key,
        name=card.name,
        feature_key=card.feature_key,
        in_advance=card.in_advance,
        billing_cadence=card.billing_cadence,
        one_time=card.one_time,
        **draft_terms(card.terms),
    )
    if card.price_kind:
        _put(message.price, card.price_kind, dict(card.price))
    if card.template_kind == "metered":
        metered = message.entitlement.metered
        metered.SetInParent()
        metered.allowance, metered.soft_limit = card.allowance, card.soft_limit
    elif card.template_kind:
        _put(message.entitlement, card.template_kind, {})
    if card.template_kind == "static":
        message.entitlement.static.config.update(card.config or {})
    return message


def _put(message: Any, kind: str, form: dict[str, Any]) -> None:  # noqa: ANN401 - a message with a oneof
    """Fill in the kind of a oneof; what was left open stays so."""
    message.SetInParent()
    if kind in message.DESCRIPTOR.fields_by_name:
        ParseDict({kind: form}, message)
