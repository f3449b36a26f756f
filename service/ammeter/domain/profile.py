"""Billing profiles: how a tenant invoices, and what of it is different for one customer."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo

from ammeter.domain import keys
from ammeter.domain.quantity import parse_decimal
from ammeter.domain.tax import TaxRate
from ammeter.domain.usage_groups import MAX_NAMES
from ammeter.errors import InvalidInputError, Violation

MAX_TEXT = 1000
MAX_PREFIX = 32
MAX_DIGITS = 18
MAX_DAYS = 366
MAX_RULES = 100
MAX_RATES = 5
_SECONDS_PER_DAY = 86_400


class IssueMode(StrEnum):
    """What happens without being asked: nothing, drafts, or issued invoices."""

    MANUAL = "manual"
    APPROVAL = "approval"
    AUTOMATIC = "automatic"


class TaxTreatment(StrEnum):
    """Whether rates are due. Reverse charge: the customer owes the tax itself."""

    STANDARD = "standard"
    EXEMPT = "exempt"
    REVERSE_CHARGE = "reverse_charge"


@dataclass(frozen=True)
class TaxRule:
    """The rates that a feature's lines bear; without a feature_key, that all other lines bear."""

    feature_key: str
    tax_rate_keys: tuple[str, ...]


@dataclass(frozen=True)
class BillingProfile:
    """What was said of how to invoice; None where nothing was."""

    supplier_name: str | None = None
    supplier_address: str | None = None
    supplier_tax_id: str | None = None
    issue_mode: IssueMode | None = None
    grace_seconds: int | None = None
    due_after_days: int | None = None
    invoice_number_prefix: str | None = None
    credit_note_number_prefix: str | None = None
    number_digits: int | None = None
    memo: str | None = None
    tax_rules: tuple[TaxRule, ...] | None = None
    tax_treatment: TaxTreatment | None = None
    tax_note: str | None = None
    customer_address: str | None = None
    customer_tax_id: str | None = None
    annex_group_by: tuple[str, ...] | None = None
    progressive_threshold: str | None = None


@dataclass(frozen=True)
class EffectiveProfile:
    """How to invoice somebody: nothing is left open."""

    supplier_name: str = ""
    supplier_address: str = ""
    supplier_tax_id: str = ""
    issue_mode: IssueMode = IssueMode.MANUAL
    grace_seconds: int = 0
    due_after_days: int = 0
    invoice_number_prefix: str = ""
    credit_note_number_prefix: str = ""
    number_digits: int = 0
    memo: str = ""
    tax_rules: tuple[TaxRule, ...] = ()
    tax_treatment: TaxTreatment = TaxTreatment.STANDARD
    tax_note: str = ""
    customer_address: str = ""
    customer_tax_id: str = ""
    annex_group_by: tuple[str, ...] = ()
    progressive_threshold: str = ""


@dataclass(frozen=True)
class StoredProfile:
    """A profile as kept: version 0 if it was never set."""

    profile: BillingProfile = BillingProfile()
    version: int = 0
    update_time: datetime | None = None


def effective(tenants: BillingProfile, customers: BillingProfile) -> EffectiveProfile:
    """Take each field from the customer's profile, else from the tenant's, else its default."""
    found = {}
    for field in fields(BillingProfile):
        for profile in (customers, tenants):
            value = getattr(profile, field.name)
            if value is not None:
                found[field.name] = value
                break
    return EffectiveProfile(**found)


def number_text(prefix: str, digits: int, number: int) -> str:
    """Write a number as printed: INV-, 6 and 42 make INV-000042."""
    return f"{prefix}{number:0{digits}d}" if digits else f"{prefix}{number}"


def due_time(issued: datetime, days: int, time_zone: str) -> datetime:
    """Return when payment is due: so many calendar days later, at the same local clock."""
    local = issued.astimezone(ZoneInfo(time_zone))
    return (local + timedelta(days=days)).astimezone(UTC)


def rates_for(
    profile: EffectiveProfile, rates: Mapping[str, TaxRate], feature_key: str
) -> tuple[TaxRate, ...]:
    """Return the rates that a feature's line bears; its own rule wins over the one for all others."""
    if not profile.tax_rules or profile.tax_treatment is not TaxTreatment.STANDARD:
        return ()
    by_feature = {rule.feature_key: rule.tax_rate_keys for rule in profile.tax_rules}
    chosen = by_feature.get(feature_key, by_feature.get("", ()))
    return tuple(rates[key] for key in chosen)


def check_profile(profile: BillingProfile, rates: Mapping[str, TaxRate], *, of_customer: bool) -> None:
    """Refuse a profile that cannot be, telling all faults; `rates` are those there are.

    Raises InvalidInputError.
    """
    violations = [
        *_check_texts(profile),
        *_check_numbers(profile),
        *_check_rules(profile.tax_rules or (), rates),
        *_check_annex(profile.annex_group_by or ()),
        *_check_threshold(profile.progressive_threshold or "0"),
    ]
    if not of_customer:
        violations += [
            Violation(f"profile.{name}", "is of a customer's profile only: set customer_key, or leave it out")
            for name in ("customer_address", "customer_tax_id")
            if getattr(profile, name) is not None
        ]
    if violations:
        raise InvalidInputError(violations)


def _check_texts(profile: BillingProfile) -> Iterator[Violation]:
    for name in (field.name for field in fields(BillingProfile)):
        value = getattr(profile, name)
        most = MAX_PREFIX if name.endswith("_prefix") else MAX_TEXT
        if isinstance(value, str) and len(value) > most:
            yield Violation(f"profile.{name}", f"must be at most {most} characters: shorten it")


def _check_numbers(profile: BillingProfile) -> Iterator[Violation]:
    for name, most in (
        ("grace_seconds", MAX_DAYS * _SECONDS_PER_DAY),
        ("due_after_days", MAX_DAYS),
        ("number_digits", MAX_DIGITS),
    ):
        value = getattr(profile, name)
        if value is not None and not 0 <= value <= most:
            yield Violation(f"profile.{name}", f"must be 0 to {most}")


def _check_rules(rules: tuple[TaxRule, ...], rates: Mapping[str, TaxRate]) -> Iterator[Violation]:
    if len(rules) > MAX_RULES:
        yield Violation("profile.tax_rules.rules", f"are more than {MAX_RULES}: make fewer")
        return
    seen = set()
    for number, rule in enumerate(rules):
        path = f"profile.tax_rules.rules[{number}]"
        if rule.feature_key in seen:
            what = f"feature {rule.feature_key!r}" if rule.feature_key else "all other lines"
            yield Violation(f"{path}.feature_key", f"there is a rule about {what} already: keep one")
        seen.add(rule.feature_key)
        if rule.feature_key:
            yield from keys.catalog_key(f"{path}.feature_key", rule.feature_key)
        yield from _check_rates(f"{path}.tax_rate_keys", rule.tax_rate_keys, rates)


def _check_annex(names: tuple[str, ...]) -> Iterator[Violation]:
    path = "profile.annex.group_by"
    if len(names) > MAX_NAMES:
        yield Violation(path, f"are more than {MAX_NAMES}: name fewer")
        return
    for place, name in enumerate(names):
        if not name or len(name) > MAX_PREFIX * 2:
            yield Violation(f"{path}[{place}]", "is no name: subject, or a dimension of a meter")
        elif name in names[:place]:
            yield Violation(f"{path}[{place}]", "is named twice: once is enough")


def _check_threshold(text: str) -> Iterator[Violation]:
    field = "profile.progressive_threshold"
    try:
        threshold = parse_decimal(text, field)
    except InvalidInputError as error:
        yield from error.violations
        return
    if threshold < 0:
        yield Violation(field, "must be more than 0, or empty for never")


def _check_rates(path: str, names: tuple[str, ...], rates: Mapping[str, TaxRate]) -> Iterator[Violation]:
    if len(names) > MAX_RATES:
        yield Violation(path, f"are more than {MAX_RATES}: name fewer")
        return
    known: list[TaxRate] = []
    for place, name in enumerate(names):
        rate = rates.get(name)
        if rate is None or rate.archive_time is not None:
            yield Violation(f"{path}[{place}]", "is no tax rate that can be used: see ListTaxRates")
        elif rate in known:
            yield Violation(f"{path}[{place}]", "is named twice: once is enough")
        else:
            known.append(rate)
    if len({rate.inclusive for rate in known}) > 1:
        yield Violation(path, "are inclusive and exclusive: a line bears rates of one kind only")


def check_rate(rate: TaxRate) -> list[Violation]:
    """List what is wrong with a tax rate, but for its percentage."""
    violations = [*keys.catalog_key("tax_rate.tax_rate_key", rate.tax_rate_key)]
    if not rate.name:
        violations.append(Violation("tax_rate.name", "is needed: it is printed, such as VAT 19%"))
    violations += keys.text("tax_rate.name", rate.name)
    if len(rate.note) > MAX_TEXT:
        violations.append(Violation("tax_rate.note", f"must be at most {MAX_TEXT} characters: shorten it"))
    return violations


def named_rates(rules: Iterable[TaxRule] | None) -> set[str]:
    """Collect the keys of the rates that rules name."""
    return {key for rule in rules or () for key in rule.tax_rate_keys}
