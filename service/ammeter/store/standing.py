"""What the invoices of subscriptions have billed so far."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, NamedTuple

import sqlalchemy as sa

from ammeter.domain.invoice import PLAN, Billed, BilledByPart, Kind, Slot, State
from ammeter.domain.late import Head
from ammeter.domain.money import add
from ammeter.domain.period import Period
from ammeter.domain.subscription import Subscription
from ammeter.store.billing_tables import invoice_lines, invoices
from ammeter.store.db import Tx
from ammeter.store.many import one_of

# A period is billed on its own invoice and later ones, in advance on the one before it. A day that
# a zone skips has a number and no invoice, so that may be two before.
_BEFORE = 2
_TAKEN_BACK = (Kind.LATE_USAGE.value, Kind.COUPON.value, Kind.SLICE.value)


class Void(NamedTuple):
    """A void invoice; without a number it was a draft."""

    invoice_id: str
    period_index: int
    ordinal: int
    number: int | None


@dataclass(frozen=True)
class History:
    """A subscription's invoices: the standing ones, by period and ordinal, and the others."""

    heads: list[Head] = field(default_factory=list)
    voids: list[Void] = field(default_factory=list)

    def replaced(self, slot: Slot) -> str:
        """Find the last void invoice with a number that stood in a slot; empty if there is none."""
        place = slot.period.index, slot.ordinal
        found = [one for one in self.voids if (one.period_index, one.ordinal) == place and one.number]
        return max(found, key=lambda one: one.number or 0).invoice_id if found else ""


class Wanted(NamedTuple):
    """Which standing invoices to look at, for which periods."""

    heads: Sequence[Head]
    periods: Collection[int]


class Past(NamedTuple):
    """What invoices billed before coupons, and what coupons took off, by period.

    A plan's minimum has the rate_card_id PLAN. Coupons are by attached coupon, feature and period.
    """

    billed: BilledByPart
    taken: Mapping[tuple[str, str, int], Decimal]


_NONE = Past({}, {})


def histories(tx: Tx, subs: Iterable[Subscription]) -> dict[str, History]:
    """Read the invoices of subscriptions, without their lines."""
    found = {sub.subscription_id: History() for sub in subs}
    owners = {sub.customer_id for sub in subs}
    columns = (
        "invoice_id subscription_id period_index ordinal state number "
        "period_start_time period_end_time issue_time create_time"
    )
    query = (
        sa.select(*(invoices.c[name] for name in columns.split()))
        .where(
            invoices.c.tenant_id == tx.tenant_id,
            one_of(invoices.c.customer_id, owners),  # which there is an index of
            one_of(invoices.c.subscription_id, found),
        )
        .order_by(invoices.c.period_index, invoices.c.ordinal)
    )
    for row in tx.conn.execute(query) if found else ():
        history = found[row.subscription_id]
        if row.state == State.VOID.value:
            history.voids.append(Void(row.invoice_id, row.period_index, row.ordinal, row.number))
        else:
            history.heads.append(_head(row))
    return found


def _head(row: sa.Row[Any]) -> Head:
    start, end = row.period_start_time, row.period_end_time
    # Usage is not prorated, so the length that the period was cut from does not matter here.
    period = Period(row.period_index, start, end, int((end - start).total_seconds()))
    computed = row.issue_time or row.create_time
    return Head(row.invoice_id, Slot(period, row.ordinal), State(row.state), computed)


def taken_back(tx: Tx, invoice_ids: Collection[str]) -> dict[str, frozenset[int]]:
    """Find the periods that late lines, slices and coupons of invoices are of, by invoice."""
    query = sa.select(invoice_lines.c.invoice_id, invoice_lines.c.period_index).where(
        invoice_lines.c.tenant_id == tx.tenant_id,
        one_of(invoice_lines.c.invoice_id, invoice_ids),
        invoice_lines.c.kind.in_(_TAKEN_BACK),
    )
    found: dict[str, frozenset[int]] = {}
    for invoice_id, index in tx.conn.execute(query) if invoice_ids else ():
        found[invoice_id] = found.get(invoice_id, frozenset()) | {index}
    return found


def past(tx: Tx, wanted: Sequence[Wanted]) -> list[Past]:
    """Add up what standing invoices billed and took off in periods; what is not there was not billed."""
    ids = [_ids(one) for one in wanted]
    every = {invoice_id for each in ids for invoice_id in each}
    if not every:
        return [_NONE] * len(wanted)
    names = (
        "invoice_id kind rate_card_id period_index period_start_time quantity amount "
        "attached_coupon_id feature_key"
    )
    query = sa.select(*(invoice_lines.c[name] for name in names.split())).where(
        invoice_lines.c.tenant_id == tx.tenant_id,
        one_of(invoice_lines.c.invoice_id, every),
        one_of(invoice_lines.c.period_index, {index for one in wanted for index in one.periods}),
    )
    by_invoice: dict[str, list[sa.Row[Any]]] = {}
    for row in tx.conn.execute(query):
        by_invoice.setdefault(row.invoice_id, []).append(row)
    return [
        _past([row for one in each for row in by_invoice.get(one, ()) if row.period_index in about.periods])
        for each, about in zip(ids, wanted, strict=True)
    ]


def _ids(wanted: Wanted) -> list[str]:
    first = min(wanted.periods, default=0) - _BEFORE
    return [head.invoice_id for head in wanted.heads if head.slot.period.index >= first]


def _past(rows: Sequence[sa.Row[Any]]) -> Past:
    if not rows:
        return _NONE
    billed: dict[Any, Billed] = {}
    taken: dict[tuple[str, str, int], Decimal] = {}
    for row in rows:
        if row.kind == Kind.COUPON.value:
            place = row.attached_coupon_id, row.feature_key, row.period_index
            taken[place] = add((taken.get(place, Decimal(0)), row.amount))
        else:
            part = row.rate_card_id or PLAN, row.period_index, row.period_start_time
            before = billed.get(part, Billed())
            billed[part] = Billed(add((before.quantity, row.quantity)), add((before.amount, row.amount)))
    return Past(billed, taken)
