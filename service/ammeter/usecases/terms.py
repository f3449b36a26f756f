"""What an invoice says beside its lines: parties, taxes, number, due time. As the profiles say now."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from ammeter.domain.customer import Customer
from ammeter.domain.invoice import OPENING, Invoice, Party, State, Terms, with_taxes
from ammeter.domain.money import currency_exponent
from ammeter.domain.profile import (
    BillingProfile,
    EffectiveProfile,
    IssueMode,
    TaxTreatment,
    due_time,
    effective,
    named_rates,
    number_text,
    rates_for,
)
from ammeter.domain.tax import TaxRate
from ammeter.errors import InternalError
from ammeter.store import customers, invoice_writing, invoices, profiles, taxes
from ammeter.store.db import Tx


class Parties(NamedTuple):
    """Who pays, and how that one is invoiced."""

    customer: Customer
    profile: EffectiveProfile


@dataclass(frozen=True)
class Desk:
    """The parties of some invoices by customer, and the tax rates that their profiles name."""

    parties: Mapping[int, Parties]
    rates: Mapping[str, TaxRate]

    def of(self, invoice: Invoice) -> Parties:
        """Give the parties of an invoice."""
        found = self.parties.get(invoice.customer_id)
        if found is None:
            raise InternalError(f"customer {invoice.customer_key} of an invoice is gone")
        return found


def read_desk(tx: Tx, customer_ids: Collection[int]) -> Desk:
    """Read profiles as they are now; they stay so until the transaction ends."""
    profiles.hold(tx)
    tenants, theirs = profiles.of_customers(tx, customer_ids)
    usual = effective(tenants, BillingProfile())
    parties = {
        key: Parties(customer, effective(tenants, theirs[key]) if key in theirs else usual)
        for key, customer in customers.by_ids(tx, customer_ids).items()
    }
    named = {rate for one in parties.values() for rate in named_rates(one.profile.tax_rules)}
    return Desk(parties, taxes.named(tx, sorted(named)))


def put_terms(desk: Desk, invoice: Invoice) -> Invoice:
    """Sum a draft's lines up under the terms of now; the draft needs its create_time, if it has one."""
    customer, profile = desk.of(invoice)
    terms = Terms(
        customer=Party(
            customer.customer_key,
            customer.name,
            customer.email,
            profile.customer_address,
            profile.customer_tax_id,
        ),
        supplier=Party(
            name=profile.supplier_name, address=profile.supplier_address, tax_id=profile.supplier_tax_id
        ),
        memo=profile.memo,
        tax_note="" if profile.tax_treatment is TaxTreatment.STANDARD else profile.tax_note,
    )
    return with_taxes(
        invoice,
        lambda feature_key: rates_for(profile, desk.rates, feature_key),
        terms,
        currency_exponent(invoice.currency),
        _automatic(profile, invoice),
    )


def _automatic(profile: EffectiveProfile, draft: Invoice) -> datetime | None:
    """Say when a draft will be issued by itself: after the grace, from when it could be made.

    An opening invoice has no usage that could come late, and what comes after
    a slice is in the next one: at once.
    """
    since = draft.create_time if draft.ordinal else draft.period_end_time
    if profile.issue_mode is not IssueMode.AUTOMATIC or since is None:
        return None
    if draft.ordinal <= OPENING:
        return since
    return since + timedelta(seconds=profile.grace_seconds)


def schedule_drafts(tx: Tx, customer_id: int | None) -> None:
    """Say anew when drafts will be issued, after a profile changed: a customer's, or all."""
    for each in invoices.drafters(tx, customer_id):
        profile = effective(*profiles.get_both(tx, each))
        automatic = profile.issue_mode is IssueMode.AUTOMATIC
        invoices.schedule(tx, each, timedelta(seconds=profile.grace_seconds) if automatic else None)


def put_issue(tx: Tx, desk: Desk, drafts: Sequence[Invoice], now: datetime) -> list[Invoice]:
    """Give drafts what they get at issue; their numbers last, which hold up the tenant's other issues."""
    numbers = invoice_writing.take_numbers(tx, len(drafts)) if drafts else ()
    return [_issued(desk, draft, number, now) for draft, number in zip(drafts, numbers, strict=True)]


def _issued(desk: Desk, draft: Invoice, number: int, now: datetime) -> Invoice:
    customer, profile = desk.of(draft)
    return draft._replace(
        state=State.ISSUED,
        issue_time=now,
        due_time=due_time(now, profile.due_after_days, customer.time_zone),
        automatic_issue_time=None,
        number=number,
        number_text=number_text(profile.invoice_number_prefix, profile.number_digits, number),
    )


def credit_note_text(tx: Tx, invoice: Invoice, number: int) -> str:
    """Write the number of a credit note against an invoice as printed."""
    profile = effective(*profiles.get_both(tx, invoice.customer_id))
    return number_text(profile.credit_note_number_prefix, profile.number_digits, number)
