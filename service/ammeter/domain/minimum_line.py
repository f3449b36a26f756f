"""The line of a plan's minimum: what a period costs less than it."""

from decimal import Decimal

from ammeter.domain.invoice import Billed, InvoiceLine, Kind, Slot, billed_before, line_id_of
from ammeter.domain.money import round_money, subtract
from ammeter.domain.period import Period
from ammeter.domain.pricing import Detail
from ammeter.domain.quantity import decimal_text
from ammeter.domain.subscription import Subscription, span_before

# What stands for a rate card's key in its name.
_KEY = "+minimum"


def minimum_line(
    sub: Subscription,
    minimum: Decimal,
    period: Period,
    charged: Decimal,
    *,
    billed: Billed,
    exponent: int,
    carrier: Slot | None = None,
) -> InvoiceLine:
    """Charge what a period costs less than its plan's minimum, less what is billed of that already."""
    missing = max(subtract(minimum, charged), Decimal(0))
    span = span_before(sub, period.end)
    least = decimal_text(minimum)
    details = (
        Detail(f"at least {least}", None, None, round_money(missing and minimum, exponent)),
        Detail("charged in the period", None, None, subtract(missing, missing and minimum)),
    )
    return InvoiceLine(
        line_id=line_id_of(sub, _KEY, period, carrier),
        kind=Kind.MINIMUM,
        rate_card_id=None,
        rate_card_key="",
        feature_key="",
        description=f"Minimum of {least}",
        quantity=Decimal(0),
        unit_price=None,
        amount=round_money(subtract(missing, billed.amount), exponent),
        period_index=period.index,
        period_start_time=period.start,
        period_end_time=period.end,
        billed_amount=billed.amount,
        details=(*details, *billed_before(billed, late=carrier is not None)),
        plan_key=span.plan_key or sub.plan_key,
        plan_version=span.plan_version,
    )
