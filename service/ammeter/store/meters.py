"""Meters and their revisions."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from ammeter.domain.meter import Build, Meter, PropertyFilter
from ammeter.errors import NotFoundError, PreconditionError
from ammeter.store.db import Tx
from ammeter.store.many import one_of
from ammeter.store.tables import blocks, features, meter_revisions, meters

_served = meter_revisions.alias("served")
_building = meter_revisions.alias("building")


class StoredRevision(NamedTuple):
    """A revision with its meter, for recovery.

    Blocks of an active one hold everything up to `built`, even where the
    checkpoint is behind that.
    """

    tenant_id: int
    revision_id: int
    state: str
    meter: Meter
    built: int = 0


def _select() -> sa.Select[Any]:
    def revision(alias: Any, state: str) -> sa.ColumnElement[bool]:  # noqa: ANN401 - SQLAlchemy's alias of a table
        return sa.and_(
            alias.c.tenant_id == meters.c.tenant_id,
            alias.c.meter_id == meters.c.meter_id,
            alias.c.state == state,
        )

    return sa.select(
        meters,
        _served.c.revision_id,
        _served.c.dimensions,
        _served.c.skipped_count,
        _served.c.skipped_events,
        _building.c.revision_id.label("building_id"),
        _building.c.dimensions.label("building_dimensions"),
        _building.c.build_done,
        _building.c.build_total,
    ).select_from(
        meters.outerjoin(_served, revision(_served, "active")).outerjoin(
            _building, revision(_building, "building")
        )
    )


def _filters(stored: Sequence[dict[str, Any]]) -> tuple[PropertyFilter, ...]:
    return tuple(PropertyFilter(f["property"], f["operator"], tuple(f["values"])) for f in stored)


def _meter(row: Row[Any]) -> Meter:
    build = None
    if row.building_id is not None:
        build = Build(row.building_id, tuple(row.building_dimensions), row.build_done, row.build_total)
    served = row.dimensions if row.revision_id is not None else row.building_dimensions
    return Meter(
        meter_key=row.meter_key,
        name=row.name,
        description=row.description,
        event_type=row.event_type,
        aggregation=row.aggregation,
        value_property=row.value_property,
        dimensions=tuple(served or ()),
        filters=_filters(row.filters),
        meter_id=row.meter_id,
        revision_id=row.revision_id,
        build=build,
        skipped_count=row.skipped_count or 0,
        skipped_events=tuple(row.skipped_events or ()),
        version=row.version,
        create_time=row.create_time,
        update_time=row.update_time,
    )


def find_meter(tx: Tx, meter_key: str) -> Meter | None:
    """Read a meter by key; None if there is none such."""
    query = _select().where(meters.c.tenant_id == tx.tenant_id, meters.c.meter_key == meter_key)
    row = tx.conn.execute(query).one_or_none()
    return None if row is None else _meter(row)


def get_meters(tx: Tx, meter_keys: Collection[str]) -> dict[str, Meter]:
    """Read those of the meters that there are, by key."""
    query = _select().where(meters.c.tenant_id == tx.tenant_id, one_of(meters.c.meter_key, meter_keys))
    return {row.meter_key: _meter(row) for row in tx.conn.execute(query)}


def get_meter(tx: Tx, meter_key: str) -> Meter:
    """Read a meter by key; raises NotFoundError."""
    meter = find_meter(tx, meter_key)
    if meter is None:
        raise NotFoundError("meter", meter_key)
    return meter


def get_meter_by_id(tx: Tx, meter_id: int) -> Meter:
    """Read a meter by its number; raises NotFoundError."""
    query = _select().where(meters.c.tenant_id == tx.tenant_id, meters.c.meter_id == meter_id)
    row = tx.conn.execute(query).one_or_none()
    if row is None:
        raise NotFoundError("meter", str(meter_id))
    return _meter(row)


def served_revision(meter: Meter) -> int:
    """Give the revision to query; raises PreconditionError (METER_BUILDING)."""
    if meter.revision_id is None:
        build = meter.build
        progress = f" ({build.done} of {build.total} segments)" if build else ""
        message = (
            f"meter {meter.meter_key!r} is being built from history{progress}: try again when it is ACTIVE"
        )
        raise PreconditionError(message, reason="METER_BUILDING")
    return meter.revision_id


def page(tx: Tx, after: str, limit: int) -> list[Meter]:
    """Read meters by key, those after `after`."""
    query = (
        _select()
        .where(meters.c.tenant_id == tx.tenant_id, meters.c.meter_key > after)
        .order_by(meters.c.meter_key)
        .limit(limit)
    )
    return [_meter(row) for row in tx.conn.execute(query)]


def insert(tx: Tx, meter: Meter, now: datetime) -> int:
    """Add a meter with a first revision to build; returns the meter's number."""
    values = {
        "tenant_id": tx.tenant_id,
        "meter_key": meter.meter_key,
        "name": meter.name,
        "description": meter.description,
        "event_type": meter.event_type,
        "aggregation": meter.aggregation,
        "value_property": meter.value_property,
        "filters": [
            {"property": f.property, "operator": f.operator, "values": list(f.values)} for f in meter.filters
        ],
        "version": 1,
        "create_time": now,
        "update_time": now,
    }
    meter_id: int = tx.conn.execute(
        sa.insert(meters).values(values).returning(meters.c.meter_id)
    ).scalar_one()
    insert_revision(tx, meter_id, meter.dimensions)
    return meter_id


def insert_revision(tx: Tx, meter_id: int, dimensions: Sequence[str]) -> None:
    """Add a revision to build."""
    values = {
        "tenant_id": tx.tenant_id,
        "meter_id": meter_id,
        "dimensions": list(dimensions),
        "state": "building",
        "build_done": 0,
        "build_total": 0,
        "skipped_count": 0,
        "skipped_events": [],
    }
    tx.conn.execute(sa.insert(meter_revisions).values(values))


def update(tx: Tx, meter: Meter, name: str, description: str, now: datetime) -> bool:
    """Change name and description; False if the version is not that of `meter` any more."""
    change = (
        sa.update(meters)
        .where(
            meters.c.tenant_id == tx.tenant_id,
            meters.c.meter_id == meter.meter_id,
            meters.c.version == meter.version,
        )
        .values(name=name, description=description, version=meter.version + 1, update_time=now)
    )
    return tx.conn.execute(change).rowcount == 1


def using_features(tx: Tx, meter: Meter) -> list[str]:
    """List the features that use a meter, by key."""
    query = (
        sa.select(features.c.feature_key)
        .where(features.c.tenant_id == tx.tenant_id, features.c.meter_id == meter.meter_id)
        .order_by(features.c.feature_key)
    )
    return list(tx.conn.execute(query).scalars())


def delete(tx: Tx, meter: Meter) -> None:
    """Delete a meter with its revisions and their blocks."""
    tx.conn.execute(
        sa.delete(meters).where(meters.c.tenant_id == tx.tenant_id, meters.c.meter_id == meter.meter_id)
    )


def all_revisions(conn: Connection) -> list[StoredRevision]:
    """Read every revision of every tenant (engine role)."""
    query = sa.select(meters, meter_revisions).join(
        meter_revisions,
        sa.and_(
            meter_revisions.c.tenant_id == meters.c.tenant_id,
            meter_revisions.c.meter_id == meters.c.meter_id,
        ),
    )
    found = []
    for row in conn.execute(query).mappings():
        meter = Meter(
            meter_key=row[meters.c.meter_key],
            name=row[meters.c.name],
            description=row[meters.c.description],
            event_type=row[meters.c.event_type],
            aggregation=row[meters.c.aggregation],
            value_property=row[meters.c.value_property],
            dimensions=tuple(row[meter_revisions.c.dimensions]),
            filters=_filters(row[meters.c.filters]),
            meter_id=row[meters.c.meter_id],
        )
        tenant_id = row[meters.c.tenant_id]
        revision_id = row[meter_revisions.c.revision_id]
        state, built = row[meter_revisions.c.state], row[meter_revisions.c.build_total]
        found.append(StoredRevision(tenant_id, revision_id, state, meter, built))
    return found


def existing_revisions(conn: Connection, wanted: Sequence[int]) -> set[int]:
    """Tell which revisions are still there, and keep them there until commit (engine role)."""
    query = (
        sa.select(meter_revisions.c.revision_id)
        .where(meter_revisions.c.revision_id.in_(wanted))
        .with_for_update(read=True, key_share=True)
    )
    return set(conn.execute(query).scalars())


def revision_state(conn: Connection, tenant_id: int, revision_id: int) -> str | None:
    """Read "building" or "active" (engine role); None if the revision is gone."""
    query = sa.select(meter_revisions.c.state).where(
        meter_revisions.c.tenant_id == tenant_id, meter_revisions.c.revision_id == revision_id
    )
    state: str | None = conn.execute(query).scalar_one_or_none()
    return state


def report_build(conn: Connection, tenant_id: int, revision_id: int, done: int, total: int) -> bool:
    """Record a build's progress (engine role); False if the revision is gone."""
    change = (
        sa.update(meter_revisions)
        .where(meter_revisions.c.tenant_id == tenant_id, meter_revisions.c.revision_id == revision_id)
        .values(build_done=done, build_total=total)
    )
    return conn.execute(change).rowcount == 1


def activate(
    conn: Connection, tenant_id: int, revision_id: int, skipped_count: int, skipped_events: Sequence[str]
) -> int | None:
    """Serve a built revision instead of the former one (engine role).

    Returns the former one's number; None if there was none. The former one's
    blocks go with it.
    """
    revision = sa.and_(meter_revisions.c.tenant_id == tenant_id, meter_revisions.c.revision_id == revision_id)
    meter_id = sa.select(meter_revisions.c.meter_id).where(revision).scalar_subquery()
    former: int | None = conn.execute(
        sa.delete(meter_revisions)
        .where(
            meter_revisions.c.tenant_id == tenant_id,
            meter_revisions.c.meter_id == meter_id,
            meter_revisions.c.state == "active",
        )
        .returning(meter_revisions.c.revision_id)
    ).scalar_one_or_none()
    # Events may hold NUL, Postgres' texts cannot.
    shown = [event.replace("\0", "\\0") for event in skipped_events]
    conn.execute(
        sa.update(meter_revisions)
        .where(revision)
        .values(state="active", skipped_count=skipped_count, skipped_events=shown)
    )
    return former


def forget_blocks(conn: Connection, tenant_id: int, revision_id: int, least_level: int) -> None:
    """Delete the blocks of a revision being built, from a level upwards (engine role).

    Builds write at level 1 and checkpoints at level 0; nothing is merged
    before the revision is active.
    """
    conn.execute(
        sa.delete(blocks).where(
            blocks.c.tenant_id == tenant_id,
            blocks.c.revision_id == revision_id,
            blocks.c.level >= least_level,
        )
    )
