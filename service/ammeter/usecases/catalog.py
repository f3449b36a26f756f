"""Create, read and delete features; create, draft, edit, publish, read and archive plans."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from ammeter.domain.catalog import Feature, Plan
from ammeter.domain.catalog_rules import (
    NO_SOURCES,
    PlanDraft,
    Sources,
    cards_of,
    check_feature,
    check_feature_meter,
    check_plan,
    make_plan,
)
from ammeter.domain.meter import ADDITIVE
from ammeter.domain.plan_form import edited, form_of_draft, read_draft
from ammeter.errors import (
    AlreadyExistsError,
    ConflictError,
    NotFoundError,
    PreconditionError,
    Violation,
    invalid,
)
from ammeter.store import catalog as store
from ammeter.store import entitlements, meters, price_lists
from ammeter.store.db import Tx
from ammeter.usecases.live import Live

# What of a feature can change, and the fields of a draft that say so.
_MUTABLE = ("name", "fail_mode")
# What a column of Postgres can hold.
MAX_VERSION = 2**31 - 1


def create_feature(
    tx: Tx, live: Live, feature: Feature, now: datetime, faults: Sequence[Violation] = ()
) -> Feature:
    """Create a feature on a meter that is served, or on none; `faults` were found in reading it."""
    check_feature(feature, faults)
    meter_id = _check_meter(tx, feature) if feature.meter_key else None
    created = store.insert_feature(tx, feature, meter_id, now)
    if created is None:
        message = f"there is a feature {feature.feature_key!r} already: choose another key"
        raise AlreadyExistsError(message, field="feature.feature_key")
    tx.after_commit.append(lambda: live.refresh_feature(tx.tenant_id, feature.feature_key))
    return created


def _check_meter(tx: Tx, feature: Feature) -> int:
    meter = meters.find_meter(tx, feature.meter_key)
    if meter is None:
        raise invalid("feature.meter_key", "names no meter: create it first, or mend the key")
    check_feature_meter(feature, meter.aggregation, meter.dimensions)
    meters.served_revision(meter)
    return meter.meter_id


def get_feature(tx: Tx, feature_key: str, *, lock: bool = False) -> Feature:
    """Read a feature; raises NotFoundError."""
    feature = None if "\0" in feature_key else store.get_feature(tx, feature_key, lock=lock)
    if feature is None:
        raise NotFoundError("feature", feature_key)
    return feature


def update_feature(
    tx: Tx, live: Live, draft: Feature, mask: Sequence[str], etag: str, faults: Sequence[Violation] = ()
) -> Feature:
    """Change what the mask names of a feature; `faults` were found in reading the draft.

    Raises ConflictError when `etag` is given and stale.
    """
    unknown = [path for path in mask if path not in _MUTABLE]
    if unknown:
        raise invalid("update_mask", f"names {unknown[0]!r}: it can name {', '.join(_MUTABLE)}")
    feature = get_feature(tx, draft.feature_key, lock=True)
    if etag and etag.strip('"') != str(feature.version):
        raise ConflictError("the feature was changed meanwhile: read it again and send its etag")
    wanted = replace(
        feature,
        name=draft.name if "name" in mask else feature.name,
        fail=draft.fail if "fail_mode" in mask else feature.fail,
    )
    check_feature(wanted, faults if "fail_mode" in mask else ())
    if wanted == feature:
        return feature
    tx.after_commit.append(lambda: live.refresh_feature(tx.tenant_id, feature.feature_key))
    return store.update_feature(tx, wanted)


def delete_feature(tx: Tx, live: Live, feature_key: str) -> None:
    """Delete a feature that no plan names."""
    store.lock_features(tx, shared=False)
    feature = get_feature(tx, feature_key)
    plans = store.plans_naming(tx, feature.feature_id)
    if plans:
        raise PreconditionError(
            f"feature {feature_key!r} is named by plan {plans[0]!r}, so it stays: plans never change",
            reason="IN_USE",
            field="feature_key",
        )
    held = entitlements.naming(tx, feature.feature_id)
    if held:
        raise PreconditionError(
            f"feature {feature_key!r} is named by entitlement {held}, so it stays",
            reason="IN_USE",
            field="feature_key",
        )
    store.delete_feature(tx, feature.feature_id)
    tx.after_commit.append(lambda: live.refresh_feature(tx.tenant_id, feature_key))


def create_plan(tx: Tx, draft: PlanDraft, now: datetime) -> Plan:
    """Create a plan, open for subscription at once."""
    store.lock_features(tx, shared=True)
    features = _features(tx, draft)
    plan = make_plan(draft, _dimensions(tx, features), _sources(tx, draft, features))
    created = store.insert_plan(tx, plan, _ids(features), now)
    if created is None:
        raise AlreadyExistsError(
            f"there is a plan {draft.plan_key!r} already: choose another key, or draft its next version",
            field="plan.plan_key",
        )
    return created


def draft_plan(tx: Tx, draft: PlanDraft, now: datetime) -> Plan:
    """Draft the next version of a plan, or the first of a new one."""
    form = form_of_draft(draft)
    store.lock_plans(tx)
    other = store.get_draft(tx, draft.plan_key)
    if other is not None:
        raise PreconditionError(
            f"version {other.version} of plan {draft.plan_key!r} is a draft already: "
            "update, publish or archive it first",
            field="plan.plan_key",
        )
    version = store.last_version(tx, draft.plan_key) + 1
    created = store.insert_plan(tx, replace(_draft(draft, form), version=version), {}, now)
    if created is None:
        raise AlreadyExistsError(f"plan {draft.plan_key!r} was created meanwhile: draft it again")
    return created


def update_plan(tx: Tx, sent: PlanDraft, mask: Sequence[str], etag: str, now: datetime) -> Plan:
    """Edit a draft; without a mask all of it is what was sent."""
    store.lock_plans(tx)
    stored = _draft_of(tx, sent.plan_key, "plan.plan_key")
    check_etag(stored, etag)
    changed = edited(read_draft(stored.form or {}), sent, list(mask))
    form = form_of_draft(changed)
    if form != stored.form:
        store.rewrite_draft(tx, stored.plan_id, _draft(changed, form), now)
    return get_plan(tx, sent.plan_key, stored.version)


def publish_plan(tx: Tx, plan_key: str, etag: str, now: datetime) -> Plan:
    """Open a draft for subscription in the place of the version that was open."""
    store.lock_plans(tx)
    store.lock_features(tx, shared=True)
    stored = _draft_of(tx, plan_key, "plan_key")
    check_etag(stored, etag)
    draft = read_draft(stored.form or {})
    features = _features(tx, draft)
    plan = make_plan(draft, _dimensions(tx, features), _sources(tx, draft, features))
    former = store.get_plan(tx, plan_key)
    if former is not None and former.state == "active":
        store.archive_plan(tx, former.plan_id, now)
    store.publish_draft(tx, stored.plan_id, plan, _ids(features), now)
    return get_plan(tx, plan_key, stored.version)


def issues_of(tx: Tx, plan: Plan) -> list[Violation]:
    """List what keeps a draft from being published; nothing for what is no draft."""
    if plan.state != "draft" or plan.form is None:
        return []
    draft = read_draft(plan.form)
    features = _features(tx, draft)
    return check_plan(draft, _dimensions(tx, features), _sources(tx, draft, features))[1]


def check_etag(plan: Plan, etag: str) -> None:
    """Refuse an etag that is given and not current."""
    if etag and etag != plan.etag:
        raise ConflictError("the draft was changed meanwhile: read it again and send its etag")


def _draft(draft: PlanDraft, form: dict[str, Any]) -> Plan:
    """Make the row of a draft; what is listed of it is as it was sent."""
    return Plan(
        draft.plan_key, draft.name, draft.currency, draft.billing_cadence, (), state="draft", form=form
    )


def _draft_of(tx: Tx, plan_key: str, field: str) -> Plan:
    draft = None if "\0" in plan_key else store.get_draft(tx, plan_key)
    if draft is None:
        get_plan(tx, plan_key)
        raise PreconditionError(
            f"plan {plan_key!r} has no draft, and what was published never changes: draft its next version",
            field=field,
        )
    return draft


def _features(tx: Tx, draft: PlanDraft) -> dict[str, Feature]:
    named = {card.feature_key for card in cards_of(draft)} - {""}
    return store.get_features(tx, [key for key in named if "\0" not in key])


def _ids(features: Mapping[str, Feature]) -> dict[str, int]:
    return {key: feature.feature_id for key, feature in features.items()}


def _dimensions(tx: Tx, features: Mapping[str, Feature]) -> dict[str, tuple[str, ...] | None]:
    """Tell of each feature the dimensions of its meter, None if it has none."""
    known = {
        key: meters.get_meter(tx, key).dimensions
        for key in {one.meter_key for one in features.values()} - {""}
    }
    return {key: known.get(feature.meter_key) for key, feature in features.items()}


def _sources(tx: Tx, draft: PlanDraft, features: Mapping[str, Feature]) -> Sources:
    """Tell what prices from price lists refer to."""
    named = {
        str(card.price.get("price_list_key", "")) for card in cards_of(draft) if card.price_kind == "llm"
    }
    if not named:
        return NO_SOURCES
    summed = {
        key
        for key in {one.meter_key for one in features.values()} - {""}
        if meters.get_meter(tx, key).aggregation in ADDITIVE
    }
    additive = {key for key, feature in features.items() if feature.meter_key in summed}
    return Sources(price_lists.currencies(tx, [key for key in named if "\0" not in key]), additive)


def get_plan(tx: Tx, plan_key: str, version: int = 0) -> Plan:
    """Read a version of a plan, 0: the one that stands for it; raises NotFoundError."""
    known = "\0" not in plan_key and 0 <= version <= MAX_VERSION
    plan = store.get_plan(tx, plan_key, version) if known else None
    if plan is None:
        raise NotFoundError("plan", f"{plan_key} version {version}" if version else plan_key)
    return plan


def list_versions(tx: Tx, plan_key: str, before: int | None, limit: int) -> list[Plan]:
    """Read the versions of a plan, newest first, from the one before `before` on; raises NotFoundError."""
    get_plan(tx, plan_key)
    return store.page_versions(tx, plan_key, MAX_VERSION if before is None else before, limit)


def archive_plan(tx: Tx, plan_key: str, now: datetime, version: int = 0) -> Plan:
    """Close a version for new subscriptions, 0: the active one; an archived one stays as it is."""
    store.lock_plans(tx)
    plan = get_plan(tx, plan_key, version)
    if plan.state == "archived":
        return plan
    if plan.state == "draft" and not version:
        raise PreconditionError(
            f"plan {plan_key!r} is but a draft: name version {plan.version} to give it up",
            field="version",
        )
    store.archive_plan(tx, plan.plan_id, now)
    return get_plan(tx, plan_key, plan.version)
