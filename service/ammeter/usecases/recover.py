"""Bring a new engine to where the database says the tenants stand."""

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

import structlog

from ammeter import metrics
from ammeter.store import meters, segments
from ammeter.store.db import Database
from ammeter.store.meters import StoredRevision
from ammeter.store.segments import TenantState
from ammeter.usecases.engine import Engine, MeterSpec
from ammeter.usecases.follow import EngineOptions, Follower, Reading
from ammeter.usecases.meters import BuildJob, spec_of

_log = structlog.get_logger()


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
    has_runs: bool = False


def recover(db: Database, options: EngineOptions, now_us: int, follower: Follower | None = None) -> Recovered:
    """Load checkpoints and fold the segments after them; read back identities inside the horizon.

    A `follower` that has stood by knows most identities already. Only the
    holder of the writer's lock may call this: nothing else appends. Raises
    InternalError when the chain does not verify.
    """
    started = time.monotonic()
    chain = follower or Follower(db, options)
    with closing(chain):
        with db.engine() as conn:
            states = segments.tenant_states(conn)
            revisions = meters.all_revisions(conn)
        count = sum(chain.follow(state, state.checkpoint, now_us) for state in states)
        checkpoints = {state.tenant_id: state.checkpoint for state in states}
        builds = _put_meters(db, chain.engine, revisions, checkpoints)
        for state in states:
            own = [one for one in revisions if one.tenant_id == state.tenant_id and one.state == "active"]
            ahead = [one for one in own if one.built > state.checkpoint]
            count += _fold(db, chain, state, ahead, now_us)
            chain.engine.settle_identities(state.tenant_id)
    seconds = time.monotonic() - started
    metrics.RECOVERY_SECONDS.set(seconds)
    metrics.RECOVERED_EVENTS.set(count)
    _log.info("recovered", tenants=len(states), events=count, seconds=round(seconds, 3), builds=len(builds))
    return Recovered(
        chain.engine,
        chain.hash_key,
        set(checkpoints),
        {revision.revision_id for revision in revisions},
        builds,
        count,
        seconds,
        options.run_directory is not None,
    )


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


def _fold(
    db: Database, follower: Follower, state: TenantState, ahead: Sequence[StoredRevision], now_us: int
) -> int:
    """Count what came after a tenant's checkpoint; a meter of `ahead`, what came after it was built."""
    with db.engine() as conn:
        digest = segments.digest_at(conn, state.tenant_id, state.checkpoint)
    follower.engine.rewind(state.tenant_id, state.checkpoint, digest)
    count, after = 0, state.checkpoint
    for upto in sorted({state.head, *(revision.built for revision in ahead)}):
        if upto > after:
            count += follower.read(Reading(state.tenant_id, after, upto, fold=True, now_us=now_us))
        for revision in ahead:
            if revision.built == upto:
                _put_meter(follower.engine, revision)
        after = upto
    return count


def open_new_tenants(db: Database, engine: Engine, known: set[int]) -> set[int]:
    """Make tenants known that were created since; returns all that are known now."""
    with db.engine() as conn:
        states = segments.tenant_states(conn)
    for state in states:
        if state.tenant_id not in known:
            engine.open_tenant(state.tenant_id, state.head, state.head_digest)
    return known | {state.tenant_id for state in states}
