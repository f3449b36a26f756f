"""Who sells to whom, under which taxes and numbers: as of now in drafts, frozen at issue."""

from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal

import pytest

from ammeter.domain.invoice import Party
from ammeter.domain.profile import BillingProfile, IssueMode, TaxRule, TaxTreatment, effective
from ammeter.domain.subscription import Subscription
from ammeter.errors import ConflictError, InvalidInputError, NotFoundError, PreconditionError
from ammeter.store.db import Database
from ammeter.usecases.profiles import archive_tax_rate, get_profile, set_profile
from tests.usecases.billing_world import World, flat, unit, utc


@pytest.fixture
def db(database_url: str) -> Iterator[Database]:
    one = Database(database_url)
    yield one
    one.close()


@pytest.fixture
def world(db: Database) -> World:
    return World(db)


def subscribe(world: World) -> Subscription:
    sub = world.subscribe(world.plan(flat("10"), unit("0.5")), utc(2026, 1, 1))
    world.use(sub, utc(2026, 1, 5), 3)
    world.now = utc(2026, 2, 1)
    return sub


def test_a_customers_profile_wins_field_by_field_over_the_tenants_and_that_over_the_defaults() -> None:
    tenants = BillingProfile(supplier_name="Ohm Ltd", due_after_days=14, memo="thanks")
    customers = BillingProfile(due_after_days=0, memo="", issue_mode=IssueMode.APPROVAL)
    found = effective(tenants, customers)
    assert (found.supplier_name, found.due_after_days, found.memo) == ("Ohm Ltd", 0, "")
    assert (found.issue_mode, found.grace_seconds, found.tax_rules) == (IssueMode.APPROVAL, 0, ())
    assert effective(BillingProfile(), BillingProfile()).issue_mode is IssueMode.MANUAL


def test_an_issued_invoice_keeps_the_terms_it_was_issued_under(world: World) -> None:
    sub = subscribe(world)
    world.tax_rate("vat", "19")
    rules = (TaxRule("", ("vat",)),)
    world.profile(
        supplier_name="Ohm Ltd", supplier_address="1 Way", supplier_tax_id="DE1", memo="thanks",
        invoice_number_prefix="INV-", number_digits=6, due_after_days=30, tax_rules=rules,
    )  # fmt: skip
    world.profile(sub.customer_key, customer_address="2 Street", customer_tax_id="FR2")
    [draft] = world.generate()
    assert draft.terms.supplier == Party(name="Ohm Ltd", address="1 Way", tax_id="DE1")
    assert draft.terms.customer == Party(sub.customer_key, "", "", "2 Street", "FR2")
    assert (draft.subtotal, draft.total) == (Decimal("11.50"), Decimal("13.69"))  # 2.185 is 2.19
    world.profile(supplier_name="Volt Inc", invoice_number_prefix="V", number_digits=3, due_after_days=7)
    issued = world.issue(draft)
    assert (issued.terms.supplier.name, issued.number_text, issued.taxes) == ("Volt Inc", "V001", ())
    assert (issued.total, issued.due_time) == (Decimal("11.50"), world.now + timedelta(days=7))
    world.profile(supplier_name="Watt")
    assert world.get(issued) == issued


def test_features_have_their_own_rates_and_treatment_takes_all_taxes_off(world: World) -> None:
    sub = subscribe(world)
    world.now = utc(2026, 1, 31)
    world.tax_rate("vat", "20")
    world.tax_rate("low", "10")
    feature = world.preview(sub).lines[1].feature_key
    rules = (TaxRule("", ("vat",)), TaxRule(feature, ("low",)))
    world.profile(tax_rules=rules, tax_note="not printed where tax is charged")
    shown = world.preview(sub)
    assert [(tax.tax_rate_key, str(tax.amount)) for tax in shown.taxes] == [("vat", "2.00"), ("low", "0.15")]
    assert (str(shown.total), shown.terms.tax_note) == ("13.65", "")
    world.profile(sub.customer_key, tax_treatment=TaxTreatment.REVERSE_CHARGE, tax_note="Reverse charge")
    shown = world.preview(sub)
    assert (shown.taxes, str(shown.total), shown.terms.tax_note) == ((), "11.50", "Reverse charge")
    world.profile(sub.customer_key, tax_rules=(TaxRule(feature, ()),))
    assert world.preview(sub).taxes == (), "its own rules replace the tenant's as a whole"


def test_credit_notes_give_back_exactly_the_tax_that_was_charged(world: World) -> None:
    subscribe(world)
    world.tax_rate("vat", "7.7")
    world.profile(tax_rules=(TaxRule("", ("vat",)),), credit_note_number_prefix="CN-", number_digits=4)
    [issued] = world.generate(issue=True)
    notes = [world.credit(issued, amount=amount) for amount in ("0.05", "3.33", "4.21")] + [
        world.credit(issued)
    ]
    assert sum(note.total for note in notes) == issued.total == Decimal("12.39")
    assert [note.number_text for note in notes] == ["CN-0001", "CN-0002", "CN-0003", "CN-0004"]
    assert world.get(issued).credited_total == issued.total


def test_a_draft_says_when_it_will_be_issued_and_follows_the_profiles(world: World) -> None:
    sub = subscribe(world)
    [draft] = world.generate()
    assert draft.automatic_issue_time is None
    world.profile(issue_mode=IssueMode.AUTOMATIC, grace_seconds=3600)
    assert world.get(draft).automatic_issue_time == draft.period_end_time + timedelta(hours=1)
    world.profile(sub.customer_key, grace_seconds=60)
    assert world.get(draft).automatic_issue_time == draft.period_end_time + timedelta(minutes=1)
    world.profile(sub.customer_key, issue_mode=IssueMode.APPROVAL)
    assert world.get(draft).automatic_issue_time is None
    assert world.preview(sub).automatic_issue_time is None


def test_a_profile_that_cannot_be_is_refused_with_every_fault(world: World) -> None:
    world.tax_rate("vat", "19")
    world.tax_rate("gst", "5", inclusive=True)
    with pytest.raises(InvalidInputError) as caught:
        world.profile(
            supplier_name="x" * 1001, invoice_number_prefix="x" * 33, grace_seconds=-1, due_after_days=367,
            number_digits=19, customer_address="mine",
            tax_rules=(
                TaxRule("", ("vat", "none")), TaxRule("", ("vat", "vat")), TaxRule("NO", ("vat", "gst")),
            ),
        )  # fmt: skip
    rule = "profile.tax_rules.rules"
    assert {field for field, _ in caught.value.violations} == {
        "profile.supplier_name", "profile.invoice_number_prefix", "profile.grace_seconds",
        "profile.due_after_days", "profile.number_digits", "profile.customer_address",
        f"{rule}[0].tax_rate_keys[1]", f"{rule}[1].feature_key", f"{rule}[1].tax_rate_keys[1]",
        f"{rule}[2].feature_key", f"{rule}[2].tax_rate_keys",
    }  # fmt: skip
    with pytest.raises(NotFoundError):
        world.profile("nobody", memo="x")


def test_a_rate_in_use_cannot_be_archived_and_an_archived_one_cannot_be_used(world: World) -> None:
    world.tax_rate("vat", "19")
    world.profile(tax_rules=(TaxRule("", ("vat",)),))
    with world.db.tenant(world.tenant_id) as tx:
        with pytest.raises(PreconditionError) as caught:
            archive_tax_rate(tx, "vat", world.now)
        assert caught.value.reason == "IN_USE"
    world.profile()
    with world.db.tenant(world.tenant_id) as tx:
        archived = archive_tax_rate(tx, "vat", world.now)
        assert archived == archive_tax_rate(tx, "vat", world.now + timedelta(days=1))
    with pytest.raises(InvalidInputError, match="no tax rate that can be used"):
        world.profile(tax_rules=(TaxRule("", ("vat",)),))


def test_a_profile_changes_only_from_what_its_etag_names(world: World) -> None:
    with world.db.tenant(world.tenant_id) as tx:
        first = set_profile(tx, "", BillingProfile(memo="1"), "", world.now)
        second = set_profile(tx, "", BillingProfile(memo="2"), str(first.version), world.now)
        with pytest.raises(ConflictError):
            set_profile(tx, "", BillingProfile(memo="3"), str(first.version), world.now)
        assert get_profile(tx, "").stored == second
