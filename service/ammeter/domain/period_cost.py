"""What a period costs, over all that is charged for it, and what changes that."""

from collections.abc import Iterable
from decimal import Decimal

from ammeter.domain.invoice import PLAN, BilledByPart, InvoiceLine
from ammeter.domain.money import add
from ammeter.domain.period import Period


def cost_of(period: Period, lines: Iterable[InvoiceLine], billed: BilledByPart) -> Decimal:
    """Add up what a period costs now: by these lines and what they follow, else by what is billed.

    Left aside is the plan's minimum.
    """
    costs = {
        (card, start): one.amount for (card, index, start), one in billed.items() if index == period.index
    }
    for line in lines:
        if line.period_index == period.index and line.rate_card_id is not None:
            costs[line.rate_card_id, line.period_start_time] = add((line.amount, line.billed_amount))
    return add(cost for (card, _), cost in costs.items() if card != PLAN)


def adds_something(line: InvoiceLine) -> bool:
    """Whether a late line changes an amount or a quantity, or could not be priced; others are left out."""
    return bool(line.amount or line.quantity or line.unpriced_models)
