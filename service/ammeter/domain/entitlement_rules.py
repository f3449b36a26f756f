"""What an entitlement made by hand, a grant and a reset may look like."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from ammeter.domain import keys
from ammeter.domain.catalog_rules import check_config
from ammeter.domain.entitlement import Kind
from ammeter.domain.grant import LEVELS, Grant
from ammeter.domain.minute import END, minute_of, truncate
from ammeter.domain.period import parse_cadence
from ammeter.domain.quantity import parse_decimal, to_scaled
from ammeter.domain.usage_period import Rhythm, UsagePeriod
from ammeter.errors import InvalidInputError, Violation

MAX_GRANTS = 200
MAX_RECURRING = 10
MAX_RESETS = 1000
MAX_PRIORITY = 1000
_MAX_PAST = timedelta(days=35)
_MAX_AHEAD = timedelta(days=366)
_MAX_ANCHOR = timedelta(days=3660)


@dataclass(frozen=True)
class EntitlementDraft:
    """An entitlement as sent: amounts are text, what was left out is empty or None."""

    customer_key: str
    feature_key: str
    kind: str
    subscription_id: str = ""
    allowance: str = ""
    soft_limit: bool = False
    preserve_overage: bool = False
    cadence: str = ""
    anchor_time: datetime | None = None
    config: dict[str, Any] | None = None
    from_time: datetime | None = None
    to_time: datetime | None = None


@dataclass(frozen=True)
class GrantDraft:
    """A grant as sent."""

    entitlement_id: str
    amount: str
    priority: int = 0
    effective_time: datetime | None = None
    expire_time: datetime | None = None
    recurs: bool = False
    cadence: str = ""
    anchor_time: datetime | None = None
    rollover_minimum: str = ""
    rollover_maximum: str = ""


def check_entitlement(
    draft: EntitlementDraft, aggregation: str, now: datetime, *, past: timedelta = _MAX_PAST
) -> Decimal | None:
    """Refuse an entitlement that cannot be; `aggregation` is that of the feature's meter, "" for none.

    Returns the allowance. Raises InvalidInputError with every fault.
    """
    violations = [*_check_span(draft, now, past)]
    allowance = None
    if draft.kind == Kind.STATIC.value:
        violations += check_config("entitlement.static.config", draft.config or {})
    elif draft.kind == Kind.METERED.value:
        if draft.allowance:
            allowance = _decimal("entitlement.metered.allowance", draft.allowance, violations)
        violations += _check_metered(draft, aggregation, now)
    elif draft.kind != Kind.BOOLEAN.value:
        violations.append(Violation("entitlement.kind", "must be boolean, static or metered"))
    if draft.subscription_id and (draft.kind != Kind.METERED.value or draft.cadence):
        why = "gives usage periods to a metered entitlement that names none: leave it out"
        violations.append(Violation("entitlement.subscription_id", why))
    if violations:
        raise InvalidInputError(violations)
    return allowance


def _check_span(draft: EntitlementDraft, now: datetime, past: timedelta) -> Iterable[Violation]:
    start = draft.from_time or now
    if not now - past <= start <= now + _MAX_AHEAD:
        back = f"at most {past.days} days" if past.days else "not at all"
        yield Violation("entitlement.from_time", f"must lie {back} in the past and at most 1 year ahead")
    if draft.to_time is not None and truncate(draft.to_time) <= truncate(start):
        yield Violation("entitlement.to_time", "must be at least a minute after from_time")


def _check_metered(draft: EntitlementDraft, aggregation: str, now: datetime) -> Iterable[Violation]:
    if not aggregation:
        yield Violation("entitlement.feature_key", "names a feature without a meter: it cannot be metered")
    if draft.preserve_overage and aggregation in LEVELS:
        why = f"is not for a meter of {aggregation}: a level is there or not, nothing of it is owed"
        yield Violation("entitlement.metered.preserve_overage", why)
    path = "entitlement.metered.usage_period"
    if draft.cadence:
        yield from _check_rhythm(path, draft.cadence, draft.anchor_time, draft.from_time or now)
    elif not draft.subscription_id:
        yield Violation(path, "must be given, or a subscription_id whose billing periods are followed")


def _check_rhythm(path: str, cadence: str, anchor: datetime | None, start: datetime) -> Iterable[Violation]:
    try:
        parse_cadence(cadence)
    except ValueError as error:
        yield Violation(f"{path}.cadence", str(error)[: keys.MAX_TEXT])
    if anchor is not None and abs(anchor - start) > _MAX_ANCHOR:
        yield Violation(f"{path}.anchor_time", "must be at most 10 years from where it starts")


def make_grant(
    draft: GrantDraft, grant_id: str, zone: str, period: UsagePeriod, end_minute: int, now: datetime
) -> Grant:
    """Turn a draft into a grant; raises InvalidInputError with every fault.

    `period` is the present one of the entitlement, or its first; `end_minute`
    is where the entitlement ends.
    """
    violations: list[Violation] = []
    amount = _decimal("grant.amount", draft.amount, violations, above_zero=True)
    least = _decimal("grant.rollover_minimum", draft.rollover_minimum or "0", violations)
    most = (
        _decimal("grant.rollover_maximum", draft.rollover_maximum, violations)
        if draft.rollover_maximum
        else None
    )
    if most is not None and least > most:
        violations.append(Violation("grant.rollover_minimum", "must not be above rollover_maximum"))
    if abs(draft.priority) > MAX_PRIORITY:
        violations.append(Violation("grant.priority", f"must be -{MAX_PRIORITY} to {MAX_PRIORITY}"))
    effective = max(minute_of(now), period.start_minute)
    if draft.effective_time is not None:
        effective = minute_of(draft.effective_time)
    violations += _check_grant_span(draft, effective, period, end_minute)
    recurrence = None
    if draft.recurs:
        start = draft.effective_time or now
        violations += _check_rhythm("grant.recurrence", draft.cadence, draft.anchor_time, start)
        recurrence = Rhythm(truncate(draft.anchor_time or start), zone, draft.cadence)
    if violations:
        raise InvalidInputError(violations)
    expire = END if draft.expire_time is None else minute_of(draft.expire_time)
    return Grant(
        grant_id,
        to_scaled(amount),
        effective,
        expire,
        expire,
        draft.priority,
        to_scaled(least),
        None if most is None else to_scaled(most),
        recurrence,
        minute_of(now),
    )


def _check_grant_span(
    draft: GrantDraft, effective: int, period: UsagePeriod, end_minute: int
) -> Iterable[Violation]:
    if effective < period.start_minute:
        why = "lies before the present usage period: what is closed does not change"
        yield Violation("grant.effective_time", why)
    elif effective >= end_minute:
        yield Violation("grant.effective_time", "lies after the end of the entitlement")
    if draft.expire_time is not None and minute_of(draft.expire_time) <= effective:
        yield Violation("grant.expire_time", "must be at least a minute after effective_time")


def _decimal(field: str, text: str, violations: list[Violation], *, above_zero: bool = False) -> Decimal:
    """Read a decimal that is not negative; 0 when it is faulty."""
    try:
        value = parse_decimal(text, field)
    except InvalidInputError as error:
        violations += error.violations
        return Decimal(0)
    if value < 0 or (above_zero and value == 0):
        violations.append(Violation(field, "must be above zero" if above_zero else "must not be negative"))
    return value.copy_abs()


def check_crowd(grants: Iterable[Grant], wanted: Grant, period: UsagePeriod) -> None:
    """Refuse one grant too many: every balance has to be computed in little time."""
    living = [grant for grant in grants if grant.end_minute > period.start_minute]
    if len(living) >= MAX_GRANTS:
        why = f"has {MAX_GRANTS} grants already that reach into its present period: grant larger amounts"
    elif wanted.recurrence and sum(grant.recurrence is not None for grant in living) >= MAX_RECURRING:
        why = f"has {MAX_RECURRING} recurring grants already: put them together"
    else:
        return
    raise InvalidInputError([Violation("grant.entitlement_id", why)], reason="LIMIT_EXCEEDED")
