"""Say when credits should be topped up; look at the balances that rules are about."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

import structlog

from ammeter.domain.money import currency_exponent, round_money
from ammeter.domain.top_up import CreditEvent, CreditEventKind, TopUpRule, check_rule, judge
from ammeter.errors import NotFoundError, OutOfRangeError, PreconditionError
from ammeter.store import customers, notifications, top_ups
from ammeter.store.db import Tx
from ammeter.usecases.billing import Billing
from ammeter.usecases.credit_balance import credit_balance
from ammeter.usecases.customers import get_customer
from ammeter.usecases.ids import new_id

_PAGE = 100
# Usage changes a balance without telling anybody: so often it is looked at.
_EVERY = timedelta(minutes=1)

_log = structlog.get_logger()


def set_rule(tx: Tx, customer_key: str, rule: TopUpRule, now: datetime) -> TopUpRule:
    """Put a customer's rule in the place of the one there is; raises NotFoundError, InvalidInputError."""
    customer = get_customer(tx, customer_key)
    exponent = currency_exponent(customer.currency)
    check_rule(rule, exponent)
    stored = replace(
        rule,
        threshold=round_money(rule.threshold, exponent),
        amount=round_money(rule.amount, exponent),
        armed=True,
        update_time=now,
    )
    top_ups.put(tx, customer.customer_id, stored)
    return stored


def get_rule(tx: Tx, customer_key: str) -> TopUpRule:
    """Read a customer's rule; raises NotFoundError where there is none."""
    rule = top_ups.get(tx, get_customer(tx, customer_key).customer_id)
    if rule is None:
        raise NotFoundError("top-up rule of customer", customer_key)
    return rule


def delete_rule(tx: Tx, customer_key: str) -> None:
    """End a customer's rule; raises NotFoundError where there is none."""
    if not top_ups.delete(tx, get_customer(tx, customer_key).customer_id):
        raise NotFoundError("top-up rule of customer", customer_key)


def check_top_ups(run: Billing, now: datetime, is_stopping: Callable[[], bool]) -> Counter[int]:
    """Look at the rules that are due, of all tenants; returns how many events that made, by tenant.

    Each event is a notification, too, in the same transaction.
    """
    made: Counter[int] = Counter()
    while not is_stopping():
        with run.db.engine() as conn:
            page = top_ups.due(conn, now, _PAGE)
        for rule in page:
            if is_stopping():
                break
            made[rule.tenant_id] += _look_at(run, rule.tenant_id, rule.customer_id, now)
        if len(page) < _PAGE:
            break
    return +made


def _look_at(run: Billing, tenant_id: int, customer_id: int, now: datetime) -> bool:
    with run.db.tenant(tenant_id) as tx:
        customer = customers.get_by_id(tx, customer_id)
        seen = top_ups.get(tx, customer_id)
    if customer is None or seen is None:
        return False
    try:
        balance = credit_balance(run, tenant_id, customer.customer_key, now)
    except (PreconditionError, OutOfRangeError) as error:
        _log.warning("top-up postponed", customer=customer.customer_key, error=error.message)
        with run.db.tenant(tenant_id) as tx:
            top_ups.set_checked(tx, customer_id, armed=seen.armed, check_time=now + _EVERY)
        return False
    with run.db.tenant(tenant_id) as tx:
        rule = top_ups.get(tx, customer_id, lock=True)
        if rule is None or rule.version != seen.version:
            return False  # set anew meanwhile: due at once
        verdict = judge(rule, balance.available)
        if verdict.tell:
            event = CreditEvent(
                new_id("cev", now),
                CreditEventKind.TOP_UP_NEEDED,
                customer_id,
                customer.customer_key,
                customer.currency,
                balance.available,
                rule.threshold,
                rule.amount,
                now,
            )
            top_ups.add_event(tx, event)
            notifications.tell_top_up(tx, event)
        top_ups.set_checked(tx, customer_id, armed=verdict.armed, check_time=now + _EVERY)
    return verdict.tell
