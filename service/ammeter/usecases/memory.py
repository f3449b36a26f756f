"""What checks read: plain objects that never change once they are in place."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from ammeter.domain.counter import renewal_minute
from ammeter.domain.customer import Span
from ammeter.domain.entitlement import Access, Entitlement, Kind, Reason
from ammeter.domain.minute import END, minute_of
from ammeter.domain.quantity import to_scaled
from ammeter.store.entitlements import Held, Known
from ammeter.usecases.burn import Burn
from ammeter.usecases.counters import Count


class LiveEntitlement(NamedTuple):
    """An entitlement over [from_minute, to_minute).

    `access` is the whole answer of a boolean or static one, None for a
    metered one. `allowance` is a scaled int. `burn` burns its grants down,
    None where the allowance is all that there is.
    """

    from_minute: int
    to_minute: int
    access: Access | None
    counter: int
    allowance: int
    soft_limit: bool
    burn: Burn | None = None


class LiveSpan(NamedTuple):
    """Who owns a subject over [from_minute, to_minute)."""

    from_minute: int
    to_minute: int
    customer_id: int


@dataclass(frozen=True, slots=True)
class LiveCustomer:
    """A customer with its entitlements by feature key; `counters` are those that the engine keeps for it."""

    customer_id: int
    customer_key: str
    entitlements: dict[str, tuple[LiveEntitlement, ...]]
    subjects: frozenset[str]
    counters: frozenset[int]
    renew_minute: int
    read_time: datetime = field(compare=False)


def live_entitlements(entitlement: Entitlement, burn: Burn | None = None) -> list[LiveEntitlement]:
    """Prepare an entitlement for checks: one after the other where its allowance changes."""
    live = live_entitlement(entitlement, burn)
    if not entitlement.changes:
        return [live]
    starts = [minute_of(one.from_time) for one in entitlement.changes]
    return [
        live._replace(
            from_minute=minute_of(stage.from_time),
            to_minute=end,
            allowance=to_scaled(stage.allowance),
            soft_limit=stage.soft_limit,
        )
        for stage, end in zip(entitlement.stages, [*starts, live.to_minute], strict=True)
    ]


def live_entitlement(entitlement: Entitlement, burn: Burn | None = None) -> LiveEntitlement:
    """Prepare an entitlement for checks, as it begins."""
    return LiveEntitlement(
        minute_of(entitlement.from_time),
        END if entitlement.to_time is None else minute_of(entitlement.to_time),
        fixed_access(entitlement.kind, entitlement.config),
        entitlement.counter,
        to_scaled(entitlement.allowance) if entitlement.allowance is not None else 0,
        entitlement.soft_limit,
        burn,
    )


def fixed_access(kind: Kind, config: dict[str, Any] | None) -> Access | None:
    """Give the whole answer of a boolean or static entitlement; None for a metered one."""
    if kind is Kind.METERED:
        return None
    if kind is Kind.BOOLEAN:
        return Access(access=True, reason=Reason.ALLOWED)
    return Access(access=True, reason=Reason.ALLOWED, config=json.dumps(config, sort_keys=True))


def by_feature(
    entitlements: Iterable[Entitlement], burns: Mapping[int, Burn], minute: int
) -> dict[str, tuple[LiveEntitlement, ...]]:
    """Prepare entitlements and sort them by feature."""
    prepared = (
        (one.feature_key, live)
        for one in entitlements
        for live in live_entitlements(one, burns.get(one.counter))
    )
    return sort_by_feature(prepared, minute)


def sort_by_feature(
    entitlements: Iterable[tuple[str, LiveEntitlement]], minute: int
) -> dict[str, tuple[LiveEntitlement, ...]]:
    """Sort by feature key; of several that are over by `minute` one is enough to say so."""
    found: dict[str, list[LiveEntitlement]] = {}
    for feature_key, live in entitlements:
        others = found.setdefault(feature_key, [])
        others[:] = [other for other in others if other.to_minute > minute]
        if live.to_minute > minute or not others:
            others.append(live)
    return {feature_key: tuple(several) for feature_key, several in found.items()}


def live_customer(
    known: Known, held: Sequence[Held], subjects: frozenset[str], counts: Sequence[Count], now: datetime
) -> LiveCustomer:
    """Prepare a customer, as it was read at `now`, for checks; `counts` are the counters put for it."""
    renewals = [
        renewal_minute(
            count.renewal,
            live_entitlement(count.held.entitlement).to_minute,
            count.held.entitlement.customer_id,
        )
        for count in counts
    ]
    burns = {
        count.held.entitlement.counter: Burn(count.timeline) for count in counts if count.timeline is not None
    }
    return LiveCustomer(
        known.customer_id,
        known.customer_key,
        by_feature((one.entitlement for one in held), burns, minute_of(now)),
        subjects,
        frozenset(count.held.entitlement.counter for count in counts),
        min(renewals, default=END),
        now,
    )


def live_spans(spans: Iterable[Span]) -> tuple[LiveSpan, ...]:
    """Prepare a subject's spans for checks."""
    return tuple(LiveSpan(span.from_minute, span.to_minute, span.customer_id) for span in spans)
