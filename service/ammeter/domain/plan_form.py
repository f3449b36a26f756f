"""Drafts of plans as they are stored: trees of text, faults and all."""

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from ammeter.domain import keys
from ammeter.domain.catalog_rules import PhaseDraft, PlanDraft, RateCardDraft
from ammeter.errors import InvalidInputError, Violation, invalid

MAX_FORM_BYTES = 1024 * 1024

# What an edit may name: fields of PlanDraft by the proto's names.
EDITABLE = ("name", "currency", "billing_cadence", "rate_cards", "phases", "minimum_amount")


def form_of_draft(draft: PlanDraft) -> dict[str, Any]:
    """Write a draft.

    A draft may lack much, but not its key, and must be something that can be
    stored: raises InvalidInputError.
    """
    violations = keys.catalog_key("plan.plan_key", draft.plan_key)
    if violations:
        raise InvalidInputError(violations)
    try:
        text = json.dumps(asdict(draft), allow_nan=False, ensure_ascii=False)
    except ValueError:
        raise invalid("plan", "holds a number that JSON cannot: no NaN and no infinity") from None
    if len(text.encode()) > MAX_FORM_BYTES:
        raise invalid(
            "plan", f"is more than {MAX_FORM_BYTES} bytes: a plan has at most 200 rate cards a phase"
        )
    read: dict[str, Any] = json.loads(text)
    return read


def read_draft(form: Mapping[str, Any]) -> PlanDraft:
    """Read what `form_of_draft` wrote."""
    phases = tuple(
        PhaseDraft(**{**phase, "rate_cards": _cards(phase["rate_cards"])}) for phase in form["phases"]
    )
    return PlanDraft(**{**form, "rate_cards": _cards(form["rate_cards"]), "phases": phases})


def _cards(forms: list[dict[str, Any]]) -> tuple[RateCardDraft, ...]:
    return tuple(RateCardDraft(**card) for card in forms)


def edited(draft: PlanDraft, sent: PlanDraft, mask: list[str]) -> PlanDraft:
    """Take the fields that the mask names from what was sent; without a mask, all of them.

    Raises InvalidInputError for names that are no fields of a draft.
    """
    unknown = [
        Violation(f"update_mask.paths[{index}]", f"must be one of {', '.join(EDITABLE)}")
        for index, path in enumerate(mask)
        if path not in EDITABLE
    ]
    if unknown:
        raise InvalidInputError(unknown)
    names = mask or EDITABLE
    return replace(draft, **{name: getattr(sent, name) for name in names})
