"""May a customer use a feature? The decision, apart from where its numbers come from."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, NamedTuple


class Kind(StrEnum):
    """What an entitlement is made of."""

    BOOLEAN = "boolean"
    STATIC = "static"
    METERED = "metered"


class Reason(StrEnum):
    """Why access is given or not; the words of AccessReason without their prefix."""

    ALLOWED = "ALLOWED"
    ALLOWED_OVER_SOFT_LIMIT = "ALLOWED_OVER_SOFT_LIMIT"
    LIMIT_REACHED = "LIMIT_REACHED"
    NOT_ENTITLED = "NOT_ENTITLED"
    ENTITLEMENT_NOT_ACTIVE = "ENTITLEMENT_NOT_ACTIVE"
    FEATURE_UNKNOWN = "FEATURE_UNKNOWN"
    CUSTOMER_UNKNOWN = "CUSTOMER_UNKNOWN"


MESSAGES = {
    Reason.ALLOWED: "",
    Reason.ALLOWED_OVER_SOFT_LIMIT: "the allowance is used up, but the limit is soft: use goes on as overage",
    Reason.LIMIT_REACHED: "too little allowance is left: wait for the next period, or grant more",
    Reason.NOT_ENTITLED: "the customer is not entitled: subscribe it, or give it by hand",
    Reason.ENTITLEMENT_NOT_ACTIVE: "the entitlement has not begun or has ended: ListEntitlements says when",
    Reason.FEATURE_UNKNOWN: "there is no such feature: check feature_key, or create it",
    Reason.CUSTOMER_UNKNOWN: "no such customer, or nobody owns the subject now: check it, or assign it",
}


class AllowanceChange(NamedTuple):
    """Another allowance from a time on; unless it is the same as before, usage is reset there."""

    from_time: datetime
    allowance: Decimal
    soft_limit: bool


@dataclass(frozen=True)
class Entitlement:
    """A customer's right to a feature over [from_time, to_time).

    `counter` numbers it for the counters in memory; `allowance` (None: grants
    only), `soft_limit` and `preserve_overage` are of metered ones, `config` of
    static ones. `subscription_id` is empty, and the usage period its own, when
    it was made by hand. One that was deleted or overridden ends at delete_time,
    whatever becomes of its subscription. `allowance` and `soft_limit` hold up
    to the first of `changes`, which only a subscription makes.
    """

    entitlement_id: str
    counter: int
    customer_id: int
    customer_key: str
    feature_key: str
    subscription_id: str
    kind: Kind
    allowance: Decimal | None
    soft_limit: bool
    config: dict[str, Any] | None
    from_time: datetime
    to_time: datetime | None
    preserve_overage: bool = False
    cadence: str | None = None
    anchor_time: datetime | None = None
    delete_time: datetime | None = None
    changes: tuple[AllowanceChange, ...] = ()

    @property
    def stages(self) -> list[AllowanceChange]:
        """List what its allowance and limit are, each from its time on."""
        return [AllowanceChange(self.from_time, self.allowance or Decimal(0), self.soft_limit), *self.changes]

    def stage_at(self, instant: datetime) -> AllowanceChange:
        """Give the allowance and limit at an instant; before the start the first."""
        first, *others = self.stages
        return [first, *(one for one in others if one.from_time <= instant)][-1]

    @property
    def resets(self) -> list[tuple[datetime, Decimal]]:
        """List when the allowance becomes another one, and which."""
        found = []
        before = self.allowance
        for change in self.changes:
            if change.allowance != before:
                found.append((change.from_time, change.allowance))
            before = change.allowance
        return found


class Access(NamedTuple):
    """The answer to a check. Quantities are ints scaled by 10**12, None where the kind has none."""

    access: bool
    reason: Reason
    balance: int | None = None
    overage: int | None = None
    usage: int | None = None
    allowance: int | None = None
    period_start_minute: int | None = None
    period_end_minute: int | None = None
    # Whatever the caller of the decision keeps a static configuration as.
    config: object | None = None
    # By reservations; the balance is without it.
    held: int = 0

    @property
    def message(self) -> str:
        """What the reason means and what to do."""
        return MESSAGES[self.reason]


def metered_access(
    allowance: int,
    usage: int,
    amount: int | None,
    period: tuple[int, int],
    *,
    soft_limit: bool,
) -> Access:
    """Decide for a metered entitlement; quantities are scaled ints, the period is in minutes.

    Without an amount something must be left, with one at least that much.
    """
    return decide(allowance - usage, usage, allowance, amount, period, soft_limit=soft_limit)


def decide(
    left: int,
    usage: int,
    allowance: int,
    amount: int | None,
    period: tuple[int, int],
    *,
    soft_limit: bool,
    held: int = 0,
) -> Access:
    """As metered_access, from what is left: below zero it is overage. What is held is not free."""
    free = left - held
    enough = free > 0 if amount is None else free >= amount
    if enough:
        reason = Reason.ALLOWED
    elif soft_limit:
        reason = Reason.ALLOWED_OVER_SOFT_LIMIT
    else:
        reason = Reason.LIMIT_REACHED
    # Plainly, as this is most of what a check costs.
    balance = free if free > 0 else 0  # noqa: FURB136
    overage = -left if left < 0 else 0
    start, end = period
    return Access(enough or soft_limit, reason, balance, overage, usage, allowance, start, end, None, held)
