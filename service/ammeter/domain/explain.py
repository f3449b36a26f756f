"""An answer's reasons in plain terms, one sentence each."""

from collections.abc import Iterator
from datetime import UTC, datetime

from ammeter.domain.entitlement import Access, Entitlement
from ammeter.domain.grant import Grant, Terms
from ammeter.domain.history import Segment
from ammeter.domain.minute import END, time_of
from ammeter.domain.quantity import decimal_text, from_scaled
from ammeter.domain.usage_period import UsagePeriod


def whence(mine: Entitlement) -> str:
    """Say where an entitlement comes from and when it holds."""
    source = f"subscription {mine.subscription_id}" if mine.subscription_id else "it was made by hand"
    until = f"until {_time(mine.to_time)}" if mine.to_time else "open-ended"
    return (
        f"{mine.kind.value.capitalize()} entitlement {mine.entitlement_id} to {mine.feature_key} ({source}) "
        f"holds since {_time(mine.from_time)}, {until}."
    )


def story(terms: Terms, period: UsagePeriod, segment: Segment, usage: int) -> Iterator[str]:
    """Tell the period, the grants in the order they burn, and the use."""
    yield (
        f"The usage period is {_minute(period.start_minute)} to {_minute(period.end_minute)}; "
        f"{_text(usage)} was used in it."
    )
    if not segment.grants:
        yield "There is no allowance, and no grant counts now."
    since = _minute(segment.start_minute)
    for burnt in segment.grants:
        left = f"{_text(burnt.opened)} at {since}, {_text(burnt.paid)} paid since, "
        yield f"{_name(burnt.grant)}: {left}{_text(burnt.opened - burnt.paid)} left."
    what = "The level is" if terms.level else f"Use since {since} is"
    yield f"{what} {_text(segment.used)}, so {_left(segment.left_at_end)}."


def reserved(access: Access) -> Iterator[str]:
    """Tell what reservations hold."""
    if access.held:
        yield f"{_text(access.held)} is held by reservations, so {_text(access.balance or 0)} is free."


def verdict(access: Access, amount: int | None = None) -> str:
    """Say yes or no, and why."""
    asked = f" for {_text(amount)}" if amount is not None else ""
    answer = "Yes" if access.access else "No"
    return f"{answer}{asked}: {access.message or 'it is allowed'}."


def _name(grant: Grant) -> str:
    if not grant.grant_id:
        return f"Allowance of {_text(grant.amount)}"
    ends = "never expires" if grant.expire_minute == END else f"expires {_minute(grant.expire_minute)}"
    return f"Grant {grant.grant_id} of {_text(grant.amount)} (priority {grant.priority}, {ends})"


def _left(left: int) -> str:
    return f"{_text(left)} is left" if left >= 0 else f"nothing is left and {_text(-left)} is overage"


def _text(scaled: int) -> str:
    return decimal_text(from_scaled(scaled))


def _minute(minute: int) -> str:
    time = time_of(minute)
    return "never" if time is None else _time(time)


def _time(time: datetime) -> str:
    return f"{time.astimezone(UTC):%Y-%m-%dT%H:%MZ}"
