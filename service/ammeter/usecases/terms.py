"""What an invoice says beside its lines: parties, taxes, number, due time. As the profiles say now."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import NamedTuple

from ammeter.domain.customer import Customer
from ammeter.domain.invoice import OPENING, Invoice, Party, State, Terms, with_taxes
from ammeter.domain.money import currency_exponent
from ammeter.domain.profile import (
    EffectiveProfile,
    IssueMode,
    TaxTreatment,
    due_time,
    effective,
    named_rates,
    number_text,
    rates_for,
)
from ammeter.errors import InternalError
from ammeter.store import customers, invoices, profiles, taxes
from ammeter.store.db import Tx


class _Parties(NamedTuple):
    customer: Customer
    profile: EffectiveProfile


def put_terms(tx: Tx, invoice: Invoice) -> Invoice:
    """Sum a draft's lines up under the terms of now; the draft needs its create_time, if it has one."""
    profiles.hold(tx)
    customer, profile = _parties(tx, invoice)
    rates = taxes.named(tx, sorted(named_rates(profile.tax_rules)))
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
    settled = with_taxes(
        invoice,
        lambda feature_key: rates_for(profile, rates, feature_key),
        terms,
        currency_exponent(invoice.currency),
    )
    return replace(settled, automatic_issue_time=_automatic(profile, settled))


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


def put_issue(tx: Tx, draft: Invoice, now: datetime) -> Invoice:
    """Give a draft what it gets at issue; its number last, which holds up the tenant's other issues."""
    customer, profile = _parties(tx, draft)
    due = due_time(now, profile.due_after_days, customer.time_zone)
    number = invoices.next_number(tx)
    text = number_text(profile.invoice_number_prefix, profile.number_digits, number)
    return replace(
        draft,
        state=State.ISSUED,
        issue_time=now,
        due_time=due,
        number=number,
        number_text=text,
        automatic_issue_time=None,
    )


def credit_note_text(tx: Tx, invoice: Invoice, number: int) -> str:
    """Write the number of a credit note against an invoice as printed."""
    profile = _parties(tx, invoice).profile
    return number_text(profile.credit_note_number_prefix, profile.number_digits, number)


def _parties(tx: Tx, invoice: Invoice) -> _Parties:
    customer = customers.get_by_id(tx, invoice.customer_id)
    if customer is None:
        raise InternalError(f"customer {invoice.customer_key} of an invoice is gone")
    return _Parties(customer, effective(*profiles.get_both(tx, invoice.customer_id)))
