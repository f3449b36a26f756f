"""Documents of invoices and credit notes over the wire: the same bytes from any process, in any life."""

import csv
import hashlib
import io
import json
from pathlib import Path
from typing import Any

import pytest

from ammeter.v1 import billing_pb2, credit_note_pb2
from ammeter.v1 import invoice_pb2 as pb
from tests.rpc.shop import Shop, minutes_ago, per_unit, stamp, unique
from tests.rpc.terminal import Terminal
from tests.rpc.wire import refusal
from tests.serving import ServerProcess, Stubs

FORMATS = (
    pb.DOCUMENT_FORMAT_HTML,
    pb.DOCUMENT_FORMAT_PDF,
    pb.DOCUMENT_FORMAT_CSV,
    pb.DOCUMENT_FORMAT_JSON,
)


@pytest.fixture(scope="module")
def shop(stubs: Stubs) -> Shop:
    return Shop(stubs)


@pytest.fixture(scope="module")
def issued(shop: Shop, stubs: Stubs) -> pb.Invoice:
    """An invoice of a day's tokens, by subject and region in its annex."""
    subject = unique("subject")
    customer = shop.customer(subject)
    meter = shop.meter(dimensions=["region"])
    plan = shop.plan(per_unit(shop.feature(meter), "0.5"), billing_cadence="P1D")
    shop.subscribe(customer, plan, minutes_ago(60 * 25))
    when = stamp(minutes_ago(60 * 24))
    shop.record(
        shop.event(subject, 5, time=when, properties={"region": "eu"}),
        shop.event(subject, 7, time=when, properties={"region": "us"}),
    )
    profile = billing_pb2.BillingProfile(
        supplier_name="Amp & Sons",
        invoice_number_prefix="INV/",
        annex=billing_pb2.UsageAnnex(group_by=["region", "subject", "nonsense"]),
    )
    stubs.billing.SetBillingProfile(billing_pb2.SetBillingProfileRequest(profile=profile))
    run = pb.GenerateInvoicesRequest(customer_key=customer, issue=True)
    return next(iter(stubs.invoices.GenerateInvoices(run))).invoice


def rendered(stubs: Stubs, invoice: pb.Invoice, form: Any, locale: str = "") -> pb.Document:  # noqa: ANN401 - an enum
    request = pb.RenderInvoiceRequest(invoice_id=invoice.invoice_id, format=form, locale=locale)
    return stubs.invoices.RenderInvoice(request).document


def digests(stubs: Stubs, invoice: pb.Invoice) -> list[str]:
    return [
        hashlib.sha256(rendered(stubs, invoice, form, locale).content).hexdigest()
        for form in FORMATS
        for locale in ("", "de", "fr-CA")
    ]


def test_a_document_says_what_the_invoice_says(stubs: Stubs, issued: pb.Invoice) -> None:
    page = rendered(stubs, issued, pb.DOCUMENT_FORMAT_HTML, "de")
    assert page.content_type == "text/html; charset=utf-8"
    assert page.file_name == "invoice-INV-1.html"
    text = page.content.decode()
    for expected in ("Rechnung", "Amp &amp; Sons", "INV/1", "6,00", "Verbrauch nach Gruppen", "region", "us"):
        assert expected in text, expected
    assert "nonsense" not in text
    made = rendered(stubs, issued, pb.DOCUMENT_FORMAT_PDF)
    assert made.content.startswith(b"%PDF-")
    assert (made.content_type, made.file_name) == ("application/pdf", "invoice-INV-1.pdf")


def test_csv_and_json_are_for_machines(stubs: Stubs, issued: pb.Invoice) -> None:
    table = rendered(stubs, issued, pb.DOCUMENT_FORMAT_CSV).content.decode()
    rows = list(csv.DictReader(io.StringIO(table, newline="")))
    assert [(row["record"], row["quantity"], row["amount"]) for row in rows] == [
        ("line", "12", "6.00"),
        ("detail", "12", "6.00"),
        ("usage", "7", ""),
        ("usage", "5", ""),
        ("subtotal", "", "6.00"),
        ("total", "", "6.00"),
        ("prepaid_total", "", "0.00"),
    ]
    assert [(row["plan_key"], row["plan_version"]) for row in rows[:2]] == [(issued.plan_key, "1"), ("", "")]
    plain = json.loads(rendered(stubs, issued, pb.DOCUMENT_FORMAT_JSON).content)
    assert (plain["total"], plain["lines"][0]["quantity"]) == ("6.00", "12")
    assert (plain["lines"][0]["plan_key"], plain["lines"][0]["plan_version"]) == (issued.plan_key, 1)
    assert [row["quantity"] for row in plain["usage_by_group"][0]["rows"]] == ["7", "5"]
    assert plain["usage_by_group"][0]["names"] == ["region", "subject"]


def test_the_same_invoice_is_the_same_bytes_in_every_life_of_the_server(
    server: ServerProcess, issued: pb.Invoice
) -> None:
    stubs = server.stubs()
    before = digests(stubs, issued)
    assert len(set(before)) == 8, "CSV and JSON know no language"
    assert digests(stubs, issued) == before
    server.change(log_level="debug")
    server.restart()
    stubs = server.stubs()
    assert digests(stubs, issued) == before
    stubs.billing.SetBillingProfile(
        billing_pb2.SetBillingProfileRequest(
            profile=billing_pb2.BillingProfile(memo="new", supplier_name="new")
        )
    )
    request = credit_note_pb2.CreateCreditNoteRequest(
        invoice_id=issued.invoice_id, amount="1", reason="goodwill"
    )
    stubs.credit_notes.CreateCreditNote(request)
    stubs.invoices.MarkInvoicePaid(pb.MarkInvoicePaidRequest(invoice_id=issued.invoice_id))
    assert digests(stubs, issued) == before, "what came later is not on it"


def test_a_credit_note_is_printed_too(server: ServerProcess) -> None:
    stubs = server.stubs()
    invoice = Shop(stubs, "printed").invoice()
    request = credit_note_pb2.CreateCreditNoteRequest(
        invoice_id=invoice.invoice_id, amount="4", reason="<hail>"
    )
    note = stubs.credit_notes.CreateCreditNote(request).credit_note
    for form, expected in (
        (pb.DOCUMENT_FORMAT_HTML, b"&lt;hail&gt;"),
        (pb.DOCUMENT_FORMAT_PDF, b"%PDF-"),
        (pb.DOCUMENT_FORMAT_CSV, b"4.00"),
        (pb.DOCUMENT_FORMAT_JSON, b'"total": "4.00"'),
    ):
        wanted = credit_note_pb2.RenderCreditNoteRequest(
            credit_note_id=note.credit_note_id, format=form, locale="nl"
        )
        made = stubs.credit_notes.RenderCreditNote(wanted).document
        assert expected in made.content
        assert made.file_name.startswith(f"credit-note-{note.number_text}.")
        assert made == stubs.credit_notes.RenderCreditNote(wanted).document


@pytest.mark.parametrize(
    ("fields", "at_fault"),
    [({"format": 0}, "format"), ({"format": 99}, "format"), ({"format": 2, "locale": "tlh"}, "locale")],
)
def test_what_cannot_be_printed_is_refused(
    fields: dict[str, Any], at_fault: str, server: ServerProcess, issued: pb.Invoice
) -> None:
    request = pb.RenderInvoiceRequest(invoice_id=issued.invoice_id, **fields)
    failed = refusal(server.stubs().invoices.RenderInvoice, request)
    assert (failed.code, list(failed.fields)) == ("INVALID_ARGUMENT", [at_fault])
    request = pb.RenderInvoiceRequest(invoice_id="inv_0", format=pb.DOCUMENT_FORMAT_PDF)
    assert refusal(server.stubs().invoices.RenderInvoice, request).code == "NOT_FOUND"


@pytest.mark.parametrize("names", [["a", "b", "c", "d"], [""], ["a", "a"], ["x" * 65]])
def test_an_annex_that_cannot_be_is_refused(names: list[str], server: ServerProcess) -> None:
    profile = billing_pb2.BillingProfile(annex=billing_pb2.UsageAnnex(group_by=names))
    request = billing_pb2.SetBillingProfileRequest(profile=profile)
    failed = refusal(server.stubs().billing.SetBillingProfile, request)
    assert all(field.startswith("profile.annex.group_by") for field in failed.fields)


def test_the_command_line_writes_files(server: ServerProcess, issued: pb.Invoice, tmp_path: Path) -> None:
    terminal = Terminal(server.address)
    said = terminal.run("invoice", "render", issued.invoice_id, "--output", str(tmp_path))
    path = tmp_path / "invoice-INV-1.pdf"
    assert str(path) in said.stdout
    assert path.read_bytes().startswith(b"%PDF-")
    shown = terminal.run("invoice", "render", issued.invoice_id, "--format", "csv", "--output", "-").stdout
    assert shown.startswith("record,document_id")
    other = Shop(server.stubs(), "noted").invoice()
    request = credit_note_pb2.CreateCreditNoteRequest(invoice_id=other.invoice_id, amount="1", reason="why")
    note = server.stubs().credit_notes.CreateCreditNote(request).credit_note
    page = tmp_path / "note.html"
    terminal.run(
        "credit-note",
        "render",
        note.credit_note_id,
        "--format",
        "html",
        "--locale",
        "es",
        "--output",
        str(page),
    )
    assert "Nota de crédito" in page.read_text()
