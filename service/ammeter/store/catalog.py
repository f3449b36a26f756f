"""Features and plans."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.dialects.postgresql import insert as pg_insert

from ammeter.domain.card_cadence import form_of_timing, read_timing
from ammeter.domain.catalog import (
    WHOLE,
    BooleanTemplate,
    DimensionFilter,
    FailMode,
    FailRule,
    Feature,
    MeteredTemplate,
    Phase,
    Plan,
    RateCard,
    StaticTemplate,
    Template,
)
from ammeter.domain.price_form import Form, form_of, kind_of, read_price, read_terms
from ammeter.domain.quantity import decimal_text
from ammeter.errors import InternalError, Violation
from ammeter.store.db import Tx
from ammeter.store.tables import features, meters, plans, rate_cards

_LOCK = sa.text("SELECT pg_advisory_xact_lock(:lock, :tenant)")
_LOCK_SHARED = sa.text("SELECT pg_advisory_xact_lock_shared(:lock, :tenant)")
# "feat" and "plan" in ASCII.
_FEATURE_LOCK = 0x66656174
_PLAN_LOCK = 0x706C616E
# Which version stands for a plan: the active one, else the last that was, else the draft.
_STANDS = (
    sa.case((plans.c.state == "active", 0), (plans.c.publish_time.is_not(None), 1), else_=2),
    plans.c.version.desc(),
)
# Beside the fields of a stored price.
IN_ADVANCE = "in_advance"


def lock_features(tx: Tx, *, shared: bool) -> None:
    """Hold off the deletion of features (shared), or their use in new plans, until the transaction ends."""
    tx.conn.execute(_LOCK_SHARED if shared else _LOCK, {"lock": _FEATURE_LOCK, "tenant": tx.tenant_id})


def insert_feature(tx: Tx, feature: Feature, meter_id: int | None, now: datetime) -> Feature | None:
    """Add a feature; None if the key is taken."""
    change = (
        pg_insert(features)
        .values(
            tenant_id=tx.tenant_id,
            feature_key=feature.feature_key,
            name=feature.name,
            meter_id=meter_id,
            filters=[[one.dimension, list(one.values)] for one in feature.filters],
            create_time=now,
            fail_mode=feature.fail.mode.value,
            fail_allowance=feature.fail.allowance,
            version=feature.version,
        )
        .on_conflict_do_nothing()
        .returning(features.c.feature_id)
    )
    feature_id = tx.conn.execute(change).scalar_one_or_none()
    return None if feature_id is None else replace(feature, feature_id=feature_id, create_time=now)


def get_feature(tx: Tx, feature_key: str, *, lock: bool = False) -> Feature | None:
    """Read a feature, and if asked hold it as it is until the transaction ends."""
    query = _features(tx).where(features.c.feature_key == feature_key)
    row = tx.conn.execute(query.with_for_update(of=features) if lock else query).one_or_none()
    return None if row is None else _feature(row)


def update_feature(tx: Tx, feature: Feature) -> Feature:
    """Store a feature's name and fail mode, and count its version up."""
    change = (
        sa.update(features)
        .where(features.c.tenant_id == tx.tenant_id, features.c.feature_id == feature.feature_id)
        .values(
            name=feature.name,
            fail_mode=feature.fail.mode.value,
            fail_allowance=feature.fail.allowance,
            version=feature.version + 1,
        )
    )
    tx.conn.execute(change)
    return replace(feature, version=feature.version + 1)


def get_features(tx: Tx, feature_keys: Iterable[str]) -> dict[str, Feature]:
    """Read those of the features that exist, by key."""
    query = _features(tx).where(features.c.feature_key.in_(list(feature_keys)))
    return {row.feature_key: _feature(row) for row in tx.conn.execute(query)}


def page_features(tx: Tx, after_key: str, limit: int) -> list[Feature]:
    """Read features by key, those after `after_key`."""
    query = (
        _features(tx).where(features.c.feature_key > after_key).order_by(features.c.feature_key).limit(limit)
    )
    return [_feature(row) for row in tx.conn.execute(query)]


def plans_naming(tx: Tx, feature_id: int) -> list[str]:
    """Read the keys of plans that name a feature, some of them if there are many."""
    query = (
        sa.select(plans.c.plan_key)
        .join(
            rate_cards,
            (rate_cards.c.tenant_id == plans.c.tenant_id) & (rate_cards.c.plan_id == plans.c.plan_id),
        )
        .where(plans.c.tenant_id == tx.tenant_id, rate_cards.c.feature_id == feature_id)
        .order_by(plans.c.plan_key)
        .limit(3)
    )
    return list(tx.conn.execute(query).scalars())


def delete_feature(tx: Tx, feature_id: int) -> None:
    """Delete a feature that nothing refers to."""
    tx.conn.execute(
        sa.delete(features).where(features.c.tenant_id == tx.tenant_id, features.c.feature_id == feature_id)
    )


def lock_plans(tx: Tx) -> None:
    """Make others wait who add, edit, publish or archive plans of the tenant, until the transaction ends."""
    tx.conn.execute(_LOCK, {"lock": _PLAN_LOCK, "tenant": tx.tenant_id})


def insert_plan(tx: Tx, plan: Plan, feature_ids: dict[str, int], now: datetime) -> Plan | None:
    """Add a version of a plan, unless it is a draft with its rate cards; None if there is that version."""
    change = (
        pg_insert(plans)
        .values(
            tenant_id=tx.tenant_id,
            plan_key=plan.plan_key,
            state=plan.state,
            version=plan.version,
            create_time=now,
            revision=plan.revision,
            **_plan_values(plan, now),
        )
        .on_conflict_do_nothing()
        .returning(plans.c.plan_id)
    )
    plan_id = tx.conn.execute(change).scalar_one_or_none()
    if plan_id is None:
        return None
    if plan.form is None:
        _insert_cards(tx, plan_id, plan, feature_ids)
    return get_plan_by_id(tx, plan_id)


def rewrite_draft(tx: Tx, plan_id: int, draft: Plan, now: datetime) -> None:
    """Put another content into a draft."""
    change = _one(tx, plan_id).values(revision=plans.c.revision + 1, **_plan_values(draft, now))
    tx.conn.execute(change)


def publish_draft(tx: Tx, plan_id: int, plan: Plan, feature_ids: dict[str, int], now: datetime) -> None:
    """Make a draft the active version; there must be no other."""
    values = {**_plan_values(plan, now), "form": sa.null(), "state": "active", "publish_time": now}
    tx.conn.execute(_one(tx, plan_id).values(revision=plans.c.revision + 1, **values))
    _insert_cards(tx, plan_id, plan, feature_ids)


def _plan_values(plan: Plan, now: datetime) -> dict[str, Any]:
    phases = [{"phase_key": one.phase_key, "name": one.name, "duration": one.duration} for one in plan.phases]
    return {
        "name": plan.name,
        "currency": plan.currency,
        "billing_cadence": plan.billing_cadence,
        "minimum_amount": plan.minimum_amount,
        "phases": [] if plan.phases == (WHOLE,) else phases,
        "form": sa.null() if plan.form is None else plan.form,
        "update_time": now,
        "publish_time": now if plan.state == "active" else None,
    }


def _one(tx: Tx, plan_id: int) -> sa.Update:
    return sa.update(plans).where(plans.c.tenant_id == tx.tenant_id, plans.c.plan_id == plan_id)


def _insert_cards(tx: Tx, plan_id: int, plan: Plan, feature_ids: dict[str, int]) -> None:
    cards = [
        {
            "tenant_id": tx.tenant_id,
            "plan_id": plan_id,
            "ordinal": ordinal,
            "rate_card_key": card.rate_card_key,
            "name": card.name,
            "feature_id": feature_ids[card.feature_key] if card.feature_key else None,
            "price": _price_json(card),
            "entitlement": _template_json(card.entitlement),
            "phase": card.phase,
        }
        for ordinal, card in enumerate(plan.rate_cards)
    ]
    if cards:
        tx.conn.execute(sa.insert(rate_cards), cards)


def get_plan(tx: Tx, plan_key: str, version: int = 0) -> Plan | None:
    """Read a version of a plan with its rate cards; 0: the one that stands for the plan."""
    query = _plans(tx).where(plans.c.plan_key == plan_key)
    if version:
        return _one_plan(tx, query.where(plans.c.version == version))
    return _one_plan(tx, query.order_by(*_STANDS).limit(1))


def get_draft(tx: Tx, plan_key: str) -> Plan | None:
    """Read the draft of a plan."""
    return _one_plan(tx, _plans(tx).where(plans.c.plan_key == plan_key, plans.c.state == "draft"))


def last_version(tx: Tx, plan_key: str) -> int:
    """Give a plan's greatest version; 0 if there is no such plan."""
    query = sa.select(sa.func.max(plans.c.version)).where(
        plans.c.tenant_id == tx.tenant_id, plans.c.plan_key == plan_key
    )
    return tx.conn.execute(query).scalar() or 0


def get_plan_by_id(tx: Tx, plan_id: int) -> Plan | None:
    """As get_plan, by our own number."""
    return _one_plan(tx, _plans(tx).where(plans.c.plan_id == plan_id))


def get_plans_by_id(tx: Tx, plan_ids: Iterable[int]) -> dict[int, Plan]:
    """As get_plan, several by our own numbers."""
    query = _plans(tx).where(plans.c.plan_id.in_(sorted(set(plan_ids))))
    return {plan.plan_id: plan for plan in _with_cards(tx, tx.conn.execute(query).all())}


def lock_active(tx: Tx, plan_key: str) -> Plan | None:
    """Read a plan's active version and hold its state as it is until the transaction ends."""
    query = _plans(tx).where(plans.c.plan_key == plan_key, plans.c.state == "active")
    query = query.with_for_update(read=True)
    # Who waited for a publication finds its version archived: another look sees the one that took its place.
    return _one_plan(tx, query) or _one_plan(tx, query)


def page_plans(tx: Tx, after_key: str, limit: int) -> list[Plan]:
    """Read plans by key, those after `after_key`, each by the version that stands for it."""
    query = (
        _plans(tx)
        .where(plans.c.plan_key > after_key)
        .ext(distinct_on(plans.c.plan_key))
        .order_by(plans.c.plan_key, *_STANDS)
        .limit(limit)
    )
    return _with_cards(tx, tx.conn.execute(query).all())


def page_versions(tx: Tx, plan_key: str, before: int, limit: int) -> list[Plan]:
    """Read the versions of a plan, the newest first; those before `before`."""
    query = _plans(tx).where(plans.c.plan_key == plan_key, plans.c.version < before)
    return _with_cards(tx, tx.conn.execute(query.order_by(plans.c.version.desc()).limit(limit)).all())


def archive_plan(tx: Tx, plan_id: int, now: datetime) -> None:
    """Close a version of a plan for new subscriptions."""
    values = {"state": "archived", "archive_time": now, "update_time": now}
    tx.conn.execute(_one(tx, plan_id).values(revision=plans.c.revision + 1, **values))


def _features(tx: Tx) -> sa.Select[Any]:
    return (
        sa.select(features, meters.c.meter_key)
        .outerjoin(
            meters, (meters.c.tenant_id == features.c.tenant_id) & (meters.c.meter_id == features.c.meter_id)
        )
        .where(features.c.tenant_id == tx.tenant_id)
    )


def _feature(row: sa.Row[Any]) -> Feature:
    return Feature(
        row.feature_key,
        row.name,
        row.meter_key or "",
        filters_of(row.filters),
        row.feature_id,
        row.create_time,
        FailRule(FailMode(row.fail_mode), row.fail_allowance),
        row.version,
    )


def filters_of(stored: list[tuple[str, list[str]]]) -> tuple[DimensionFilter, ...]:
    """Read a feature's filters as they are stored."""
    return tuple(DimensionFilter(dimension, tuple(values)) for dimension, values in stored)


def _plans(tx: Tx) -> sa.Select[Any]:
    return sa.select(plans).where(plans.c.tenant_id == tx.tenant_id)


def _one_plan(tx: Tx, query: sa.Select[Any]) -> Plan | None:
    found = _with_cards(tx, tx.conn.execute(query).all())
    return found[0] if found else None


def _with_cards(tx: Tx, rows: Sequence[sa.Row[Any]]) -> list[Plan]:
    query = (
        sa.select(rate_cards, features.c.feature_key)
        .outerjoin(
            features,
            (features.c.tenant_id == rate_cards.c.tenant_id)
            & (features.c.feature_id == rate_cards.c.feature_id),
        )
        .where(
            rate_cards.c.tenant_id == tx.tenant_id, rate_cards.c.plan_id.in_([row.plan_id for row in rows])
        )
        .order_by(rate_cards.c.ordinal)
    )
    cards: dict[int, list[RateCard]] = {}
    plans_of = {row.plan_id: row for row in rows}
    for row in tx.conn.execute(query) if rows else ():
        cards.setdefault(row.plan_id, []).append(_card(row, plans_of[row.plan_id]))
    return [
        Plan(
            row.plan_key,
            row.name,
            row.currency,
            row.billing_cadence,
            tuple(cards.get(row.plan_id, ())),
            row.state,
            row.plan_id,
            row.create_time,
            row.archive_time,
            row.minimum_amount,
            tuple(Phase(**phase) for phase in row.phases) or (WHOLE,),
            row.version,
            row.publish_time,
            row.update_time,
            row.revision,
            row.form,
        )
        for row in rows
    ]


def _card(row: sa.Row[Any], plan: sa.Row[Any]) -> RateCard:
    faults: list[Violation] = []
    stored = row.price or {}
    price = read_price(stored["kind"], Form("price", stored, faults)) if stored else None
    terms = read_terms("price", stored, faults)
    if faults:
        raise InternalError(f"rate card {row.rate_card_id} is stored with faults: {faults}")
    return RateCard(
        row.rate_card_key,
        row.name,
        row.feature_key or "",
        price,
        row.entitlement and _template(row.entitlement),
        row.rate_card_id,
        terms,
        phase=row.phase,
        plan_key=plan.plan_key,
        plan_version=plan.version,
        **read_timing(stored),
    )


def _price_json(card: RateCard) -> dict[str, Any] | sa.Null:
    """Store a price with its kind and terms beside its own fields."""
    if card.price is None:
        return sa.null()
    price, terms = form_of(card.price), form_of(card.terms)
    return {"kind": kind_of(card.price), **price, **terms, **form_of_timing(card)}


def _template_json(template: Template | None) -> dict[str, Any] | sa.Null:
    if template is None:
        return sa.null()
    if isinstance(template, BooleanTemplate):
        return {"kind": "boolean"}
    if isinstance(template, StaticTemplate):
        return {"kind": "static", "config": template.config}
    allowance = decimal_text(template.allowance)
    return {"kind": "metered", "allowance": allowance, "soft_limit": template.soft_limit}


def _template(stored: dict[str, Any]) -> Template:
    if stored["kind"] == "boolean":
        return BooleanTemplate()
    if stored["kind"] == "static":
        return StaticTemplate(stored["config"])
    return MeteredTemplate(Decimal(stored["allowance"]), stored["soft_limit"])
