"""BillingService: profiles and tax rates, messages to values and back."""

from dataclasses import fields
from datetime import datetime
from decimal import Decimal
from typing import Any

from ammeter.domain.profile import (
    BillingProfile,
    EffectiveProfile,
    IssueMode,
    StoredProfile,
    TaxRule,
    TaxTreatment,
)
from ammeter.domain.tax import TaxRate
from ammeter.errors import invalid
from ammeter.rpc.convert import to_decimal_text, to_timestamp
from ammeter.rpc.method import ADMIN, READ, Method
from ammeter.rpc.paging import decode_token, encode_token, fingerprint, page_size
from ammeter.store import taxes
from ammeter.store.db import Tx
from ammeter.usecases import profiles
from ammeter.v1 import billing_pb2 as pb

_MODES = {
    IssueMode.MANUAL: pb.BillingProfile.ISSUE_MODE_MANUAL,
    IssueMode.APPROVAL: pb.BillingProfile.ISSUE_MODE_APPROVAL,
    IssueMode.AUTOMATIC: pb.BillingProfile.ISSUE_MODE_AUTOMATIC,
}
_TREATMENTS = {
    TaxTreatment.STANDARD: pb.BillingProfile.TAX_TREATMENT_STANDARD,
    TaxTreatment.EXEMPT: pb.BillingProfile.TAX_TREATMENT_EXEMPT,
    TaxTreatment.REVERSE_CHARGE: pb.BillingProfile.TAX_TREATMENT_REVERSE_CHARGE,
}
_MODE_OF = {number: mode for mode, number in _MODES.items()}
_TREATMENT_OF = {number: treatment for treatment, number in _TREATMENTS.items()}
# Fields that are the same in the message and in the value.
_PLAIN = [
    field.name
    for field in fields(BillingProfile)
    if field.name not in {"issue_mode", "tax_treatment", "tax_rules", "annex_group_by"}
]


class BillingRpc:
    """The service's methods."""

    service = "ammeter.v1.BillingService"

    def methods(self) -> list[Method]:
        """Every RPC of the service."""
        return [
            Method.write("SetBillingProfile", ADMIN, self.set_profile),
            Method.read("GetBillingProfile", READ, self.get_profile),
            Method.write("CreateTaxRate", ADMIN, self.create_tax_rate),
            Method.write("ArchiveTaxRate", ADMIN, self.archive_tax_rate),
            Method.read("ListTaxRates", READ, self.list_tax_rates),
        ]

    def set_profile(
        self, tx: Tx, request: pb.SetBillingProfileRequest, now: datetime
    ) -> pb.SetBillingProfileResponse:
        """Replace a profile."""
        sent = request.profile
        stored = profiles.set_profile(tx, sent.customer_key, _profile(sent), sent.etag, now)
        return pb.SetBillingProfileResponse(profile=_stored_message(sent.customer_key, stored))

    def get_profile(
        self, tx: Tx, request: pb.GetBillingProfileRequest, _now: datetime
    ) -> pb.GetBillingProfileResponse:
        """Answer a profile as set, and what holds."""
        shown = profiles.get_profile(tx, request.customer_key)
        return pb.GetBillingProfileResponse(
            profile=_stored_message(request.customer_key, shown.stored),
            effective=_message(request.customer_key, shown.effective),
        )

    def create_tax_rate(
        self, tx: Tx, request: pb.CreateTaxRateRequest, now: datetime
    ) -> pb.CreateTaxRateResponse:
        """Add a tax rate."""
        sent = request.tax_rate
        draft = TaxRate(sent.tax_rate_key, sent.name, Decimal(0), sent.inclusive, sent.note)
        made = profiles.create_tax_rate(tx, draft, sent.percentage, now)
        return pb.CreateTaxRateResponse(tax_rate=_rate_message(made))

    def archive_tax_rate(
        self, tx: Tx, request: pb.ArchiveTaxRateRequest, now: datetime
    ) -> pb.ArchiveTaxRateResponse:
        """Archive a tax rate."""
        rate = profiles.archive_tax_rate(tx, request.tax_rate_key, now)
        return pb.ArchiveTaxRateResponse(tax_rate=_rate_message(rate))

    def list_tax_rates(
        self, tx: Tx, request: pb.ListTaxRatesRequest, _now: datetime
    ) -> pb.ListTaxRatesResponse:
        """Answer a page of tax rates, by key."""
        query, size = fingerprint(request), page_size(request.page_size)
        after = decode_token(request.page_token, query) or ("",)
        found = taxes.page(tx, str(after[0]), size + 1)
        token = encode_token(query, (found[size - 1].tax_rate_key,)) if len(found) > size else ""
        return pb.ListTaxRatesResponse(
            tax_rates=[_rate_message(rate) for rate in found[:size]], next_page_token=token
        )


def _profile(sent: pb.BillingProfile) -> BillingProfile:
    mode, treatment = sent.issue_mode, sent.tax_treatment
    if mode and mode not in _MODE_OF:
        raise invalid("profile.issue_mode", "is no issue mode: ISSUE_MODE_MANUAL, _APPROVAL or _AUTOMATIC")
    if treatment and treatment not in _TREATMENT_OF:
        names = "TAX_TREATMENT_STANDARD, _EXEMPT or _REVERSE_CHARGE"
        raise invalid("profile.tax_treatment", f"is no tax treatment: {names}")
    plain: dict[str, Any] = {name: getattr(sent, name) for name in _PLAIN if sent.HasField(name)}  # type: ignore[arg-type]  # names that it has
    rules = None
    if sent.HasField("tax_rules"):
        rules = tuple(TaxRule(rule.feature_key, tuple(rule.tax_rate_keys)) for rule in sent.tax_rules.rules)
    return BillingProfile(
        **plain,
        issue_mode=_MODE_OF.get(mode),
        tax_treatment=_TREATMENT_OF.get(treatment),
        tax_rules=rules,
        annex_group_by=tuple(sent.annex.group_by) if sent.HasField("annex") else None,
    )


def _stored_message(customer_key: str, stored: StoredProfile) -> pb.BillingProfile:
    message = _message(customer_key, stored.profile)
    message.MergeFrom(pb.BillingProfile(update_time=to_timestamp(stored.update_time)))
    if stored.version:
        message.etag = str(stored.version)
    return message


def _message(customer_key: str, profile: BillingProfile | EffectiveProfile) -> pb.BillingProfile:
    plain = {name: getattr(profile, name) for name in _PLAIN if getattr(profile, name) is not None}
    rules = None
    if profile.tax_rules is not None:
        rules = pb.TaxRules(
            rules=[
                pb.TaxRule(feature_key=rule.feature_key, tax_rate_keys=rule.tax_rate_keys)
                for rule in profile.tax_rules
            ]
        )
    return pb.BillingProfile(
        customer_key=customer_key,
        **plain,
        issue_mode=_MODES[profile.issue_mode]
        if profile.issue_mode
        else pb.BillingProfile.ISSUE_MODE_UNSPECIFIED,
        tax_treatment=_TREATMENTS[profile.tax_treatment]
        if profile.tax_treatment
        else pb.BillingProfile.TAX_TREATMENT_UNSPECIFIED,
        tax_rules=rules,
        annex=None if profile.annex_group_by is None else pb.UsageAnnex(group_by=profile.annex_group_by),
    )


def _rate_message(rate: TaxRate) -> pb.TaxRate:
    return pb.TaxRate(
        tax_rate_key=rate.tax_rate_key,
        name=rate.name,
        percentage=to_decimal_text(rate.percentage),
        inclusive=rate.inclusive,
        note=rate.note,
        create_time=to_timestamp(rate.create_time),
        archive_time=to_timestamp(rate.archive_time),
    )
