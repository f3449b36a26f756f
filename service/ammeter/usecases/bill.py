"""Make, issue and void invoices.

Whoever makes or changes an invoice holds its subscription's row meanwhile, so
"what was billed so far" cannot change between reading and writing it. A
transaction has as many invoices as are asked of it, of different
subscriptions; either all of them are there afterwards or none.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from ammeter.domain.advance import opened_period
from ammeter.domain.invoice import (
    OPENING,
    Invoice,
    InvoiceLine,
    Slot,
    State,
    make_draft,
    position_of,
)
from ammeter.domain.late import Head, next_ordinal
from ammeter.domain.lifecycle import Action, check_allowed, check_priced
from ammeter.domain.lifecycle import void as make_void
from ammeter.domain.money import currency_exponent
from ammeter.domain.period import Period, period_at, period_number
from ammeter.domain.period_cost import adds_something
from ammeter.domain.slice import is_slice
from ammeter.domain.subscription import Subscription
from ammeter.errors import AmmeterError, InternalError, NotFoundError, PreconditionError
from ammeter.store import customers, invoice_writing, invoices, standing, subscriptions
from ammeter.store.db import Tx
from ammeter.store.invoice_writing import insert_invoices, rewrite_invoices
from ammeter.store.standing import History
from ammeter.usecases.annex import freeze_usage
from ammeter.usecases.billing import Billing
from ammeter.usecases.credit_lots import apply_credits, give_back
from ammeter.usecases.ids import new_id
from ammeter.usecases.known import Job
from ammeter.usecases.lines import compute_lines
from ammeter.usecases.orders import Outcome
from ammeter.usecases.slices import due_slice, slice_lines
from ammeter.usecases.terms import Desk, put_issue, put_terms, read_desk

_INSTANT = timedelta(microseconds=1)


class Task(NamedTuple):
    """An invoice that is missing: of a period, the OPENING one, or (None) of what came late after the last.

    With `is_slice`, what is due of the present period.
    """

    subscription_id: str
    period: int | None = None
    is_slice: bool = False


class Held(NamedTuple):
    """A subscription that nobody else changes meanwhile, and its invoices."""

    sub: Subscription
    past: History


# Says which invoice to make of each subscription, if any.
Choose = Callable[[Tx, Sequence[Held]], Sequence[Task | None]]


def make_invoices(
    run: Billing,
    tenant_id: int,
    subscription_ids: Sequence[str],
    choose: Choose,
    *,
    issue: bool,
    now: datetime,
) -> list[Outcome]:
    """Make a missing invoice of each subscription, in one transaction.

    Raises OutOfRangeError where a quantity of any of them is; then nothing is made.
    """
    with run.transaction(tenant_id) as tx:
        held = _hold(tx, subscription_ids)
        tasks = choose(tx, held)
        jobs: dict[int, Job] = {}
        for place, (task, (sub, past)) in enumerate(zip(tasks, held, strict=True)):
            if task is not None and not task.is_slice:
                slot = _slot(sub, task.period, past.heads, now)
                if slot is not None:
                    jobs[place] = Job(sub, slot, past)
        outcomes: dict[int, Outcome] = {}
        desk = read_desk(tx, {sub.customer_id for sub, _ in held})
        computed = compute_lines(tx, run, list(jobs.values()))
        for (place, job), lines in zip(jobs.items(), computed, strict=True):
            outcomes[place] = lines if isinstance(lines, AmmeterError) else _draft(desk, job, lines, now)
        for place, task in enumerate(tasks):
            if task is not None and task.is_slice:
                outcomes[place] = due_slice(tx, run, held[place].sub, now)
        if issue:
            outcomes = {place: _unless_unpriced(one) for place, one in outcomes.items()}
        added = insert_invoices(tx, [one for one in outcomes.values() if isinstance(one, Invoice)])
        made = {
            place: one
            for place, one in outcomes.items()
            if isinstance(one, Invoice) and one.invoice_id in added
        }
        if issue:
            made = dict(zip(made, _number(tx, run, desk, list(made.values()), now), strict=True))
        failed = {place: one for place, one in outcomes.items() if isinstance(one, AmmeterError)}
        counts = {"made": len(made), "issued": len(made) if issue else 0, "failed": len(failed)}
        tx.after_commit.append(lambda: run.tally.count(counts))
        return [made.get(place) or failed.get(place) for place in range(len(tasks))]


def _draft(desk: Desk, job: Job, lines: Sequence[InvoiceLine], now: datetime) -> Invoice | None:
    """Put an invoice together; nothing where late usage changes nothing."""
    if job.slot.ordinal and not any(adds_something(line) for line in lines):
        return None
    draft = make_draft(
        job.sub,
        job.slot,
        lines,
        currency_exponent(job.sub.currency),
        new_id("inv", now),
        create_time=now,
        replaces_invoice_id=job.past.replaced(job.slot),
    )
    return put_terms(desk, draft)


def _unless_unpriced(outcome: Outcome) -> Outcome:
    """Refuse to issue what is not all that is owed."""
    if isinstance(outcome, Invoice):
        try:
            check_priced(outcome)
        except PreconditionError as error:
            return error
    return outcome


def _slot(sub: Subscription, index: int | None, heads: Sequence[Head], now: datetime) -> Slot | None:
    """Give the place of a missing invoice; None where it is taken, or not due."""
    slot = _late_slot(sub, heads, now) if index is None else _period_slot(sub, index, now)
    taken = {(head.slot.period.index, head.slot.ordinal) for head in heads}
    return None if slot is None or (slot.period.index, slot.ordinal) in taken else slot


def _period_slot(sub: Subscription, index: int, now: datetime) -> Slot | None:
    if index == OPENING:
        first = period_number(sub, 0)
        return Slot(first, OPENING) if first is not None and first.start <= now else None
    period = period_number(sub, index)
    return Slot(period) if period is not None and period.end <= now else None


def _late_slot(sub: Subscription, heads: Sequence[Head], now: datetime) -> Slot | None:
    last = _last_period(sub)
    if last is None or last.end > now:
        return None
    ordinal = next_ordinal(heads, last)
    return None if ordinal is None else Slot(last, ordinal)


def _last_period(sub: Subscription) -> Period | None:
    """Return the last period of a subscription that ends, of no length if it ended as it began."""
    if sub.end_time is None:
        return None
    return period_at(sub, sub.end_time - _INSTANT) or opened_period(sub)


def issue_invoice(run: Billing, tenant_id: int, invoice_id: str, now: datetime) -> Invoice:
    """Take a draft's quantities anew, freeze it and number it; an issued invoice stays as it is.

    So does one that was issued and has gone on. Raises NotFoundError,
    OutOfRangeError; PreconditionError for a void one, and for one with a model
    that has no price.
    """
    [outcome] = issue_invoices(run, tenant_id, [invoice_id], now)
    if isinstance(outcome, AmmeterError):
        raise outcome
    if outcome is None:
        raise NotFoundError("invoice", invoice_id)
    return outcome


def issue_invoices(
    run: Billing, tenant_id: int, invoice_ids: Sequence[str], now: datetime, *, only_due: bool = False
) -> list[Outcome]:
    """As issue_invoice, of several of different subscriptions in one transaction; None for what is not there.

    With `only_due`, what is not (or no more) to be issued by itself by now
    stays as it is, too. Raises OutOfRangeError as make_invoices does.
    """
    with run.transaction(tenant_id) as tx:
        found = hold_invoices(tx, invoice_ids)
        outcomes: dict[str, Outcome] = {**found}
        drafts = []
        for invoice in found.values():
            if invoice.state in _GONE_ON or (only_due and not _is_due(invoice, now)):
                continue
            try:
                check_allowed(invoice, Action.ISSUE)
            except PreconditionError as error:
                outcomes[invoice.invoice_id] = error
            else:
                drafts.append(invoice)
        desk = read_desk(tx, {draft.customer_id for draft in drafts})
        for draft, fresh in zip(drafts, _anew(tx, run, desk, drafts, now), strict=True):
            outcomes[draft.invoice_id] = _unless_unpriced(fresh)
        whole = [one for draft in drafts if isinstance(one := outcomes[draft.invoice_id], Invoice)]
        rewrite_invoices(tx, whole)
        issued = _number(tx, run, desk, whole, now)
        outcomes.update((one.invoice_id, one) for one in issued)
        failed = sum(isinstance(one, AmmeterError) for one in outcomes.values())
        tx.after_commit.append(lambda: run.tally.count({"issued": len(issued), "failed": failed}))
        return [outcomes.get(invoice_id) for invoice_id in invoice_ids]


def refresh_drafts(run: Billing, tenant_id: int, invoice_ids: Sequence[str], now: datetime) -> list[Outcome]:
    """Take drafts of different subscriptions anew as their issue would, and leave them drafts.

    None for what is no draft any more. Raises OutOfRangeError as make_invoices does.
    """
    with run.transaction(tenant_id) as tx:
        drafts = [one for one in hold_invoices(tx, invoice_ids).values() if one.state is State.DRAFT]
        desk = read_desk(tx, {draft.customer_id for draft in drafts})
        fresh = dict(zip((one.invoice_id for one in drafts), _anew(tx, run, desk, drafts, now), strict=True))
        rewrite_invoices(tx, [one for one in fresh.values() if isinstance(one, Invoice)])
        return [fresh.get(invoice_id) for invoice_id in invoice_ids]


_GONE_ON = frozenset({State.ISSUED, State.PAID, State.UNCOLLECTIBLE})


def _is_due(invoice: Invoice, now: datetime) -> bool:
    due = invoice.automatic_issue_time
    return invoice.state is State.DRAFT and due is not None and due <= now


def _anew(
    tx: Tx, run: Billing, desk: Desk, drafts: Sequence[Invoice], now: datetime
) -> Iterator[Invoice | PreconditionError]:
    """Compute drafts under the terms of now."""
    for draft, lines in zip(drafts, _lines_anew(tx, run, drafts, now), strict=True):
        if isinstance(lines, PreconditionError):
            yield lines
        else:
            yield put_terms(desk, draft._replace(lines=tuple(lines), position=position_of(lines)))


def _lines_anew(
    tx: Tx, run: Billing, drafts: Sequence[Invoice], now: datetime
) -> list[list[InvoiceLine] | PreconditionError]:
    subs = subscriptions.get_all(tx, {draft.subscription_id for draft in drafts})
    past = standing.histories(tx, list(subs.values()))
    jobs = [
        Job(
            sub := subs[draft.subscription_id],
            Slot(_period_of(sub, draft), draft.ordinal),
            past[draft.subscription_id],
            draft.invoice_id,
        )
        for draft in drafts
    ]
    usual = iter(compute_lines(tx, run, [job for job in jobs if not is_slice(job.slot.ordinal)]))
    return [slice_lines(tx, run, job, now) if is_slice(job.slot.ordinal) else next(usual) for job in jobs]


def _period_of(sub: Subscription, draft: Invoice) -> Period:
    opening = draft.ordinal == OPENING
    period = opened_period(sub) if opening else period_number(sub, draft.period_index)
    if period is None:
        raise InternalError(f"invoice {draft.invoice_id} is of a period that is not")
    return period


def void_invoice(tx: Tx, invoice_id: str, now: datetime) -> Invoice:
    """Void a draft or an issued invoice; a void one stays as it is. Its number stays, credits go back.

    Raises NotFoundError; PreconditionError for what is paid, written off or credited.
    """
    invoice = hold_invoice(tx, invoice_id)
    if invoice.state is State.VOID:
        return invoice
    void = make_void(invoice, now)
    invoice_writing.update_invoice(tx, void)
    give_back(tx, invoice, now)
    return void


def _number(tx: Tx, run: Billing, desk: Desk, drafts: Sequence[Invoice], now: datetime) -> list[Invoice]:
    """Issue drafts that are stored."""
    freeze_usage(tx, run, desk, drafts)
    issued = put_issue(tx, desk, apply_credits(tx, drafts, now), now)
    invoice_writing.write_issue(tx, issued)
    return issued


def _hold(tx: Tx, subscription_ids: Sequence[str]) -> list[Held]:
    """Lock subscriptions and read them as they are now, in their order."""
    invoices.lock_subscriptions(tx, subscription_ids)
    found = subscriptions.get_all(tx, subscription_ids)
    for missing in set(subscription_ids) - found.keys():
        raise NotFoundError("subscription", missing)
    past = standing.histories(tx, list(found.values()))
    return [Held(found[name], past[name]) for name in subscription_ids]


def hold_invoice(tx: Tx, invoice_id: str) -> Invoice:
    """Lock an invoice by its subscription and read it as it is now; raises NotFoundError."""
    found = hold_invoices(tx, [invoice_id])
    if not found:
        raise NotFoundError("invoice", invoice_id)
    return found[invoice_id]


def hold_invoices(tx: Tx, invoice_ids: Collection[str]) -> dict[str, Invoice]:
    """Lock those of the invoices that there are by their subscriptions, and read them as they are now."""
    owners = invoices.owners(tx, [name for name in invoice_ids if "\0" not in name])
    invoices.lock_subscriptions(tx, set(owners.values()))
    return invoices.get_invoices(tx, list(owners)) if owners else {}


def find_customer(tx: Tx, customer_key: str) -> int:
    """Give a customer's number; raises NotFoundError."""
    customer = None if "\0" in customer_key else customers.get(tx, customer_key)
    if customer is None:
        raise NotFoundError("customer", customer_key)
    return customer.customer_id
