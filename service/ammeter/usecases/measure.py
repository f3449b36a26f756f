"""Measure usage for invoices with the engine."""

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from functools import partial

from ammeter.domain.money import add
from ammeter.domain.pricing import NO_USAGE, Usage
from ammeter.domain.quantity import from_scaled
from ammeter.store.db import Database
from ammeter.usecases.billing import Billing, Measured, Question
from ammeter.usecases.engine import Engine, QueryResult
from ammeter.usecases.query import ReadBefore, meter_usage


def engine_billing(db: Database, engine: Engine, horizon: timedelta) -> Billing:
    """Make what billing needs; `horizon` is how old an event may be when it is accepted."""

    def measure(question: Question, read_before: ReadBefore | None = None) -> Measured:
        result = meter_usage(
            db,
            engine,
            question.tenant_id,
            question.revision_id,
            question.minutes,
            group_by=question.dimensions,
            filters=question.filters,
            customers=[question.customer_id],
            read_before=read_before,
        )
        usages = [NO_USAGE] * (len(question.minutes) - 1)
        for window, cells in _by_window(result).items():
            usages[window] = Usage(
                quantity=add(quantity for _, quantity, _ in cells),
                event_count=sum(event_count for _, _, event_count in cells),
                groups={values: quantity for values, quantity, _ in cells} if question.dimensions else {},
            )
        return Measured(usages, result.position)

    def begin() -> Callable[[Question], Measured]:
        return partial(measure, read_before={})

    return Billing(db, measure, horizon, begin=begin)


def _by_window(result: QueryResult) -> dict[int, list[tuple[tuple[str, ...], Decimal, int]]]:
    """Collect the values of groups, their quantity and events, by window."""
    windows = result.windows
    groups = list(zip(*result.groups, strict=True)) if result.groups else [()] * len(windows)
    found: dict[int, list[tuple[tuple[str, ...], Decimal, int]]] = {}
    for window, values, value, event_count in zip(
        windows, groups, result.values, result.event_counts, strict=True
    ):
        found.setdefault(window, []).append((values, from_scaled(value), event_count))
    return found
