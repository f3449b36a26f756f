"""Invoices: what was priced, and why."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import NamedTuple

from ammeter.domain.catalog import FlatPrice, RateCard, UnitPrice
from ammeter.domain.money import add, round_money, subtract
from ammeter.domain.period import Period
from ammeter.domain.pricing import amount_of
from ammeter.domain.subscription import Subscription
from ammeter.errors import PreconditionError


class State(StrEnum):
    """What an invoice is."""

    DRAFT = "draft"
    ISSUED = "issued"
    VOID = "void"


class Kind(StrEnum):
    """What a line is for."""

    FLAT = "flat"
    USAGE = "usage"
    LATE_USAGE = "late_usage"


class Slot(NamedTuple):
    """An invoice's place in its subscription: at most one stands in each.

    Ordinal 0 bills the period itself; 1, 2, ... follow the last period of a
    subscription that has ended, for what was reported late.
    """

    period: Period
    ordinal: int = 0


class Billed(NamedTuple):
    """What other standing invoices billed of a rate card's usage in a period."""

    quantity: Decimal = Decimal(0)
    amount: Decimal = Decimal(0)


@dataclass(frozen=True)
class InvoiceLine:
    """One amount and its reasons.

    quantity and amount are what this line adds. Of usage, total_quantity is
    all of it at `position`, and billed_amount what was billed before. Seconds
    are of flat lines.
    """

    line_id: str
    kind: Kind
    rate_card_id: int
    rate_card_key: str
    feature_key: str
    description: str
    quantity: Decimal
    unit_price: Decimal
    amount: Decimal
    period_index: int
    period_start_time: datetime
    period_end_time: datetime
    position: int = 0
    covered_seconds: int = 0
    period_seconds: int = 0
    total_quantity: Decimal = Decimal(0)
    billed_amount: Decimal = Decimal(0)


@dataclass(frozen=True)
class Invoice:
    """What a subscription owes for a period. `number` is None before issue; a preview has no invoice_id."""

    invoice_id: str
    state: State
    customer_id: int
    customer_key: str
    subscription_id: str
    plan_key: str
    currency: str
    period_index: int
    ordinal: int
    period_start_time: datetime
    period_end_time: datetime
    total: Decimal
    position: int
    create_time: datetime | None
    number: int | None = None
    issue_time: datetime | None = None
    void_time: datetime | None = None
    lines: tuple[InvoiceLine, ...] = ()


def make_draft(
    sub: Subscription, slot: Slot, lines: Iterable[InvoiceLine], exponent: int, invoice_id: str = ""
) -> Invoice:
    """Put lines together; the total is their sum, nothing is rounded again."""
    lines = tuple(lines)
    return Invoice(
        invoice_id=invoice_id,
        state=State.DRAFT,
        customer_id=sub.customer_id,
        customer_key=sub.customer_key,
        subscription_id=sub.subscription_id,
        plan_key=sub.plan_key,
        currency=sub.currency,
        period_index=slot.period.index,
        ordinal=slot.ordinal,
        period_start_time=slot.period.start,
        period_end_time=slot.period.end,
        total=total_of(lines, exponent),
        position=position_of(lines),
        create_time=None,
        lines=lines,
    )


def total_of(lines: Iterable[InvoiceLine], exponent: int) -> Decimal:
    """Add up the lines; written with the currency's digits even when there are none."""
    return round_money(add(line.amount for line in lines), exponent)


def position_of(lines: Iterable[InvoiceLine]) -> int:
    """Give the greatest usage position in the lines."""
    return max((line.position for line in lines), default=0)


def check_issuable(invoice: Invoice) -> None:
    """Refuse to issue what is void; raises PreconditionError."""
    if invoice.state is State.VOID:
        raise PreconditionError(
            f"invoice {invoice.invoice_id} is void: GenerateInvoices bills its period anew, issue that one"
        )


def flat_line(sub: Subscription, card: RateCard, period: Period, exponent: int) -> InvoiceLine:
    """Charge a flat price for a period."""
    if not isinstance(card.price, FlatPrice):
        message = f"rate card {card.rate_card_key} has no flat price"
        raise TypeError(message)
    return InvoiceLine(
        line_id=_line_id(sub, card, period),
        kind=Kind.FLAT,
        rate_card_id=card.rate_card_id,
        rate_card_key=card.rate_card_key,
        feature_key=card.feature_key,
        description=_title(card),
        quantity=Decimal(1),
        unit_price=round_money(card.price.amount, exponent),
        amount=amount_of(card.price, Decimal(1), period, exponent),
        period_index=period.index,
        period_start_time=period.start,
        period_end_time=period.end,
        covered_seconds=period.covered_seconds,
        period_seconds=period.full_seconds,
        total_quantity=Decimal(1),
    )


def usage_line(
    sub: Subscription,
    card: RateCard,
    period: Period,
    total: Decimal,
    position: int,
    *,
    billed: Billed,
    exponent: int,
    carrier: Slot | None = None,
) -> InvoiceLine:
    """Charge a period's usage: the price of all of it now, less what is billed already.

    With a `carrier`, the invoice that a late line rides on; without, the line
    is of the period's own invoice, where nothing is billed already unless the
    period was billed before and that invoice is void now.
    """
    if not isinstance(card.price, UnitPrice):
        message = f"rate card {card.rate_card_key} has no unit price"
        raise TypeError(message)
    return InvoiceLine(
        line_id=_line_id(sub, card, period, carrier),
        kind=Kind.LATE_USAGE if carrier else Kind.USAGE,
        rate_card_id=card.rate_card_id,
        rate_card_key=card.rate_card_key,
        feature_key=card.feature_key,
        description=f"{_title(card)}, reported late" if carrier else _title(card),
        quantity=subtract(total, billed.quantity),
        unit_price=card.price.unit_amount,
        amount=subtract(amount_of(card.price, total, period, exponent), billed.amount),
        period_index=period.index,
        period_start_time=period.start,
        period_end_time=period.end,
        position=position,
        total_quantity=total,
        billed_amount=billed.amount,
    )


def adds_something(line: InvoiceLine) -> bool:
    """Whether a late line changes an amount or a quantity; others are left out."""
    return bool(line.amount or line.quantity)


def _title(card: RateCard) -> str:
    return card.name or card.rate_card_key


def _line_id(sub: Subscription, card: RateCard, period: Period, carrier: Slot | None = None) -> str:
    """Name a line by what it bills, so that making it again gives the same name."""
    name = f"{sub.subscription_id}.{card.rate_card_key}.{period.index}"
    return f"{name}.late.{carrier.period.index}.{carrier.ordinal}" if carrier else name
