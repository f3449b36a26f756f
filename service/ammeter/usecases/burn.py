"""Burn grants down on counters in memory: for a check a subtraction, unless something changed."""

from dataclasses import dataclass, field
from typing import NamedTuple

from ammeter import metrics
from ammeter.domain.grant import Span, State, Step, Timeline, burn_down, open_span
from ammeter.domain.usage_period import UsagePeriod
from ammeter.usecases.engine import Engine, EngineError

_TRIES = 5


class Memo(NamedTuple):
    """What a span began with. It holds while the engine's stamp of all earlier spans does.

    What is left is `base` less the period's usage.
    """

    span: Span
    stamp: int
    base: int
    opened: State
    steps: tuple[Step, ...]


@dataclass
class Burn:
    """One entitlement's timeline, and the last span that somebody asked about.

    The memo is put in place whole, so that threads may ask at the same time.
    """

    timeline: Timeline
    memo: Memo | None = field(default=None, compare=False)

    def left(self, engine: Engine, tenant_id: int, counter: int, minute: int) -> tuple[int, int, UsagePeriod]:
        """Return what is left at a minute (below zero: overage), the period's usage, and the period.

        Raises EngineError when the counter has other spans, or none here: then
        it has to be put anew.
        """
        memo = self.memo
        if memo is not None and memo.span.start_minute <= minute < memo.span.end_minute:
            since = memo.span.period.start_minute
            usage, start, end, stamp = engine.usage_since(tenant_id, counter, since, minute)
            if stamp == memo.stamp and (start, end) == memo.span[:2]:
                return _left(memo, usage), usage, memo.span.period
        memo, usage = self._begin(engine, tenant_id, counter, minute)
        return _left(memo, usage), usage, memo.span.period

    def _begin(self, engine: Engine, tenant_id: int, counter: int, minute: int) -> tuple[Memo, int]:
        """Compute what the span around a minute began with, from the first span on whose usage changed."""
        index = self.timeline.index(minute)
        if index is None:
            raise EngineError("OUT_OF_RANGE", f"no span of counter {counter} covers minute {minute}")
        span = self.timeline.spans[index]
        metrics.BALANCE_RECOMPUTES.inc()
        for _ in range(_TRIES):
            before = engine.usage_since(tenant_id, counter, span.period.start_minute, minute)
            edges, running = engine.running(tenant_id, counter, self.timeline.resets)
            usage, *_, stamp = engine.usage_since(tenant_id, counter, span.period.start_minute, minute)
            if before[3] == stamp and tuple(edges) == self.timeline.edges:
                break
        else:
            raise EngineError("OUT_OF_RANGE", f"the spans of counter {counter} are being changed")
        known = self.memo.steps if self.memo else ()
        steps = burn_down(self.timeline, running[:index], known)
        opened = open_span(self.timeline, index, steps[-1] if steps else None)
        burnt = 0 if self.timeline.level or span.is_reset or not index else running[index - 1]
        memo = Memo(span, stamp, opened.left + burnt, opened, tuple(steps))
        self.memo = memo
        return memo, usage


def _left(memo: Memo, usage: int) -> int:
    left = memo.base - usage
    # Corrections give back to grants: where there is none they leave no balance.
    return left if memo.span.active else min(left, 0)
