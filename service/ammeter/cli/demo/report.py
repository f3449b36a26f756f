"""Shows what the business can see: usage, access, an invoice, and commands to go on with."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table

from ammeter.cli import entitlement
from ammeter.cli.demo.business import CONSUMERS, METERS, PAYG, midnight
from ammeter.cli.view import table, thousands
from ammeter.client import Client
from ammeter.v1 import entitlement_pb2, invoice_pb2, usage_pb2


@dataclass(frozen=True)
class Span:
    """Whole UTC days [first, end)."""

    first: date
    end: date


def usage_table(client: Client, span: Span) -> Table:
    """Draw each customer's requests and tokens by model."""
    cells: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    totals: dict[str, Decimal] = defaultdict(Decimal)
    for meter in METERS:
        for row in _usage_rows(client, meter.meter_key, span):
            customer_key, model = row.group_values
            cells[customer_key, model][meter.meter_key] = row.value
            totals[meter.meter_key] += Decimal(row.value)
    keys = [meter.meter_key for meter in METERS]
    names = {each.customer_key: each.name for each in CONSUMERS}
    rows: list[Sequence[str]] = []
    last = ""
    for (customer_key, model), values in sorted(cells.items()):
        name = "" if customer_key == last else names[customer_key]
        rows.append((name, model, *(thousands(values.get(key, "0")) for key in keys)))
        last = customer_key
    drawn = table(["customer", "model", "requests", "input tokens", "output tokens"], rows)
    drawn.add_section()
    drawn.add_row("all", "", *(thousands(str(totals[key])) for key in keys), style="bold")
    return drawn


def _usage_rows(client: Client, meter_key: str, span: Span) -> Sequence[usage_pb2.UsageRow]:
    request = usage_pb2.QueryUsageRequest(
        meter_key=meter_key,
        from_time=midnight(span.first),
        to_time=midnight(span.end),
        group_by=["customer", "model"],
        customer_keys=[each.customer_key for each in CONSUMERS],
    )
    return client.usage.QueryUsage(request).rows


def access_cards(client: Client) -> RenderableType:
    """Ask for three customers: one that pays, one with allowance left, one without."""
    cards: list[RenderableType] = []
    for customer_key in ("acme", "heron", "grove"):
        question = entitlement_pb2.EntitlementCheck(customer_key=customer_key, feature_key="input-tokens")
        answer = client.entitlements.CheckEntitlement(entitlement_pb2.CheckEntitlementRequest(check=question))
        cards += [
            f"$ ammeter check {customer_key} input-tokens",
            Padding(entitlement.card(answer.access), (0, 0, 1, 2), expand=False),
        ]
    return Group(*cards)


def bill(client: Client) -> int:
    """Issue the invoices of all ended periods of paying customers; return how many are new."""
    made = 0
    for consumer in CONSUMERS:
        if consumer.plan_key == PAYG:
            request = invoice_pb2.GenerateInvoicesRequest(customer_key=consumer.customer_key, issue=True)
            made += sum(answer.HasField("invoice") for answer in client.invoices.GenerateInvoices(request))
    return made


def last_invoice(client: Client, customer_key: str) -> invoice_pb2.Invoice | None:
    """Find a customer's newest issued invoice, with its lines."""
    newest = client.invoices.ListInvoices(
        invoice_pb2.ListInvoicesRequest(
            customer_key=customer_key, state=invoice_pb2.Invoice.STATE_ISSUED, page_size=1
        )
    )
    if not newest.invoices:
        return None
    request = invoice_pb2.GetInvoiceRequest(invoice_id=newest.invoices[0].invoice_id)
    return client.invoices.GetInvoice(request).invoice


def write_pdf(client: Client, invoice: invoice_pb2.Invoice, directory: Path) -> Path:
    """Leave an invoice on the disk; returns where."""
    request = invoice_pb2.RenderInvoiceRequest(
        invoice_id=invoice.invoice_id, format=invoice_pb2.DOCUMENT_FORMAT_PDF
    )
    made = client.invoices.RenderInvoice(request).document
    path = directory / Path(made.file_name).name
    path.write_bytes(made.content)
    return path


def commands(address: str, today: date) -> str:
    """Write three grpcurl commands to copy."""
    event = (
        '{"events": [{"id": "hello-1", "source": "shell", "type": "llm.completion", "subject": "heron-bot", '
        '"properties": {"model": "llama-70b", "input_tokens": "1200", "output_tokens": "300"}}]}'
    )
    query = (
        f'{{"meter_key": "input-tokens", "from_time": "{today}T00:00:00Z", '
        f'"to_time": "{today + timedelta(2)}T00:00:00Z", "group_by": ["customer", "model"]}}'
    )
    check = '{"check": {"subject": "heron-bot", "feature_key": "input-tokens"}}'
    calls = (
        ("UsageService/RecordUsage", event),
        ("UsageService/QueryUsage", query),
        ("EntitlementService/CheckEntitlement", check),
    )
    return "\n".join(
        f"grpcurl -plaintext -d '{body}' {address} ammeter.v1.{method}" for method, body in calls
    )
