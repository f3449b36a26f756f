"""Freeze usage by group with invoices that are issued, for their annexes."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from ammeter.domain.catalog import Feature
from ammeter.domain.invoice import Invoice, InvoiceLine, Kind
from ammeter.domain.meter import Meter
from ammeter.domain.minute import minute_of
from ammeter.domain.money import add
from ammeter.domain.usage_groups import UsageGroups, greatest
from ammeter.store import catalog, invoice_usage, meters
from ammeter.store.db import Tx
from ammeter.usecases.billing import Billing, Measured, Question
from ammeter.usecases.terms import Desk

# What can be grouped by beside a meter's own dimensions.
_SUBJECT = "subject"
_ADD_UP = frozenset({"SUM", "COUNT"})
_BY_USAGE = frozenset({Kind.USAGE, Kind.LATE_USAGE})


class _Asked(NamedTuple):
    """A line, its meter, and the question about its groups."""

    invoice_id: str
    line: InvoiceLine
    meter: Meter
    question: Question


def freeze_usage(tx: Tx, run: Billing, desk: Desk, drafts: Sequence[Invoice]) -> None:
    """Keep the usage of each line that has any, by what the customers' profiles say.

    Where usage comes in at this very moment, so that the groups would not add
    up to the line, the line has none.
    """
    wanted = [
        (invoice, line, names)
        for invoice in drafts
        if (names := desk.of(invoice).profile.annex_group_by)
        for line in invoice.lines
        if line.kind in _BY_USAGE and line.feature_key
    ]
    if not wanted:
        return
    features = catalog.get_features(tx, {line.feature_key for _, line, _ in wanted})
    known = meters.get_meters(tx, {one.meter_key for one in features.values() if one.meter_key})
    asked = [
        each for invoice, line, names in wanted for each in _ask(tx, invoice, line, names, features, known)
    ]
    answers = run.measure([one.question for one in asked]) if asked else []
    for one, measured in zip(asked, answers, strict=True):
        groups = _groups(one, measured)
        if groups is not None and groups.rows:
            invoice_usage.insert(tx, one.invoice_id, one.line.line_id, groups)


def _ask(
    tx: Tx,
    invoice: Invoice,
    line: InvoiceLine,
    names: Sequence[str],
    features: Mapping[str, Feature],
    known: Mapping[str, Meter],
) -> Iterator[_Asked]:
    feature = features.get(line.feature_key)
    if feature is None or not feature.meter_key:
        return
    meter = known[feature.meter_key]
    wanted = tuple(name for name in names if name == _SUBJECT or name in meter.dimensions)
    if not wanted:
        return
    question = Question(
        tenant_id=tx.tenant_id,
        customer_id=invoice.customer_id,
        revision_id=meters.served_revision(meter),
        filters=tuple((one.dimension, one.values) for one in feature.filters),
        minutes=(minute_of(line.period_start_time), minute_of(line.period_end_time)),
        dimensions=wanted,
    )
    yield _Asked(invoice.invoice_id, line, meter, question)


def _groups(asked: _Asked, measured: Measured) -> UsageGroups | None:
    groups = measured.usages[0].groups
    if asked.meter.aggregation in _ADD_UP and add(groups.values()) != asked.line.total_quantity:
        return None
    return greatest(asked.question.dimensions, groups)
