"""Invoices and credit notes as CSV for machines: plain decimals, UTC, one header for all kinds of record."""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal

from ammeter.domain.credit_note import CreditNote
from ammeter.domain.invoice import Invoice
from ammeter.domain.money import currency_exponent, round_money
from ammeter.domain.quantity import decimal_text
from ammeter.domain.usage_groups import UsageGroups

COLUMNS = (
    "record",
    "document_id",
    "number",
    "customer_key",
    "currency",
    "line_id",
    "kind",
    "key",
    "description",
    "period_start_time",
    "period_end_time",
    "quantity",
    "unit_price",
    "amount",
    "plan_key",
    "plan_version",
    "price_list_key",
    "price_effective_time",
    "price_override_id",
)
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def invoice_csv(invoice: Invoice, usage: Sequence[tuple[str, UsageGroups]]) -> bytes:
    """Write lines, their details, usage by group, taxes, what credits paid, totals: a record each."""
    head = (invoice.invoice_id, invoice.number_text, invoice.customer_key, invoice.currency)
    return _write([*head], _invoice_rows(invoice, usage))


def credit_note_csv(note: CreditNote) -> bytes:
    """Write lines, taxes and totals: a record each."""
    head = (note.credit_note_id, note.number_text, note.customer_key, note.currency)
    return _write([*head], _credit_note_rows(note))


def _invoice_rows(invoice: Invoice, usage: Sequence[tuple[str, UsageGroups]]) -> Iterator[dict[str, str]]:
    for line in invoice.lines:
        yield {
            "record": "line",
            "line_id": line.line_id,
            "kind": line.kind.value,
            "key": line.feature_key or line.rate_card_key,
            "description": line.description,
            "period_start_time": _time(line.period_start_time),
            "period_end_time": _time(line.period_end_time),
            "quantity": decimal_text(line.quantity),
            "unit_price": "" if line.unit_price is None else decimal_text(line.unit_price),
            "amount": f"{line.amount:f}",
            "plan_key": line.plan_key,
            "plan_version": str(line.plan_version or ""),
            "price_list_key": line.price_list_key,
            "price_override_id": line.price_override_id,
        }
        for step in line.details:
            yield {
                "record": "detail",
                "line_id": line.line_id,
                "description": step.description,
                "quantity": "" if step.quantity is None else decimal_text(step.quantity),
                "unit_price": "" if step.unit_price is None else decimal_text(step.unit_price),
                "amount": f"{step.amount:f}",
                "price_effective_time": _time(step.price_time) if step.price_time else "",
            }
    for line_id, groups in usage:
        for values, quantity in groups.rows:
            named = ", ".join(f"{name}={value}" for name, value in zip(groups.names, values, strict=True))
            yield {
                "record": "usage",
                "line_id": line_id,
                "description": named,
                "quantity": decimal_text(quantity),
            }
    for tax in invoice.taxes:
        yield _tax(tax.tax_rate_key, tax.name, tax.percentage, tax.amount)
    for one in invoice.prepaid:
        yield {
            "record": "prepaid",
            "line_id": one.line_id,
            "key": one.credit_lot_id,
            "amount": f"{one.amount.copy_negate():f}",
        }
    paid = round_money(invoice.prepaid_total, currency_exponent(invoice.currency))
    yield from _totals((("subtotal", invoice.subtotal), ("total", invoice.total), ("prepaid_total", paid)))


def _credit_note_rows(note: CreditNote) -> Iterator[dict[str, str]]:
    for line in note.lines:
        yield {
            "record": "line",
            "line_id": line.line_id,
            "description": line.description,
            "amount": f"{line.amount:f}",
        }
    for tax in note.taxes:
        yield _tax(tax.tax_rate_key, tax.name, tax.percentage, tax.amount)
    yield from _totals((("subtotal", note.subtotal), ("total", note.total)))


def _tax(key: str, name: str, percentage: Decimal, amount: Decimal) -> dict[str, str]:
    return {
        "record": "tax",
        "key": key,
        "description": name,
        "quantity": decimal_text(percentage),
        "amount": f"{amount:f}",
    }


def _totals(totals: Iterable[tuple[str, Decimal]]) -> Iterator[dict[str, str]]:
    for name, amount in totals:
        yield {"record": name, "amount": f"{amount:f}"}


def _write(head: list[str], rows: Iterable[dict[str, str]]) -> bytes:
    own = dict(zip(("document_id", "number", "customer_key", "currency"), head, strict=True))
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\r\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: _harmless(name, value) for name, value in (own | row).items()})
    return text.getvalue().encode()


def _harmless(name: str, value: str) -> str:
    """Keep a spreadsheet from computing what somebody chose as a name: a quote before it makes it text."""
    is_number = name in {"quantity", "unit_price", "amount"}
    return f"'{value}" if value.startswith(_FORMULA) and not is_number else value


def _time(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
