"""Measure usage for invoices with the engine."""

from datetime import timedelta
from decimal import Decimal

from ammeter.domain.quantity import from_scaled
from ammeter.store.db import Database
from ammeter.usecases.billing import Billing, Measured, Question
from ammeter.usecases.engine import Engine
from ammeter.usecases.query import meter_usage


def engine_billing(db: Database, engine: Engine, horizon: timedelta) -> Billing:
    """Make what billing needs; `horizon` is how old an event may be when it is accepted."""

    def measure(question: Question) -> Measured:
        result = meter_usage(
            db,
            engine,
            question.tenant_id,
            question.revision_id,
            question.minutes,
            filters=question.filters,
            customers=[question.customer_id],
        )
        quantities = [Decimal(0)] * (len(question.minutes) - 1)
        for window, value in zip(result.windows, result.values, strict=True):
            quantities[window] = from_scaled(value)
        return Measured(quantities, result.position)

    return Billing(db, measure, horizon)
