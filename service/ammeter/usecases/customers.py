"""Create, read and update customers; assign and release subjects."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime

from ammeter.domain import keys
from ammeter.domain.customer import (
    Customer,
    CustomerDraft,
    Span,
    assign,
    check_draft,
    complete,
    release,
)
from ammeter.domain.minute import BEGINNING, END, minute_of
from ammeter.errors import (
    AlreadyExistsError,
    ConflictError,
    InvalidInputError,
    NotFoundError,
    PreconditionError,
    invalid,
)
from ammeter.store import coupons, credit_lots, entitlements, subscriptions
from ammeter.store import customers as store
from ammeter.store.db import Tx
from ammeter.usecases.live import Live

MUTABLE = ("name", "email", "currency", "time_zone")
_FIXED_BY_SUBSCRIPTION = ("currency", "time_zone")

# Of domain/customer.py: spans, subject, customer_id, minute -> spans.
_Change = Callable[[Sequence[Span], str, int, int], tuple[Span, ...]]


def create_customer(
    tx: Tx, live: Live, draft: CustomerDraft, subjects: Sequence[str], now: datetime
) -> Customer:
    """Create a customer that owns `subjects` from the beginning of time."""
    draft = complete(draft)
    check_draft(draft, subjects)
    customer = store.insert(tx, draft, now)
    if customer is None:
        raise AlreadyExistsError(
            f"there is a customer {draft.customer_key!r} already: choose another key",
            field="customer.customer_key",
        )
    store.lock_subjects(tx, subjects)
    owned = store.spans_of_subjects(tx.conn, tx.tenant_id, subjects)
    if owned:
        subject = min(owned)
        raise PreconditionError(
            f"subject {subject!r} has, or had, an owner: leave it out here and use AssignSubject",
            reason="IN_USE",
        )
    spans = tuple(Span(subject, BEGINNING, END, customer.customer_id) for subject in sorted(subjects))
    store.insert_spans(tx, spans)
    tx.after_commit.append(lambda: live.refresh_customer(tx.tenant_id, customer.customer_id))
    return replace(customer, subjects=spans)


def get_customer(tx: Tx, customer_key: str, *, lock: bool = False) -> Customer:
    """Read a customer; raises NotFoundError."""
    customer = None if "\0" in customer_key else store.get(tx, customer_key, lock=lock)
    if customer is None:
        raise NotFoundError("customer", customer_key)
    return customer


def update_customer(tx: Tx, draft: CustomerDraft, mask: Sequence[str], etag: str, now: datetime) -> Customer:
    """Change the fields that the mask names; without a mask, all those that the draft sets.

    A currency or time zone that the mask names and the draft leaves empty
    becomes the default. Raises ConflictError when `etag` is given and stale.
    """
    unknown = [path for path in mask if path not in MUTABLE]
    if unknown:
        raise invalid("update_mask", f"names {unknown[0]!r}: it can name {', '.join(MUTABLE)}")
    customer = get_customer(tx, draft.customer_key, lock=True)
    if etag and etag.strip('"') != str(customer.version):
        raise ConflictError("the customer was changed meanwhile: read it again and send its etag")
    wanted = complete(draft)
    chosen = [path for path in MUTABLE if (path in mask if mask else getattr(draft, path))]
    changes = {
        path: getattr(wanted, path) for path in chosen if getattr(wanted, path) != getattr(customer, path)
    }
    merged = CustomerDraft(customer.customer_key, *(getattr(customer, path) for path in MUTABLE))
    check_draft(replace(merged, **changes))
    fixed = [path for path in _FIXED_BY_SUBSCRIPTION if path in changes]
    if fixed and _is_fixed(tx, customer.customer_id):
        raise PreconditionError(
            f"{' and '.join(fixed)} cannot change after the first subscription or metered entitlement: "
            "create another customer",
            field=f"customer.{fixed[0]}",
        )
    if changes:
        store.update(tx, customer.customer_id, changes, now)
    return get_customer(tx, draft.customer_key)


def _is_fixed(tx: Tx, customer_id: int) -> bool:
    return (
        subscriptions.any_of_customer(tx, customer_id)
        or entitlements.any_by_hand(tx, customer_id)
        or credit_lots.any_of_customer(tx, customer_id)
        or coupons.any_attached(tx, customer_id)
    )


def assign_subject(
    tx: Tx, live: Live, customer_key: str, subject: str, from_time: datetime | None, now: datetime
) -> Customer:
    """Give a subject to a customer from the minute of `from_time`, or of now."""
    return _change_subject(tx, live, customer_key, subject, from_time or now, now, assign)


def release_subject(
    tx: Tx, live: Live, customer_key: str, subject: str, to_time: datetime | None, now: datetime
) -> Customer:
    """End a customer's ownership of a subject at the minute of `to_time`, or of now."""
    return _change_subject(tx, live, customer_key, subject, to_time or now, now, release)


def _change_subject(
    tx: Tx, live: Live, customer_key: str, subject: str, time: datetime, now: datetime, change: _Change
) -> Customer:
    violations = keys.subject("subject", subject)
    if violations:
        raise InvalidInputError(violations)
    customer = get_customer(tx, customer_key)
    store.lock_subjects(tx, [subject])
    before = store.spans_of_subjects(tx.conn, tx.tenant_id, [subject]).get(subject, ())
    after = change(before, subject, customer.customer_id, minute_of(time))
    if after == before:
        return get_customer(tx, customer_key)
    store.replace_spans(tx, subject, after, now)
    concerned = sorted({span.customer_id for span in {*before} ^ {*after}})
    tx.after_commit.append(lambda: live.refresh_customers(tx.tenant_id, concerned))
    return get_customer(tx, customer_key)
