"""What the rate cards of plans are about, without reading the plans."""

from collections.abc import Iterable

import sqlalchemy as sa

from ammeter.store.catalog import IN_ADVANCE
from ammeter.store.db import Tx
from ammeter.store.many import one_of
from ammeter.store.tables import features, rate_cards


def stages_in_advance(tx: Tx, plan_ids: Iterable[int]) -> set[tuple[int, int]]:
    """Find the phases of plans, by plan and number, of which any rate card bills in advance."""
    query = sa.select(rate_cards.c.plan_id, rate_cards.c.phase).where(
        rate_cards.c.tenant_id == tx.tenant_id,
        one_of(rate_cards.c.plan_id, plan_ids),
        rate_cards.c.price.has_key(IN_ADVANCE),
    )
    return {(row.plan_id, row.phase) for row in tx.conn.execute(query.distinct())}


def plans_of_cards(tx: Tx, rate_card_ids: Iterable[int]) -> set[int]:
    """Read which plans rate cards are of."""
    wanted = sorted(rate_card_ids)
    query = sa.select(rate_cards.c.plan_id).where(
        rate_cards.c.tenant_id == tx.tenant_id, rate_cards.c.rate_card_id.in_(wanted)
    )
    return set(tx.conn.execute(query.distinct()).scalars()) if wanted else set()


def features_by_phase(tx: Tx, plan_ids: Iterable[int]) -> dict[tuple[int, int], frozenset[str]]:
    """Read the features that the rate cards of plans name, by plan and phase."""
    query = (
        sa.select(rate_cards.c.plan_id, rate_cards.c.phase, sa.func.array_agg(features.c.feature_key))
        .join(
            features,
            (features.c.tenant_id == rate_cards.c.tenant_id)
            & (features.c.feature_id == rate_cards.c.feature_id),
        )
        .where(rate_cards.c.tenant_id == tx.tenant_id, rate_cards.c.plan_id.in_(sorted(set(plan_ids))))
        .group_by(rate_cards.c.plan_id, rate_cards.c.phase)
    )
    return {(plan_id, phase): frozenset(keys) for plan_id, phase, keys in tx.conn.execute(query)}
