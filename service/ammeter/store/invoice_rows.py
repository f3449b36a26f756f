"""Invoices and lines from their rows."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from itertools import repeat
from typing import Any

from sqlalchemy.engine import RowMapping

from ammeter.domain.invoice import Invoice, InvoiceLine, Kind, Party, State, Terms
from ammeter.domain.pricing import Detail
from ammeter.store.taxes import read_taxes

# price_times are those of details, in their order; null of lines that have none.
LINE_FIELDS = [*InvoiceLine._fields, "price_times"]
OWN_FIELDS = [
    "invoice_id",
    "number",
    "state",
    "customer_id",
    "subscription_id",
    "period_index",
    "ordinal",
    "currency",
    "period_start_time",
    "period_end_time",
    "total",
    "position",
    "create_time",
    "issue_time",
    "void_time",
    "number_text",
    "subtotal",
    "due_time",
    "paid_time",
    "payment_reference",
    "uncollectible_time",
    "automatic_issue_time",
    "replaces_invoice_id",
    "prepaid_total",
    "plan_id",
]


def to_invoice(row: Mapping[str, Any] | RowMapping) -> Invoice:
    """Read an invoice's row, without its lines."""
    read: dict[str, Any] = {
        "state": State(row["state"]),
        "taxes": read_taxes(row["taxes"]),
        "terms": _terms(row["terms"]),
    }
    return Invoice(**{**row, **read})


def _terms(document: dict[str, Any]) -> Terms:
    # Those of invoices older than terms are empty.
    values: dict[str, Any] = dict(document)
    for name in ("customer", "supplier"):
        values[name] = Party(**values.get(name, {}))
    return Terms(**values)


def to_line(row: Mapping[str, Any] | RowMapping) -> InvoiceLine:
    """Read a line's row."""
    values = dict(row)
    times = values.pop("price_times") or repeat(None)
    values["details"] = tuple(map(_detail, row["details"], times))
    values["kind"] = Kind(row["kind"])
    values["unpriced_models"] = tuple(row["unpriced_models"])
    return InvoiceLine(**values)


def _detail(stored: Sequence[Any], price_time: datetime | None) -> Detail:
    text, quantity, unit_price, amount = stored
    return Detail(
        text, quantity and Decimal(quantity), unit_price and Decimal(unit_price), Decimal(amount), price_time
    )
