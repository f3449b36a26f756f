"""Billing profiles: a tenant's own (without a customer), and its customers'."""

from collections.abc import Collection, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.engine import Connection

from ammeter.domain.profile import BillingProfile, IssueMode, StoredProfile, TaxRule, TaxTreatment
from ammeter.store.billing_tables import billing_profiles
from ammeter.store.db import Tx
from ammeter.store.many import one_of

_HOLD_LOCK = sa.text("SELECT pg_advisory_xact_lock_shared(:lock)")
_SET_LOCK = sa.text("SELECT pg_advisory_xact_lock(:lock)")
# Keeps the profiles' lock apart from other locks of the same tenant.
_PROFILE_LOCKS = 2 << 32


def lock(tx: Tx) -> None:
    """Hold off other changes of the tenant's profiles and tax rates until the transaction ends."""
    tx.conn.execute(_SET_LOCK, {"lock": _PROFILE_LOCKS + tx.tenant_id})


def hold(tx: Tx) -> None:
    """Keep the tenant's profiles as they are until the transaction ends. Take it before an invoice's row."""
    tx.conn.execute(_HOLD_LOCK, {"lock": _PROFILE_LOCKS + tx.tenant_id})


def get(tx: Tx, customer_id: int | None) -> StoredProfile:
    """Read a profile; an empty one, of version 0, if it was never set."""
    return _read(tx, [customer_id]).get(customer_id, StoredProfile())


def get_both(tx: Tx, customer_id: int) -> tuple[BillingProfile, BillingProfile]:
    """Read the tenant's own profile and a customer's."""
    found = _read(tx, [None, customer_id])
    return found.get(None, StoredProfile()).profile, found.get(customer_id, StoredProfile()).profile


def of_customers(tx: Tx, customer_ids: Collection[int]) -> tuple[BillingProfile, dict[int, BillingProfile]]:
    """Read the tenant's own profile and those of its customers that have one."""
    found = _read(tx, [None, *customer_ids])
    own = found.pop(None, StoredProfile()).profile
    return own, {key: stored.profile for key, stored in found.items() if key is not None}


def _read(tx: Tx, customer_ids: Sequence[int | None]) -> dict[int | None, StoredProfile]:
    theirs = [customer_id for customer_id in customer_ids if customer_id is not None]
    wanted = one_of(billing_profiles.c.customer_id, theirs)
    if None in customer_ids:
        wanted = sa.or_(wanted, billing_profiles.c.customer_id.is_(None))
    query = sa.select(billing_profiles).where(billing_profiles.c.tenant_id == tx.tenant_id, wanted)
    return {
        row.customer_id: StoredProfile(_profile(row.profile), row.version, row.update_time)
        for row in tx.conn.execute(query)
    }


def every(tx: Tx) -> list[BillingProfile]:
    """Read all profiles of the tenant."""
    query = sa.select(billing_profiles.c.profile).where(billing_profiles.c.tenant_id == tx.tenant_id)
    return [_profile(profile) for profile in tx.conn.execute(query).scalars()]


def put(tx: Tx, customer_id: int | None, profile: BillingProfile, now: datetime) -> StoredProfile:
    """Put a profile in the place of the one there is, and count its version up."""
    document = {name: value for name, value in asdict(profile).items() if value is not None}
    query = upsert(billing_profiles).values(
        tenant_id=tx.tenant_id, customer_id=customer_id, profile=document, version=1, update_time=now
    )
    query = query.on_conflict_do_update(
        index_elements=["tenant_id", "customer_id"],
        set_={
            "profile": query.excluded.profile,
            "version": billing_profiles.c.version + 1,
            "update_time": now,
        },
    )
    version = tx.conn.execute(query.returning(billing_profiles.c.version)).scalar_one()
    return StoredProfile(profile, version, now)


def tenants_at_work(conn: Connection) -> list[int]:
    """Find the tenants that want something done without being asked: of whom a profile says so."""
    at_work = billing_profiles.c.profile["issue_mode"].astext != IssueMode.MANUAL.value
    query = sa.select(billing_profiles.c.tenant_id).where(at_work).distinct()
    return sorted(conn.execute(query).scalars())


def _profile(document: dict[str, Any]) -> BillingProfile:
    values = dict(document)
    if "issue_mode" in values:
        values["issue_mode"] = IssueMode(values["issue_mode"])
    if "tax_treatment" in values:
        values["tax_treatment"] = TaxTreatment(values["tax_treatment"])
    if "tax_rules" in values:
        values["tax_rules"] = tuple(
            TaxRule(rule["feature_key"], tuple(rule["tax_rate_keys"])) for rule in values["tax_rules"]
        )
    if "annex_group_by" in values:
        values["annex_group_by"] = tuple(values["annex_group_by"])
    return BillingProfile(**values)
