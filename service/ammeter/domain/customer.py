"""Customers, and who owns a subject when."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import NamedTuple

from ammeter.domain import keys
from ammeter.domain.minute import BEGINNING, END
from ammeter.errors import InvalidInputError, PreconditionError, Violation

MAX_SUBJECTS = 1000


class Span(NamedTuple):
    """[from_minute, to_minute) of a subject with a customer, in minutes since the epoch."""

    subject: str
    from_minute: int
    to_minute: int
    customer_id: int


@dataclass(frozen=True)
class Customer:
    """Who pays. `subjects` are all spans, past ones too, by subject and time."""

    customer_id: int
    customer_key: str
    name: str
    email: str
    currency: str
    time_zone: str
    version: int
    create_time: datetime
    update_time: datetime
    subjects_time: datetime
    subjects: tuple[Span, ...] = ()

    @property
    def etag(self) -> str:
        """A word that changes with every update."""
        return f'"{self.version}"'


@dataclass(frozen=True)
class CustomerDraft:
    """What a caller says about a customer; empty texts are not said."""

    customer_key: str
    name: str = ""
    email: str = ""
    currency: str = ""
    time_zone: str = ""


def complete(draft: CustomerDraft) -> CustomerDraft:
    """Fill in the defaults."""
    return replace(
        draft,
        currency=draft.currency or keys.DEFAULT_CURRENCY,
        time_zone=draft.time_zone or keys.DEFAULT_ZONE,
    )


def check_draft(draft: CustomerDraft, subjects: Sequence[str] = ()) -> None:
    """Refuse a draft (completed) or subjects that cannot be; raises InvalidInputError with every fault."""
    violations = [
        *keys.customer_key("customer.customer_key", draft.customer_key),
        *keys.text("customer.name", draft.name),
        *keys.text("customer.email", draft.email),
        *keys.currency("customer.currency", draft.currency),
        *keys.time_zone("customer.time_zone", draft.time_zone),
        *_check_subjects(subjects),
    ]
    if violations:
        raise InvalidInputError(violations)


def _check_subjects(subjects: Sequence[str]) -> Iterable[Violation]:
    if len(subjects) > MAX_SUBJECTS:
        yield Violation("subjects", f"must be at most {MAX_SUBJECTS}: assign the others with AssignSubject")
        return
    first: dict[str, int] = {}
    for index, subject in enumerate(subjects):
        yield from keys.subject(f"subjects[{index}]", subject)
        if first.setdefault(subject, index) != index:
            yield Violation(f"subjects[{index}]", f"is the same as subjects[{first[subject]}]: name it once")


def assign(spans: Sequence[Span], subject: str, customer_id: int, from_minute: int) -> tuple[Span, ...]:
    """Give a subject to a customer: the spans of the subject (in order) as they become.

    The first mapping reaches back to the beginning whatever `from_minute`
    says; the owner keeps what it has. Raises PreconditionError for a move
    that would rewrite what was decided before.
    """
    if not spans:
        return (Span(subject, BEGINNING, END, customer_id),)
    *earlier, last = spans
    if last.to_minute == END:
        if last.customer_id == customer_id:
            return tuple(spans)
        if from_minute < last.from_minute:
            raise PreconditionError(
                f"subject {subject!r} cannot move before its current span starts: give a later from_time"
            )
        last = last._replace(to_minute=from_minute)
    elif from_minute < last.to_minute:
        raise PreconditionError(
            f"subject {subject!r} cannot be assigned before its release: give a later from_time"
        )
    return _joined([*earlier, last, Span(subject, from_minute, END, customer_id)])


def release(spans: Sequence[Span], subject: str, customer_id: int, to_minute: int) -> tuple[Span, ...]:
    """End a customer's ownership: the spans of the subject as they become.

    Releasing at the same minute again changes nothing. Raises
    PreconditionError when the customer does not own it, or only from later on.
    """
    last = spans[-1] if spans else None
    if last is None or last.customer_id != customer_id or last.to_minute not in {END, to_minute}:
        raise PreconditionError(
            f"subject {subject!r} is not this customer's to release: GetCustomer shows its spans"
        )
    if to_minute < last.from_minute:
        raise PreconditionError(
            f"subject {subject!r} cannot be released before its current span starts: give a later to_time"
        )
    return _joined([*spans[:-1], last._replace(to_minute=to_minute)])


def _joined(spans: Iterable[Span]) -> tuple[Span, ...]:
    """Drop empty spans and make one of two that touch and have the same owner."""
    joined: list[Span] = []
    for span in spans:
        if span.from_minute == span.to_minute:
            continue
        before = joined[-1] if joined else None
        if before and (before.to_minute, before.customer_id) == (span.from_minute, span.customer_id):
            joined[-1] = before._replace(to_minute=span.to_minute)
        else:
            joined.append(span)
    return tuple(joined)
