"""Set and read billing profiles; create, archive and list tax rates.

Changes of profiles and rates of a tenant happen one after the other, so that
no profile names a rate that is archived at the same moment.
"""

from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

from ammeter.domain.profile import (
    BillingProfile,
    EffectiveProfile,
    StoredProfile,
    check_profile,
    check_rate,
    effective,
    named_rates,
)
from ammeter.domain.quantity import parse_decimal
from ammeter.domain.tax import TaxRate
from ammeter.errors import (
    AlreadyExistsError,
    ConflictError,
    InvalidInputError,
    NotFoundError,
    PreconditionError,
    Violation,
)
from ammeter.store import clocks, profiles, taxes
from ammeter.store.db import Tx
from ammeter.usecases.bill import find_customer
from ammeter.usecases.terms import schedule_drafts

_MOST_PERCENT = 100


class Shown(NamedTuple):
    """A profile as set, and what holds with what it leaves open."""

    stored: StoredProfile
    effective: EffectiveProfile


def set_profile(
    tx: Tx, customer_key: str, profile: BillingProfile, etag: str, now: datetime
) -> StoredProfile:
    """Put a profile in the place of a customer's, or (customer_key empty) of the tenant's own.

    Raises NotFoundError, InvalidInputError with all faults, ConflictError when `etag` is stale.
    """
    customer_id = find_customer(tx, customer_key) if customer_key else None
    profiles.lock(tx)
    rates = taxes.named(tx, sorted(named_rates(profile.tax_rules)))
    check_profile(profile, rates, of_customer=customer_id is not None)
    version = profiles.get(tx, customer_id).version
    if etag and etag.strip('"') != str(version):
        raise ConflictError("the profile was changed meanwhile: read it again and send its etag")
    stored = profiles.put(tx, customer_id, profile, now)
    schedule_drafts(tx, customer_id)
    clocks.set_back(tx, customer_id)
    return stored


def get_profile(tx: Tx, customer_key: str) -> Shown:
    """Read a customer's profile, or the tenant's own; raises NotFoundError."""
    if not customer_key:
        stored = profiles.get(tx, None)
        return Shown(stored, effective(stored.profile, BillingProfile()))
    customer_id = find_customer(tx, customer_key)
    return Shown(profiles.get(tx, customer_id), effective(*profiles.get_both(tx, customer_id)))


def create_tax_rate(tx: Tx, rate: TaxRate, percentage: str, now: datetime) -> TaxRate:
    """Add a rate, whose percentage is text; raises InvalidInputError, AlreadyExistsError."""
    violations = check_rate(rate)
    made = TaxRate(
        rate.tax_rate_key, rate.name, _percentage(percentage, violations), rate.inclusive, rate.note, now
    )
    if violations:
        raise InvalidInputError(violations)
    if not taxes.insert(tx, made):
        message = f"there is a tax rate {rate.tax_rate_key!r} already: choose another key"
        raise AlreadyExistsError(message, field="tax_rate.tax_rate_key")
    return made


def _percentage(text: str, violations: list[Violation]) -> Decimal:
    field = "tax_rate.percentage"
    try:
        found = parse_decimal(text, field)
    except InvalidInputError as error:
        violations += error.violations
        return Decimal(0)
    if not 0 <= found <= _MOST_PERCENT:
        violations.append(Violation(field, f"must be 0 to {_MOST_PERCENT}"))
    return found


def archive_tax_rate(tx: Tx, tax_rate_key: str, now: datetime) -> TaxRate:
    """Keep a rate out of profiles from now on; raises NotFoundError, PreconditionError (IN_USE)."""
    profiles.lock(tx)
    rate = taxes.get(tx, tax_rate_key, lock=True)
    if rate is None:
        raise NotFoundError("tax rate", tax_rate_key)
    if rate.archive_time is not None:
        return rate
    if any(tax_rate_key in named_rates(profile.tax_rules) for profile in profiles.every(tx)):
        raise PreconditionError(
            f"tax rate {tax_rate_key!r} is in a billing profile: name another there first", reason="IN_USE"
        )
    return taxes.archive(tx, rate, now)
