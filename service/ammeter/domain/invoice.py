"""Invoices: what was priced, and why."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import NamedTuple

from ammeter.domain.catalog import RateCard
from ammeter.domain.money import add, round_money, subtract
from ammeter.domain.period import Period
from ammeter.domain.price import DynamicPrice, FlatPrice, LlmPrice, UnitPrice
from ammeter.domain.pricing import MAX_UNPRICED, Detail, Usage, rate, unpriced_models
from ammeter.domain.subscription import Subscription, span_before
from ammeter.domain.tax import Tax, TaxRate, on_top, taxes_of

# A plan's minimum has no rate card: this stands for its number.
PLAN = 0


class State(StrEnum):
    """What an invoice is."""

    DRAFT = "draft"
    ISSUED = "issued"
    VOID = "void"
    PAID = "paid"
    UNCOLLECTIBLE = "uncollectible"


class Kind(StrEnum):
    """What a line is for."""

    FLAT = "flat"
    USAGE = "usage"
    LATE_USAGE = "late_usage"
    MINIMUM = "minimum"
    COUPON = "coupon"
    SLICE = "slice"


OPENING = -1


class Slot(NamedTuple):
    """An invoice's place in its subscription: at most one stands in each.

    Ordinal 0 bills the period itself; 1, 2, ... follow the last period of a
    subscription that has ended, for what was reported late. OPENING stands
    before period 0, for what is billed in advance; -2, -3, ... are slices.
    """

    period: Period
    ordinal: int = 0


class Billed(NamedTuple):
    """What other standing invoices billed of a rate card, or of a plan's minimum, in a period."""

    quantity: Decimal = Decimal(0)
    amount: Decimal = Decimal(0)


NOT_BILLED = Billed()
# By rate card, number of the period, and where the part of the period begins.
BilledByPart = Mapping[tuple[int, int, datetime], Billed]


class InvoiceLine(NamedTuple):
    """One amount and its reasons.

    quantity and amount are what this line adds. Of usage, total_quantity is
    all of it at `position`, and billed_amount what was billed before. Seconds
    are of flat lines. unit_price is None where there is no single one; a
    plan's minimum has no rate card. The amounts of the details add up to the
    line's. While there are unpriced_models, the line is not all that is owed.
    Plan and version are whose rate card (or minimum) it is priced by, empty of
    coupons and of lines older than this; price_list_key is of LLM prices.
    """

    line_id: str
    kind: Kind
    rate_card_id: int | None
    rate_card_key: str
    feature_key: str
    description: str
    quantity: Decimal
    unit_price: Decimal | None
    amount: Decimal
    period_index: int
    period_start_time: datetime
    period_end_time: datetime
    position: int = 0
    covered_seconds: int = 0
    period_seconds: int = 0
    total_quantity: Decimal = Decimal(0)
    billed_amount: Decimal = Decimal(0)
    details: tuple[Detail, ...] = ()
    unpriced_models: tuple[str, ...] = ()
    coupon_key: str = ""
    attached_coupon_id: str = ""
    price_override_id: str = ""
    plan_key: str = ""
    plan_version: int = 0
    price_list_key: str = ""


class Party(NamedTuple):
    """Who pays (then with a customer_key) or who is paid, as printed."""

    customer_key: str = ""
    name: str = ""
    email: str = ""
    address: str = ""
    tax_id: str = ""


class Terms(NamedTuple):
    """What an invoice says beside its amounts. Of a draft: as of now; frozen at issue."""

    customer: Party = Party()
    supplier: Party = Party()
    memo: str = ""
    tax_note: str = ""


class Prepaid(NamedTuple):
    """What a lot of prepaid credits paid of a line, with its taxes on top."""

    credit_lot_id: str
    line_id: str
    amount: Decimal


class Invoice(NamedTuple):
    """What a subscription owes for a period. `number` is None before issue; a preview has no invoice_id.

    subtotal is the sum of the lines, total with the taxes on top; unpriced_models
    are those of all lines, the first of them if there are many. credited_*
    is the sum of its credit notes; prepaid says what credits paid at issue.
    """

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
    number_text: str = ""
    subtotal: Decimal = Decimal(0)
    taxes: tuple[Tax, ...] = ()
    terms: Terms = Terms()
    due_time: datetime | None = None
    paid_time: datetime | None = None
    payment_reference: str = ""
    uncollectible_time: datetime | None = None
    automatic_issue_time: datetime | None = None
    replaces_invoice_id: str = ""
    plan_id: int = 0
    plan_version: int = 1
    credited_subtotal: Decimal = Decimal(0)
    credited_total: Decimal = Decimal(0)
    prepaid: tuple[Prepaid, ...] = ()
    prepaid_total: Decimal = Decimal(0)
    unpriced_models: tuple[str, ...] = ()


def make_draft(
    sub: Subscription,
    slot: Slot,
    lines: Iterable[InvoiceLine],
    exponent: int,
    invoice_id: str = "",
    *,
    create_time: datetime | None = None,
    replaces_invoice_id: str = "",
) -> Invoice:
    """Put lines together; their sum is rounded no more. Taxes and terms come by `with_taxes`."""
    lines = tuple(lines)
    subtotal = total_of(lines, exponent)
    span = span_before(sub, slot.period.end)
    return Invoice(
        invoice_id=invoice_id,
        state=State.DRAFT,
        customer_id=sub.customer_id,
        customer_key=sub.customer_key,
        subscription_id=sub.subscription_id,
        plan_key=span.plan_key or sub.plan_key,
        plan_id=span.plan_id,
        plan_version=span.plan_version,
        currency=sub.currency,
        period_index=slot.period.index,
        ordinal=slot.ordinal,
        period_start_time=slot.period.start,
        period_end_time=slot.period.end,
        total=subtotal,
        position=position_of(lines),
        create_time=create_time,
        lines=lines,
        subtotal=subtotal,
        replaces_invoice_id=replaces_invoice_id,
    )


def with_taxes(
    invoice: Invoice,
    rates_of: Callable[[str], Sequence[TaxRate]],
    terms: Terms,
    exponent: int,
    automatic_issue_time: datetime | None = None,
) -> Invoice:
    """Sum an invoice's lines up, with the taxes of each feature's lines and the terms it is under."""
    rates = {line.line_id: found for line in invoice.lines if (found := rates_of(line.feature_key))}
    taxes = taxes_of({line.line_id: line.amount for line in invoice.lines}, rates, exponent)
    subtotal = total_of(invoice.lines, exponent)
    total = add([subtotal, on_top(taxes)])
    return invoice._replace(
        subtotal=subtotal,
        taxes=taxes,
        total=total,
        terms=terms,
        automatic_issue_time=automatic_issue_time,
        unpriced_models=unpriced_in(invoice.lines),
    )


def unpriced_in(lines: Iterable[InvoiceLine]) -> tuple[str, ...]:
    """Name the models of lines that have no price, in order, the first of them if there are many."""
    return tuple(sorted({model for line in lines for model in line.unpriced_models}))[:MAX_UNPRICED]


def total_of(lines: Iterable[InvoiceLine], exponent: int) -> Decimal:
    """Add up the lines; written with the currency's digits even when there are none."""
    return round_money(add(line.amount for line in lines), exponent)


def position_of(lines: Iterable[InvoiceLine]) -> int:
    """Give the greatest usage position in the lines."""
    return max((line.position for line in lines), default=0)


def flat_line(
    sub: Subscription,
    card: RateCard,
    period: Period,
    exponent: int,
    *,
    billed: Billed = NOT_BILLED,
    carrier: Slot | None = None,
    seats: int = 1,
) -> InvoiceLine:
    """Charge a flat price for a period, less what is billed already, in advance, on another invoice.

    `carrier` is the invoice that the line rides on; it names what is not the
    first line of its period.
    """
    if not isinstance(card.price, FlatPrice):
        message = f"rate card {card.rate_card_key} has no flat price"
        raise TypeError(message)
    quantity = Decimal(seats if card.price.per_seat else 1)
    rated = rate(card.price, card.terms, Usage(quantity), period, exponent)
    total = quantity if period.covered_seconds else Decimal(0)
    amount = subtract(rated.amount, billed.amount)
    again = carrier if billed.quantity else None
    return InvoiceLine(
        line_id=line_id_of(sub, card.rate_card_key, period, again, "rest"),
        kind=Kind.FLAT,
        rate_card_id=card.rate_card_id,
        rate_card_key=card.rate_card_key,
        feature_key=card.feature_key,
        description=f"{_title(card)}, {'cut short' if amount < 0 else 'changed'}" if again else _title(card),
        quantity=subtract(total, billed.quantity),
        unit_price=round_money(card.price.amount, exponent),
        amount=amount,
        period_index=period.index,
        period_start_time=period.start,
        period_end_time=period.end,
        covered_seconds=period.covered_seconds,
        period_seconds=period.full_seconds,
        total_quantity=total,
        billed_amount=billed.amount,
        details=(*rated.details, *billed_before(billed, late=again is not None)),
        price_override_id=card.price_override_id,
        plan_key=card.plan_key,
        plan_version=card.plan_version,
    )


def usage_line(
    sub: Subscription,
    card: RateCard,
    period: Period,
    usage: Usage,
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
    if card.price is None or isinstance(card.price, FlatPrice):
        message = f"rate card {card.rate_card_key} has no price by usage"
        raise TypeError(message)
    rated = rate(card.price, card.terms, usage, period, exponent)
    return InvoiceLine(
        line_id=line_id_of(sub, card.rate_card_key, period, carrier),
        kind=Kind.LATE_USAGE if carrier else Kind.USAGE,
        rate_card_id=card.rate_card_id,
        rate_card_key=card.rate_card_key,
        feature_key=card.feature_key,
        description=f"{_title(card)}, reported late" if carrier else _title(card),
        quantity=subtract(usage.quantity, billed.quantity),
        unit_price=_unit_price(card),
        amount=subtract(rated.amount, billed.amount),
        period_index=period.index,
        period_start_time=period.start,
        period_end_time=period.end,
        position=position,
        total_quantity=usage.quantity,
        billed_amount=billed.amount,
        details=(*rated.details, *billed_before(billed, late=carrier is not None)),
        unpriced_models=unpriced_models(usage),
        price_override_id=card.price_override_id,
        plan_key=card.plan_key,
        plan_version=card.plan_version,
        price_list_key=card.price.price_list_key if isinstance(card.price, LlmPrice) else "",
    )


def billed_before(billed: Billed, *, late: bool) -> tuple[Detail, ...]:
    """Take off what was billed before, where a line follows another or there is any."""
    if not late and not billed.amount:
        return ()
    return (Detail("billed before", None, None, subtract(Decimal(0), billed.amount)),)


def _unit_price(card: RateCard) -> Decimal | None:
    """Give the price of every unit, if there is one."""
    if card.terms.unit_conversion or not isinstance(card.price, UnitPrice | DynamicPrice):
        return None
    return card.price.unit_amount if isinstance(card.price, UnitPrice) else card.price.multiplier


def _title(card: RateCard) -> str:
    return f"{card.name or card.rate_card_key}{', as agreed' if card.price_override_id else ''}"


def line_id_of(
    sub: Subscription, key: str, period: Period, carrier: Slot | None = None, why: str = "late"
) -> str:
    """Name a line by what it bills, so that making it again gives the same name."""
    name = f"{sub.subscription_id}.{key}.{period.index}"
    if period.inside:
        name = f"{name}.{period.start:%Y%m%dT%H%MZ}"
    return f"{name}.{why}.{carrier.period.index}.{carrier.ordinal}" if carrier else name
