"""Bring a new engine to where the database says the tenants stand."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import structlog

from ammeter import metrics
from ammeter.errors import InternalError
from ammeter.store import meters, segments
from ammeter.store.db import Database
from ammeter.store.meters import StoredRevision
from ammeter.store.segments import TenantState
from ammeter.usecases.engine import Engine, MeterSpec
from ammeter.usecases.meters import BuildJob, spec_of

_log = structlog.get_logger()

# Clocks of writers before this one may have been a little ahead.
_CLOCK_SLACK = timedelta(days=1)


@dataclass(frozen=True)
class EngineOptions:
    """What an engine is made with; see Engine."""

    horizon_past_seconds: int
    horizon_future_seconds: int
    max_pending_bytes: int
    codec: int


@dataclass(frozen=True)
class Recovered:
    """An engine that stands where the database does, and what is left to build."""

    engine: Engine
    hash_key: bytes
    tenant_ids: set[int]
    revision_ids: set[int]
    builds: list[BuildJob]
    event_count: int
    seconds: float


def recover(db: Database, options: EngineOptions, now_us: int) -> Recovered:
    """Load checkpoints and fold the segments after them; read back identities inside the horizon.

    Only the holder of the writer's lock may call this: nothing else appends.
    Raises InternalError when the chain does not verify.
    """
    started = time.monotonic()
    with db.engine() as conn:
        hash_key = segments.hash_key(conn)
        states = segments.tenant_states(conn)
        revisions = meters.all_revisions(conn)
    engine = Engine(
        hash_key=hash_key,
        horizon_past_seconds=options.horizon_past_seconds,
        horizon_future_seconds=options.horizon_future_seconds,
        max_pending_bytes=options.max_pending_bytes,
        codec=options.codec,
    )
    checkpoints = {state.tenant_id: state.checkpoint for state in states}
    remembered = options.horizon_past_seconds + options.horizon_future_seconds
    since_us = now_us - (remembered + int(_CLOCK_SLACK.total_seconds())) * 1_000_000
    firsts = {state.tenant_id: _open_tenant(db, engine, state, since_us) for state in states}
    builds = _put_meters(db, engine, revisions, checkpoints)
    ahead = [one for one in revisions if one.state == "active" and one.built > checkpoints[one.tenant_id]]
    count = 0
    for state in states:
        own = [one for one in ahead if one.tenant_id == state.tenant_id]
        count += _replay(db, engine, state, *firsts[state.tenant_id], own, now_us)
    seconds = time.monotonic() - started
    metrics.RECOVERY_SECONDS.set(seconds)
    metrics.RECOVERED_EVENTS.set(count)
    _log.info("recovered", tenants=len(states), events=count, seconds=round(seconds, 3), builds=len(builds))
    return Recovered(
        engine,
        hash_key,
        set(checkpoints),
        {revision.revision_id for revision in revisions},
        builds,
        count,
        seconds,
    )


def _open_tenant(db: Database, engine: Engine, state: TenantState, since_us: int) -> tuple[int, int]:
    """Open a tenant just before what has to be read back.

    Returns the positions before the first to read, and before the first whose
    identities matter.
    """
    with db.engine() as conn:
        first = segments.first_recorded_since(conn, state.tenant_id, since_us)
        identities_after = state.head if first is None else first - 1
        after = min(state.checkpoint, identities_after)
        engine.open_tenant(state.tenant_id, after, segments.digest_at(conn, state.tenant_id, after))
    return after, identities_after


def _put_meters(
    db: Database, engine: Engine, revisions: Sequence[StoredRevision], checkpoints: dict[int, int]
) -> list[BuildJob]:
    """Put all meters but those that are built beyond the checkpoint; returns what to build, from scratch."""
    builds = []
    for revision in revisions:
        checkpoint = checkpoints[revision.tenant_id]
        if revision.state == "building":
            with db.engine() as conn:
                meters.forget_blocks(conn, revision.tenant_id, revision.revision_id, 0)
            spec = _put_meter(engine, revision)
            meter_id, revision_id = revision.meter.meter_id, revision.revision_id
            builds.append(BuildJob(revision.tenant_id, meter_id, revision_id, spec, checkpoint))
        elif revision.built <= checkpoint:
            _put_meter(engine, revision)
    return builds


def _put_meter(engine: Engine, revision: StoredRevision) -> MeterSpec:
    spec = spec_of(revision.meter, revision.revision_id, revision.meter.dimensions)
    engine.put_meter(revision.tenant_id, spec)
    return spec


def _replay(
    db: Database,
    engine: Engine,
    state: TenantState,
    after: int,
    identities_after: int,
    ahead: Sequence[StoredRevision],
    now_us: int,
) -> int:
    """Read back a tenant's segments; a meter of `ahead` counts those after what it is built up to."""
    raw = db.raw()
    count = 0
    last = after
    try:
        for batch in segments.read(raw, state.tenant_id, after, state.head):
            for segment in batch:
                for revision in ahead:
                    if revision.built == segment.position - 1:
                        _put_meter(engine, revision)
                engine.replay(
                    state.tenant_id,
                    segment.position,
                    segment.codec,
                    segment.payload,
                    segment.raw_bytes,
                    segment.event_count,
                    segment.recorded_us,
                    segment.digest,
                    segment.position > state.checkpoint,
                    segment.position > identities_after,
                    now_us,
                )
                count += segment.event_count
                last = segment.position
    finally:
        raw.close()
    if last != state.head:
        message = f"tenant {state.tenant_id}: the head says position {state.head}, the last segment is {last}"
        raise InternalError(message)
    for revision in ahead:
        if revision.built == state.head:
            _put_meter(engine, revision)
    return count


def open_new_tenants(db: Database, engine: Engine, known: set[int]) -> set[int]:
    """Make tenants known that were created since; returns all that are known now."""
    with db.engine() as conn:
        states = segments.tenant_states(conn)
    for state in states:
        if state.tenant_id not in known:
            engine.open_tenant(state.tenant_id, state.head, state.head_digest)
    return known | {state.tenant_id for state in states}
