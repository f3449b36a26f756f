"""Grant, void, reset: what fills a metered entitlement."""

from datetime import datetime

from ammeter.domain.entitlement_rules import MAX_RESETS, GrantDraft, check_crowd, make_grant
from ammeter.domain.grant import Terms
from ammeter.domain.minute import minute_of
from ammeter.domain.usage_period import Reset, UsagePeriod
from ammeter.errors import InvalidInputError, NotFoundError, PreconditionError, Violation, invalid
from ammeter.store import grants as store
from ammeter.store.db import Tx
from ammeter.store.entitlements import Held
from ammeter.store.grants import StoredGrant
from ammeter.usecases.entitle import get_entitlement
from ammeter.usecases.ids import new_id
from ammeter.usecases.live import Live


def create_grant(tx: Tx, live: Live, draft: GrantDraft, now: datetime) -> StoredGrant:
    """Add a grant to a metered entitlement."""
    held, terms = _metered(tx, draft.entitlement_id, "grant.entitlement_id")
    period = _present_period(held, terms, now)
    zone = terms.schedule.rhythm.time_zone
    grant = make_grant(draft, new_id("grt", now), zone, period, terms.schedule.end_minute, now)
    check_crowd(held.grants, grant, period)
    stored = StoredGrant(grant, draft.entitlement_id, now, None)
    store.insert(tx, stored)
    _refresh(tx, live, held)
    return stored


def void_grant(tx: Tx, live: Live, grant_id: str, void_time: datetime | None, now: datetime) -> StoredGrant:
    """Take back what is left of a grant, from a minute of the present period on."""
    entitlement_id = _get_grant(tx, grant_id).entitlement_id
    held, terms = _metered(tx, entitlement_id, "grant_id")
    grant, _, _, voided = _get_grant(tx, grant_id)
    if voided is not None:
        raise PreconditionError(f"grant {grant_id} was voided already")
    if grant.expire_minute <= minute_of(now):
        raise PreconditionError(f"grant {grant_id} has expired: there is nothing to void")
    period = _present_period(held, terms, now)
    minute = minute_of(now if void_time is None else void_time)
    if void_time is not None and not (period.start_minute <= minute and void_time <= now):
        raise invalid("void_time", "must lie in the present usage period, and not after now")
    store.void(tx, grant_id, minute, now)
    _refresh(tx, live, held)
    return _get_grant(tx, grant_id)


def reset_usage(
    tx: Tx,
    live: Live,
    entitlement_id: str,
    reset_time: datetime | None,
    *,
    moves_anchor: bool,
    preserve_overage: bool | None,
    now: datetime,
) -> UsagePeriod:
    """Begin a new usage period at a minute of the present one; returns it."""
    held, terms = _metered(tx, entitlement_id, "entitlement_id")
    minute = minute_of(now if reset_time is None else reset_time)
    violations = []
    if preserve_overage and terms.level:
        why = f"is not for a meter of {held.aggregation}: a level is there or not, nothing of it is owed"
        violations.append(Violation("preserve_overage", why))
    if reset_time is not None and reset_time > now:
        violations.append(Violation("reset_time", "must not lie ahead"))
    if len(held.resets) >= MAX_RESETS:
        violations.append(Violation("entitlement_id", f"was reset {MAX_RESETS} times by hand already"))
    if violations:
        raise InvalidInputError(violations)
    period = _present_period(held, terms, now)
    if minute <= period.start_minute:
        raise invalid("reset_time", "must lie after the start of the present usage period")
    store.insert_reset(tx, entitlement_id, Reset(minute, moves_anchor, preserve_overage), now)
    _refresh(tx, live, held)
    again = get_entitlement(tx, entitlement_id).terms
    begun = again.schedule.around(minute) if again else None
    if begun is None:
        raise PreconditionError(f"entitlement {entitlement_id} is not active at that time")
    return begun


def _get_grant(tx: Tx, grant_id: str) -> StoredGrant:
    stored = None if "\0" in grant_id else store.get(tx, grant_id)
    if stored is None:
        raise NotFoundError("grant", grant_id)
    return stored


def _metered(tx: Tx, entitlement_id: str, field: str) -> tuple[Held, Terms]:
    held = get_entitlement(tx, entitlement_id, lock=True)
    terms = held.terms
    if terms is None:
        kind = held.entitlement.kind.value
        raise invalid(field, f"names a {kind} entitlement: only metered ones have a balance")
    return held, terms


def _present_period(held: Held, terms: Terms, now: datetime) -> UsagePeriod:
    """Find the period around now, or the first one when it has not begun."""
    schedule = terms.schedule
    period = schedule.around(max(minute_of(now), schedule.start_minute))
    if period is None:
        raise PreconditionError(
            f"entitlement {held.entitlement.entitlement_id} has ended: grant to the one that is active now"
        )
    return period


def _refresh(tx: Tx, live: Live, held: Held) -> None:
    customer_id = held.entitlement.customer_id
    tx.after_commit.append(lambda: live.refresh_customer(tx.tenant_id, customer_id))
