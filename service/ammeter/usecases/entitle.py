"""Give entitlements by hand, and take them away."""

from dataclasses import replace
from datetime import datetime, timedelta

from ammeter.domain.entitlement import Entitlement, Kind
from ammeter.domain.entitlement_rules import EntitlementDraft, check_entitlement
from ammeter.domain.minute import truncate
from ammeter.errors import NotFoundError, PreconditionError
from ammeter.store import customers, meters
from ammeter.store import entitlements as store
from ammeter.store.catalog import lock_features
from ammeter.store.db import Tx
from ammeter.store.entitlements import Held
from ammeter.usecases.catalog import get_feature
from ammeter.usecases.customers import get_customer
from ammeter.usecases.ids import new_id
from ammeter.usecases.live import Live
from ammeter.usecases.subscribe import get_subscription


def get_entitlement(tx: Tx, entitlement_id: str, *, lock: bool = False) -> Held:
    """Read an entitlement with its grants; `lock` holds its customer's row. Raises NotFoundError."""
    held = None if "\0" in entitlement_id else store.get(tx, entitlement_id)
    if held is None:
        raise NotFoundError("entitlement", entitlement_id)
    if not lock:
        return held
    # The lock that subscribing takes: two changes of one customer come one after the other.
    customers.get_by_id(tx, held.entitlement.customer_id, lock=True)
    return get_entitlement(tx, entitlement_id)


def create_entitlement(tx: Tx, live: Live, draft: EntitlementDraft, now: datetime) -> Held:
    """Give a customer a feature."""
    wanted, feature_id = _wanted(tx, draft, now, timedelta(days=35))
    _refuse_overlap(tx, wanted)
    return _insert(tx, live, wanted, feature_id)


def override_entitlement(tx: Tx, live: Live, draft: EntitlementDraft, now: datetime) -> tuple[Held, Held]:
    """Put an entitlement in place of the one that is active when it begins; returns (new, overridden)."""
    draft = replace(draft, from_time=draft.from_time or now)
    earliest = now - truncate(now)
    wanted, feature_id = _wanted(tx, draft, now, earliest)
    met = store.overlapping(
        tx, wanted.customer_id, wanted.feature_key, wanted.from_time, wanted.from_time + timedelta(minutes=1)
    )
    if not met:
        raise PreconditionError(
            f"no entitlement to {wanted.feature_key!r} is active then: create one instead of overriding"
        )
    overridden = met[0].entitlement.entitlement_id
    store.end(tx, overridden, wanted.from_time)
    _refuse_overlap(tx, wanted)
    return _insert(tx, live, wanted, feature_id), get_entitlement(tx, overridden)


def delete_entitlement(tx: Tx, live: Live, entitlement_id: str, now: datetime) -> Held:
    """End an entitlement now, for good."""
    mine = get_entitlement(tx, entitlement_id, lock=True).entitlement
    if mine.to_time is not None and mine.to_time <= now:
        raise PreconditionError(f"entitlement {entitlement_id} has ended already: there is nothing to delete")
    store.end(tx, entitlement_id, max(truncate(now), mine.from_time))
    tx.after_commit.append(lambda: live.refresh_customer(tx.tenant_id, mine.customer_id))
    return get_entitlement(tx, entitlement_id)


def _wanted(tx: Tx, draft: EntitlementDraft, now: datetime, past: timedelta) -> tuple[Entitlement, int]:
    customer = get_customer(tx, draft.customer_key, lock=True)
    lock_features(tx, shared=True)
    feature = get_feature(tx, draft.feature_key)
    aggregation = meters.get_meter(tx, feature.meter_key).aggregation if feature.meter_key else ""
    allowance = check_entitlement(draft, aggregation, now, past=past)
    start = truncate(draft.from_time or now)
    cadence, anchor = draft.cadence, truncate(draft.anchor_time or start)
    if draft.subscription_id:
        subscription = get_subscription(tx, draft.subscription_id)
        if subscription.customer_id != customer.customer_id:
            raise NotFoundError("subscription", draft.subscription_id)
        cadence, anchor = subscription.billing_cadence, subscription.anchor_time
    metered = draft.kind == Kind.METERED.value
    wanted = Entitlement(
        entitlement_id=new_id("ent", now),
        counter=0,
        customer_id=customer.customer_id,
        customer_key=customer.customer_key,
        feature_key=feature.feature_key,
        subscription_id="",
        kind=Kind(draft.kind),
        allowance=allowance,
        soft_limit=metered and draft.soft_limit,
        config=(draft.config or {}) if draft.kind == Kind.STATIC.value else None,
        from_time=start,
        to_time=None if draft.to_time is None else truncate(draft.to_time),
        preserve_overage=metered and draft.preserve_overage,
        cadence=cadence if metered else None,
        anchor_time=anchor if metered else None,
    )
    return wanted, feature.feature_id


def _refuse_overlap(tx: Tx, wanted: Entitlement) -> None:
    met = store.overlapping(tx, wanted.customer_id, wanted.feature_key, wanted.from_time, wanted.to_time)
    if met:
        other = met[0].entitlement
        source = f" of subscription {other.subscription_id}" if other.subscription_id else ""
        raise PreconditionError(
            f"entitlement {other.entitlement_id}{source} gives {wanted.feature_key!r} at that time: "
            "override or delete it, or choose another from_time or to_time",
            reason="FEATURE_OVERLAP",
            field="entitlement.feature_key",
        )


def _insert(tx: Tx, live: Live, wanted: Entitlement, feature_id: int) -> Held:
    store.insert(tx, [wanted], {wanted.feature_key: feature_id})
    tx.after_commit.append(lambda: live.refresh_customer(tx.tenant_id, wanted.customer_id))
    return get_entitlement(tx, wanted.entitlement_id)
