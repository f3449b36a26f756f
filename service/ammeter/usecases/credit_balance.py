"""What a customer's prepaid credits are worth now: what is left, less what is used and not issued yet."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal

from ammeter.domain.credit_lot import CreditLot, burn_order, cost_of_remaining
from ammeter.domain.invoice import Invoice, Slot, State, make_draft
from ammeter.domain.money import add, currency_exponent, round_money, subtract
from ammeter.domain.period import period_at, periods_from
from ammeter.domain.prepaid import pay_from
from ammeter.domain.subscription import Subscription
from ammeter.errors import PreconditionError
from ammeter.store import credit_lots, standing, subscriptions
from ammeter.store.db import Tx
from ammeter.store.standing import History
from ammeter.usecases.billing import Billing
from ammeter.usecases.customers import get_customer
from ammeter.usecases.known import Job
from ammeter.usecases.lines import compute_lines
from ammeter.usecases.terms import put_terms, read_desk


@dataclass(frozen=True)
class CreditBalance:
    """Money of `currency`; `lots` are the usable ones, as they pay, each with what of it is pending."""

    currency: str
    remaining: Decimal
    pending: Decimal
    available: Decimal
    cost_basis: Decimal
    lots: tuple[tuple[CreditLot, Decimal], ...]


def credit_balance(run: Billing, tenant_id: int, customer_key: str, now: datetime) -> CreditBalance:
    """Work out what would be left if everything used so far were issued now.

    Drafts pay first, by their periods, then ended periods without an invoice
    and the present ones. Raises NotFoundError; PreconditionError
    (METER_BUILDING) and OutOfRangeError as invoices do.
    """
    with run.gate, run.db.tenant(tenant_id, snapshot=True) as tx:
        customer = get_customer(tx, customer_key)
        lots = credit_lots.usable(tx, customer.customer_id, customer.currency, now)
        lots.sort(key=burn_order)
        left = {lot.credit_lot_id: lot.remaining for lot in lots}
        if lots:
            for invoice in _not_issued(tx, run, customer.customer_id, now):
                as_left = [replace(lot, remaining=left[lot.credit_lot_id]) for lot in lots]
                for one in pay_from(as_left, invoice):
                    left[one.credit_lot_id] = subtract(left[one.credit_lot_id], one.amount)
    exponent = currency_exponent(customer.currency)
    remaining = round_money(add(lot.remaining for lot in lots), exponent)
    available = round_money(add(left.values()), exponent)
    costs = [cost_of_remaining(lot, lot.remaining, exponent) for lot in lots]
    return CreditBalance(
        customer.currency,
        remaining,
        subtract(remaining, available),
        available,
        round_money(add(costs), exponent),
        tuple((lot, subtract(lot.remaining, left[lot.credit_lot_id])) for lot in lots),
    )


def _not_issued(tx: Tx, run: Billing, customer_id: int, now: datetime) -> Iterator[Invoice]:
    """Make up every invoice that is still to be issued of what was used so far; writes nothing."""
    subs = subscriptions.of_customer(tx, customer_id)
    past = standing.histories(tx, subs)
    jobs = [job for sub in subs for job in _jobs(sub, past[sub.subscription_id], now)]
    desk = read_desk(tx, [customer_id])
    seen: set[str] = set()
    for job, lines in zip(jobs, compute_lines(tx, run, jobs), strict=True):
        if isinstance(lines, PreconditionError):
            raise lines
        fresh = lines
        if not job.redone:
            # What one period bills in advance, the next would bill itself.
            fresh = [line for line in lines if line.line_id not in seen]
            seen.update(line.line_id for line in lines)
        yield put_terms(desk, make_draft(job.sub, job.slot, fresh, currency_exponent(job.sub.currency)))


def _jobs(sub: Subscription, past: History, now: datetime) -> Iterator[Job]:
    """Give a subscription's drafts, then its ended periods without an invoice and the present one."""
    for head in past.heads:
        if head.state is State.DRAFT:
            yield Job(sub, head.slot, past, redone=head.invoice_id)
    taken = {head.slot.period.index for head in past.heads if head.slot.ordinal == 0}
    ended = [period for period in periods_from(sub, 0, now) if period.index not in taken]
    present = period_at(sub, now)
    for period in [*ended, *([present] if present else [])]:
        yield Job(sub, Slot(period), past)
