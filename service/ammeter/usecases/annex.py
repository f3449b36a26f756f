"""Freeze usage by group with an invoice that is issued, for its annex."""

from collections.abc import Sequence

from ammeter.domain.invoice import Invoice, InvoiceLine, Kind
from ammeter.domain.meter import Meter
from ammeter.domain.minute import minute_of
from ammeter.domain.money import add
from ammeter.domain.profile import effective
from ammeter.domain.usage_groups import UsageGroups, greatest
from ammeter.store import catalog, invoice_usage, meters, profiles
from ammeter.store.db import Tx
from ammeter.usecases.billing import Billing, Question

# What can be grouped by beside a meter's own dimensions.
_SUBJECT = "subject"
_ADD_UP = frozenset({"SUM", "COUNT"})


def freeze_usage(tx: Tx, run: Billing, invoice: Invoice) -> None:
    """Keep the usage of each line that has any, by what the customer's profile says; the invoice is a draft.

    Where usage comes in at this very moment, so that the groups would not add
    up to the line, the line has none.
    """
    names = effective(*profiles.get_both(tx, invoice.customer_id)).annex_group_by
    if not names:
        return
    for line in invoice.lines:
        if line.kind in {Kind.USAGE, Kind.LATE_USAGE} and line.feature_key:
            groups = _groups(tx, run, invoice, line, names)
            if groups is not None and groups.rows:
                invoice_usage.insert(tx, invoice.invoice_id, line.line_id, groups)


def _groups(
    tx: Tx, run: Billing, invoice: Invoice, line: InvoiceLine, names: Sequence[str]
) -> UsageGroups | None:
    feature = catalog.get_feature(tx, line.feature_key)
    if feature is None or not feature.meter_key:
        return None
    meter: Meter = meters.get_meter(tx, feature.meter_key)
    wanted = tuple(name for name in names if name == _SUBJECT or name in meter.dimensions)
    if not wanted:
        return None
    question = Question(
        tenant_id=tx.tenant_id,
        customer_id=invoice.customer_id,
        revision_id=meters.served_revision(meter),
        filters=tuple((one.dimension, one.values) for one in feature.filters),
        minutes=(minute_of(line.period_start_time), minute_of(line.period_end_time)),
        dimensions=wanted,
    )
    usage = run.measure(question).usages[0]
    if meter.aggregation in _ADD_UP and add(usage.groups.values()) != line.total_quantity:
        return None
    return greatest(wanted, usage.groups)
