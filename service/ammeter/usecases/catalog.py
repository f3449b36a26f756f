"""Create, read and delete features; create, read and archive plans."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from ammeter.domain.catalog import Feature, Plan
from ammeter.domain.catalog_rules import (
    NO_SOURCES,
    PlanDraft,
    Sources,
    check_feature,
    check_feature_meter,
    make_plan,
)
from ammeter.domain.meter import ADDITIVE
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


def create_feature(
    tx: Tx, live: Live, feature: Feature, now: datetime, faults: Sequence[Violation] = ()
) -> Feature:
    """Create a feature on a meter that is served, or on none; `faults` were found in reading it."""
    check_feature(feature, faults)
    meter_id = _check_meter(tx, feature) if feature.meter_key else None
    created = store.insert_feature(tx, feature, meter_id, now)
    if created is None:
        raise AlreadyExistsError(f"there is a feature {feature.feature_key!r} already: choose another key")
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
        )
    held = entitlements.naming(tx, feature.feature_id)
    if held:
        raise PreconditionError(
            f"feature {feature_key!r} is named by entitlement {held}, so it stays", reason="IN_USE"
        )
    store.delete_feature(tx, feature.feature_id)
    tx.after_commit.append(lambda: live.refresh_feature(tx.tenant_id, feature_key))


def create_plan(tx: Tx, draft: PlanDraft, now: datetime) -> Plan:
    """Create a plan, open for subscription at once."""
    store.lock_features(tx, shared=True)
    named = {
        card.feature_key for card in draft.rate_cards if card.feature_key and "\0" not in card.feature_key
    }
    features = store.get_features(tx, named)
    plan = make_plan(draft, _dimensions(tx, features), _sources(tx, draft, features))
    created = store.insert_plan(tx, plan, {key: feature.feature_id for key, feature in features.items()}, now)
    if created is None:
        raise AlreadyExistsError(f"there is a plan {draft.plan_key!r} already: choose another key")
    return created


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
        str(card.price.get("price_list_key", "")) for card in draft.rate_cards if card.price_kind == "llm"
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


def get_plan(tx: Tx, plan_key: str) -> Plan:
    """Read a plan; raises NotFoundError."""
    plan = None if "\0" in plan_key else store.get_plan(tx, plan_key)
    if plan is None:
        raise NotFoundError("plan", plan_key)
    return plan


def archive_plan(tx: Tx, plan_key: str, now: datetime) -> Plan:
    """Close a plan for new subscriptions; an archived one stays as it is."""
    plan = None if "\0" in plan_key else store.lock_plan(tx, plan_key, shared=False)
    if plan is None:
        raise NotFoundError("plan", plan_key)
    if plan.state == "active":
        store.archive_plan(tx, plan.plan_id, now)
    return get_plan(tx, plan_key)
