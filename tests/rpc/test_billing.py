"""Profiles, taxes, payment and credit notes over the wire and on the command line."""

import json
from pathlib import Path

import pytest

from ammeter.v1 import billing_pb2, credit_note_pb2, invoice_pb2
from tests.rpc.shop import Shop, flat, minutes_ago, per_unit, unique
from tests.rpc.terminal import Terminal
from tests.rpc.wire import refusal
from tests.serving import ServerProcess, Stubs

Action = invoice_pb2.Invoice.Action
State = invoice_pb2.Invoice.State


@pytest.fixture(scope="module")
def shop(stubs: Stubs) -> Shop:
    return Shop(stubs, "bill")


@pytest.fixture(scope="module")
def terminal(server: ServerProcess) -> Terminal:
    return Terminal(server.address)


def profile(shop: Shop, **fields: object) -> billing_pb2.BillingProfile:
    sent = billing_pb2.BillingProfile(**fields)  # type: ignore[arg-type]
    request = billing_pb2.SetBillingProfileRequest(profile=sent)
    return shop.stubs.billing.SetBillingProfile(request).profile


def test_an_invoice_with_taxes_is_issued_paid_and_credited(shop: Shop) -> None:
    vat = shop.tax_rate("19")
    meter = shop.meter()
    feature = shop.feature(meter)
    subject = unique("s")
    customer = shop.customer(subject)
    rules = billing_pb2.TaxRules(rules=[billing_pb2.TaxRule(tax_rate_keys=[vat])])
    profile(
        shop,
        customer_key=customer,
        tax_rules=rules,
        supplier_name="Ohm Ltd",
        due_after_days=14,
        invoice_number_prefix="INV-",
        number_digits=6,
        customer_address="2 Street",
    )
    plan = shop.plan(flat("10"), per_unit(feature, "0.335"), billing_cadence="P1D")
    shop.subscribe(customer, plan, minutes_ago(60 * 25))
    event = shop.event(subject, 2)
    event.time.FromDatetime(minutes_ago(60 * 20))
    shop.record(event)
    request = invoice_pb2.GenerateInvoicesRequest(customer_key=customer)
    draft = next(iter(shop.stubs.invoices.GenerateInvoices(request))).invoice
    assert list(draft.next_actions) == [Action.ACTION_ISSUE, Action.ACTION_VOID]
    assert not draft.HasField("due_time")
    issued = shop.stubs.invoices.IssueInvoice(
        invoice_pb2.IssueInvoiceRequest(invoice_id=draft.invoice_id)
    ).invoice
    assert (issued.subtotal, issued.tax_total, issued.total, issued.amount_due) == (
        "10.67",
        "2.03",
        "12.70",
        "12.70",
    )
    [tax] = issued.taxes
    assert (tax.tax_rate_key, tax.percentage, tax.covered_amount, tax.amount) == (vat, "19", "10.67", "2.03")
    assert list(tax.line_ids) == [line.line_id for line in issued.lines]
    assert issued.number_text == f"INV-{issued.number:06}"
    assert (issued.supplier.name, issued.customer.address) == ("Ohm Ltd", "2 Street")
    assert issued.due_time.seconds - issued.issue_time.seconds == 14 * 86_400

    note = shop.stubs.credit_notes.CreateCreditNote(
        credit_note_pb2.CreateCreditNoteRequest(
            invoice_id=issued.invoice_id,
            lines=[
                credit_note_pb2.CreateCreditNoteRequest.Line(line_id=issued.lines[1].line_id, amount="0.34")
            ],
            reason="outage",
        )
    ).credit_note
    assert (note.subtotal, note.taxes[0].amount, note.total) == ("0.34", "0.06", "0.40")
    got = shop.stubs.credit_notes.GetCreditNote(
        credit_note_pb2.GetCreditNoteRequest(credit_note_id=note.credit_note_id)
    ).credit_note
    assert got == note
    paid = shop.stubs.invoices.MarkInvoicePaid(
        invoice_pb2.MarkInvoicePaidRequest(invoice_id=issued.invoice_id, payment_reference="ch_1")
    ).invoice
    assert (paid.state, paid.credited_total, paid.amount_due) == (State.STATE_PAID, "0.40", "0.00")
    assert list(paid.next_actions) == [Action.ACTION_CREDIT]
    rest = shop.stubs.credit_notes.CreateCreditNote(
        credit_note_pb2.CreateCreditNoteRequest(invoice_id=issued.invoice_id, reason="all of it")
    ).credit_note
    assert (rest.subtotal, rest.taxes[0].amount, rest.total) == ("10.33", "1.97", "12.30")
    listed = shop.stubs.credit_notes.ListCreditNotes(
        credit_note_pb2.ListCreditNotesRequest(invoice_id=issued.invoice_id, page_size=1)
    )
    assert ([one.number for one in listed.credit_notes], bool(listed.next_page_token)) == (
        [rest.number],
        True,
    )


def test_what_cannot_be_done_with_an_invoice_says_so(shop: Shop) -> None:
    issued = shop.invoice()
    pay = invoice_pb2.MarkInvoicePaidRequest(invoice_id=issued.invoice_id)
    shop.stubs.invoices.MarkInvoicePaid(pay)
    void = refusal(
        shop.stubs.invoices.VoidInvoice, invoice_pb2.VoidInvoiceRequest(invoice_id=issued.invoice_id)
    )
    assert (void.code, void.reason) == ("FAILED_PRECONDITION", "WRONG_STATE")
    assert "is paid: cannot void it; correct it by CreateCreditNote" in void.message
    assert list(void.fields) == ["invoice_id"]
    too_much = credit_note_pb2.CreateCreditNoteRequest(
        invoice_id=issued.invoice_id, amount="10.01", reason="x"
    )
    refused = refusal(shop.stubs.credit_notes.CreateCreditNote, too_much)
    assert (refused.code, list(refused.fields)) == ("INVALID_ARGUMENT", ["amount"])


def test_a_profile_is_read_back_as_set_and_as_it_holds(shop: Shop) -> None:
    customer = shop.customer()
    own = profile(shop, supplier_name="Ohm Ltd", grace_seconds=3600, memo="thanks")
    theirs = profile(shop, customer_key=customer, memo="")
    answer = shop.stubs.billing.GetBillingProfile(billing_pb2.GetBillingProfileRequest(customer_key=customer))
    assert answer.profile == theirs
    assert theirs.HasField("memo")
    assert not theirs.HasField("supplier_name")
    effective = answer.effective
    assert (effective.supplier_name, effective.grace_seconds, effective.memo) == ("Ohm Ltd", 3600, "")
    assert effective.issue_mode == billing_pb2.BillingProfile.ISSUE_MODE_MANUAL
    stale = billing_pb2.BillingProfile(etag="0", memo="x")
    request = billing_pb2.SetBillingProfileRequest(profile=stale)
    assert refusal(shop.stubs.billing.SetBillingProfile, request).reason == "ETAG_MISMATCH"
    assert profile(shop, etag=own.etag).etag != own.etag


def test_the_command_line_bills_pays_and_credits(shop: Shop, terminal: Terminal, tmp_path: Path) -> None:
    rate = unique("rate")
    made = terminal.json("tax-rate", "create", rate, "20", "--name", "VAT 20%", "--inclusive")
    assert (made["percentage"], made["inclusive"]) == ("20", True)
    file = tmp_path / "profile.json"
    file.write_text(
        json.dumps({"supplier_name": "Ohm Ltd", "tax_rules": {"rules": [{"tax_rate_keys": [rate]}]}})
    )
    assert terminal.json("billing", "set", str(file))["supplier_name"] == "Ohm Ltd"
    issued = shop.invoice()
    assert (issued.total, issued.tax_total) == ("10.00", "1.67")
    card = terminal.run("invoice", "get", issued.invoice_id).stdout
    for word in ("Ohm Ltd", "VAT 20% (included)", "1.67", "mark paid"):
        assert word in card
    note = terminal.json(
        "credit-note", "create", issued.invoice_id, "--reason", "x", "--line", f"{issued.lines[0].line_id}=4"
    )
    assert (note["total"], note["taxes"][0]["amount"]) == ("4.00", "0.67")
    assert "4.00" in terminal.run("credit-note", "get", note["credit_note_id"]).stdout
    assert note["credit_note_id"] in terminal.run("credit-note", "list").stdout
    assert terminal.json("invoice", "write-off", issued.invoice_id)["state"] == "STATE_UNCOLLECTIBLE"
    paid = terminal.json("invoice", "pay", issued.invoice_id, "--reference", "ch_2")
    assert (paid["state"], paid["payment_reference"]) == ("STATE_PAID", "ch_2")
    assert issued.invoice_id in terminal.run("invoice", "list", "--state", "paid").stdout
    file.write_text("{}")
    terminal.run("billing", "set", str(file))
    assert "manual" in terminal.run("billing", "get").stdout.lower()
    assert terminal.json("tax-rate", "archive", rate)["archive_time"]
    assert rate in terminal.run("tax-rate", "list").stdout
