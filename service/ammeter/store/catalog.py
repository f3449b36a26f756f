"""Features and plans."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert as pg_insert

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
from ammeter.domain.price_form import Form, form_of, kind_of, read_price, read_terms
from ammeter.domain.quantity import decimal_text
from ammeter.errors import InternalError, Violation
from ammeter.store.db import Tx
from ammeter.store.tables import features, meters, plans, rate_cards

_LOCK = sa.text("SELECT pg_advisory_xact_lock(:lock, :tenant)")
_LOCK_SHARED = sa.text("SELECT pg_advisory_xact_lock_shared(:lock, :tenant)")
# "feat" in ASCII.
_FEATURE_LOCK = 0x66656174
# Beside the fields of a stored price.
_IN_ADVANCE = "in_advance"


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


def insert_plan(tx: Tx, plan: Plan, feature_ids: dict[str, int], now: datetime) -> Plan | None:
    """Add a plan with its rate cards; None if the key is taken."""
    change = (
        pg_insert(plans)
        .values(
            tenant_id=tx.tenant_id,
            plan_key=plan.plan_key,
            name=plan.name,
            currency=plan.currency,
            billing_cadence=plan.billing_cadence,
            state=plan.state,
            create_time=now,
            minimum_amount=plan.minimum_amount,
        )
        .on_conflict_do_nothing()
        .returning(plans.c.plan_id)
    )
    plan_id = tx.conn.execute(change).scalar_one_or_none()
    if plan_id is None:
        return None
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
        }
        for ordinal, card in enumerate(plan.rate_cards)
    ]
    if cards:
        tx.conn.execute(sa.insert(rate_cards), cards)
    return get_plan_by_id(tx, plan_id)


def get_plan(tx: Tx, plan_key: str) -> Plan | None:
    """Read a plan with its rate cards."""
    return _one_plan(tx, _plans(tx).where(plans.c.plan_key == plan_key))


def get_plan_by_id(tx: Tx, plan_id: int) -> Plan | None:
    """As get_plan, by our own number."""
    return _one_plan(tx, _plans(tx).where(plans.c.plan_id == plan_id))


def bills_in_advance(tx: Tx, plan_id: int) -> bool:
    """Tell whether any rate card of a plan does."""
    query = sa.select(
        sa.exists().where(
            rate_cards.c.tenant_id == tx.tenant_id,
            rate_cards.c.plan_id == plan_id,
            rate_cards.c.price.has_key(_IN_ADVANCE),
        )
    )
    return bool(tx.conn.execute(query).scalar_one())


def lock_plan(tx: Tx, plan_key: str, *, shared: bool) -> Plan | None:
    """As get_plan, and hold its state as it is (shared) or for a change until the transaction ends."""
    return _one_plan(tx, _plans(tx).where(plans.c.plan_key == plan_key).with_for_update(read=shared))


def page_plans(tx: Tx, after_key: str, limit: int) -> list[Plan]:
    """Read plans by key, those after `after_key`."""
    query = _plans(tx).where(plans.c.plan_key > after_key).order_by(plans.c.plan_key).limit(limit)
    return _with_cards(tx, tx.conn.execute(query).all())


def archive_plan(tx: Tx, plan_id: int, now: datetime) -> None:
    """Close a plan for new subscriptions."""
    change = (
        sa.update(plans)
        .where(plans.c.tenant_id == tx.tenant_id, plans.c.plan_id == plan_id)
        .values(state="archived", archive_time=now)
    )
    tx.conn.execute(change)


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
    for row in tx.conn.execute(query) if rows else ():
        cards.setdefault(row.plan_id, []).append(_card(row))
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
        )
        for row in rows
    ]


def _card(row: sa.Row[Any]) -> RateCard:
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
        bool(stored.get(_IN_ADVANCE)),
    )


def _price_json(card: RateCard) -> dict[str, Any] | sa.Null:
    """Store a price with its kind and terms beside its own fields."""
    if card.price is None:
        return sa.null()
    advance = {_IN_ADVANCE: True} if card.in_advance else {}
    return {"kind": kind_of(card.price), **form_of(card.price), **form_of(card.terms), **advance}


def _template_json(template: Template | None) -> dict[str, Any] | sa.Null:
    if template is None:
        return sa.null()
    if isinstance(template, BooleanTemplate):
        return {"kind": "boolean"}
    if isinstance(template, StaticTemplate):
        return {"kind": "static", "config": template.config}
    return {
        "kind": "metered",
        "allowance": decimal_text(template.allowance),
        "soft_limit": template.soft_limit,
    }


def _template(stored: dict[str, Any]) -> Template:
    if stored["kind"] == "boolean":
        return BooleanTemplate()
    if stored["kind"] == "static":
        return StaticTemplate(stored["config"])
    return MeteredTemplate(Decimal(stored["allowance"]), stored["soft_limit"])
