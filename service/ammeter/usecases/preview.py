"""Preview an invoice without writing anything."""

from datetime import datetime

from ammeter.domain.invoice import Invoice, Slot, make_draft
from ammeter.domain.money import currency_exponent
from ammeter.domain.period import period_at
from ammeter.domain.prepaid import pay_from, with_prepaid
from ammeter.domain.subscription import Subscription
from ammeter.errors import NotFoundError, PreconditionError, invalid
from ammeter.store import credit_lots, standing, subscriptions
from ammeter.store.db import Tx
from ammeter.usecases.bill import find_customer
from ammeter.usecases.billing import Billing
from ammeter.usecases.change import Wish, imagined
from ammeter.usecases.known import Job
from ammeter.usecases.lines import lines_of
from ammeter.usecases.terms import put_terms, read_desk


def preview_invoice(
    run: Billing,
    tenant_id: int,
    customer_key: str,
    subscription_id: str,
    now: datetime,
    wish: Wish | None = None,
) -> Invoice:
    """Compute the invoice of a subscription's period around now, as if nothing more were to come.

    With a wish, as if it were granted now; raises what granting it would. All
    usage recorded so far is in it, flat prices are in it for the whole
    period, and so is late usage of periods billed before. Raises
    NotFoundError, InvalidInputError when several subscriptions could be meant,
    PreconditionError when there is no period around now.
    """
    with run.gate, run.db.tenant(tenant_id, snapshot=True) as tx:
        sub = _find(tx, customer_key, subscription_id)
        if wish is not None:
            sub = imagined(tx, sub, wish, now)
        period = period_at(sub, now)
        if period is None:
            raise PreconditionError(
                f"subscription {sub.subscription_id} has no period now: it has not begun or has ended; "
                "GenerateInvoices bills what it owes"
            )
        slot = Slot(period)
        past = standing.histories(tx, [sub])[sub.subscription_id]
        lines = lines_of(tx, run, Job(sub, slot, past))
        draft = make_draft(sub, slot, lines, currency_exponent(sub.currency))
        desk = read_desk(tx, [sub.customer_id])
        settled = put_terms(desk, draft)._replace(automatic_issue_time=None)
        lots = credit_lots.usable(tx, sub.customer_id, sub.currency, now)
        prepaid, total = with_prepaid(settled, pay_from(lots, settled))
        return settled._replace(prepaid=prepaid, prepaid_total=total)


def _find(tx: Tx, customer_key: str, subscription_id: str) -> Subscription:
    found = subscriptions.of_customer(tx, find_customer(tx, customer_key))
    if subscription_id:
        found = [sub for sub in found if sub.subscription_id == subscription_id]
    if not found:
        raise NotFoundError("subscription", subscription_id or f"of customer {customer_key}")
    if len(found) > 1:
        ids = ", ".join(sub.subscription_id for sub in found)
        raise invalid("subscription_id", f"is needed, as the customer has several: {ids}")
    return found[0]
