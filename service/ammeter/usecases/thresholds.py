"""Make, read and delete thresholds; read what they told."""

from collections.abc import Callable
from datetime import datetime

from ammeter.domain.threshold import Threshold, ThresholdKind
from ammeter.domain.threshold_rules import MAX_THRESHOLDS, read_level
from ammeter.errors import NotFoundError, PreconditionError, invalid
from ammeter.store import notifications as store
from ammeter.store.db import Tx
from ammeter.usecases.catalog import get_feature
from ammeter.usecases.customers import get_customer
from ammeter.usecases.ids import new_id


def create_threshold(
    tx: Tx,
    about: tuple[str, str],
    kind: ThresholdKind | None,
    level: tuple[str, str],
    changed: Callable[[], None],
    now: datetime,
) -> Threshold:
    """Make a rule about (customer_key, feature_key); `level` is (amount, percent) as sent."""
    customer_key, feature_key = about
    amount, percent = read_level(kind, *level)
    customer = get_customer(tx, customer_key) if customer_key else None
    feature = get_feature(tx, feature_key) if feature_key else None
    if feature is not None and not feature.meter_key:
        why = "names a feature without a meter: there is no use of it to tell about"
        raise invalid("threshold.feature_key", why)
    if store.count_thresholds(tx) >= MAX_THRESHOLDS:
        raise PreconditionError(f"there are {MAX_THRESHOLDS} thresholds already: delete one first")
    made = Threshold(
        new_id("thr", now), customer_key, feature_key, ThresholdKind(kind or ""), amount, percent, now
    )
    store.insert_threshold(
        tx, made, customer.customer_id if customer else None, feature.feature_id if feature else None
    )
    tx.after_commit.append(changed)
    return made


def get_threshold(tx: Tx, threshold_id: str) -> Threshold:
    """Read a rule; raises NotFoundError."""
    found = None if "\0" in threshold_id else store.get_threshold(tx, threshold_id)
    if found is None:
        raise NotFoundError("threshold", threshold_id)
    return found


def delete_threshold(tx: Tx, threshold_id: str, changed: Callable[[], None]) -> None:
    """Forget a rule; raises NotFoundError."""
    get_threshold(tx, threshold_id)
    store.delete_threshold(tx, threshold_id)
    tx.after_commit.append(changed)
