"""Create, change and delete meters, and build them from history."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial

import structlog

from ammeter import faults
from ammeter.domain.meter import Meter, check_added_dimensions, check_meter
from ammeter.errors import (
    AlreadyExistsError,
    ConflictError,
    InvalidInputError,
    PreconditionError,
    Violation,
)
from ammeter.store import blocks, segments
from ammeter.store import meters as store
from ammeter.store.db import Database, Tx
from ammeter.usecases.engine import Engine, MeterBuilder, MeterSpec

UPDATABLE = ("name", "description", "dimensions")
_MAX_BUILD_ROWS = 500_000
_POLL_SECONDS = 0.02
_BUILD_LEVEL = 1

_log = structlog.get_logger()


@dataclass(frozen=True)
class BuildJob:
    """A revision to build from the segments up to `barrier`."""

    tenant_id: int
    meter_id: int
    revision_id: int
    spec: MeterSpec
    barrier: int


def spec_of(meter: Meter, revision_id: int, dimensions: Sequence[str]) -> MeterSpec:
    """Compile a revision for the core."""
    return MeterSpec(
        revision_id,
        meter.meter_key,
        meter.event_type,
        meter.aggregation,
        meter.value_property,
        dimensions,
        [(f.property, f.operator, f.values) for f in meter.filters],
    )


class MeterShop:
    """Changes meters in the database and, once that is durable, in the core."""

    def __init__(self, engine: Engine, enqueue: Callable[[BuildJob], None], started: set[int]) -> None:
        """Take where builds are queued, and the revisions that the core knows already."""
        self._engine = engine
        self._enqueue = enqueue
        self._started = started
        self._lock = threading.Lock()

    def create(self, tx: Tx, meter: Meter, now: datetime) -> Meter:
        """Create a meter; its build begins when the transaction commits."""
        check_meter(meter)
        if store.find_meter(tx, meter.meter_key) is not None:
            message = f"meter {meter.meter_key!r} is there already: choose another key"
            raise AlreadyExistsError(message, field="meter.meter_key")
        store.insert(tx, meter, now)
        return self._begin(tx, meter.meter_key)

    def _begin(self, tx: Tx, meter_key: str) -> Meter:
        meter = store.get_meter(tx, meter_key)
        build = meter.build
        if build is not None:
            revision = store.StoredRevision(
                tx.tenant_id,
                build.revision_id,
                "building",
                replace(meter, dimensions=build.dimensions),
            )
            # A definition that the core refuses must fail before it is stored.
            spec_of(meter, build.revision_id, build.dimensions)
            tx.after_commit.append(partial(self._start, revision))
        return meter

    def _start(self, revision: store.StoredRevision) -> None:
        """Let the core count for a revision, and queue what came before; once."""
        with self._lock:
            if revision.revision_id in self._started:
                return
            self._started.add(revision.revision_id)
            spec = spec_of(revision.meter, revision.revision_id, revision.meter.dimensions)
            barrier = self._engine.put_meter(revision.tenant_id, spec)
        job = BuildJob(revision.tenant_id, revision.meter.meter_id, revision.revision_id, spec, barrier)
        self._enqueue(job)

    def catch_up(self, db: Database) -> None:
        """Start the builds of commits whose outcome nobody was told, because the connection broke."""
        with db.engine() as conn:
            revisions = store.all_revisions(conn)
        for revision in revisions:
            if revision.state == "building":
                self._start(revision)

    def update(self, tx: Tx, changed: Meter, etag: str, mask: Sequence[str], now: datetime) -> Meter:
        """Change what the mask names; new dimensions start a build."""
        unknown = [path for path in mask if path not in UPDATABLE]
        if unknown or not mask:
            why = f"must name one or more of {', '.join(UPDATABLE)}; all else of a meter is immutable"
            raise InvalidInputError([Violation("update_mask", why)])
        meter = store.get_meter(tx, changed.meter_key)
        if etag and etag != meter.etag:
            message = f"meter {meter.meter_key!r} was changed since: read it again (its etag is {meter.etag})"
            raise ConflictError(message)
        wanted = replace(meter, **{path: getattr(changed, path) for path in mask})
        check_meter(wanted)
        if not store.update(tx, meter, wanted.name, wanted.description, now):
            message = f"meter {meter.meter_key!r} was changed at the same time: read it again"
            raise ConflictError(message)
        if wanted.dimensions == meter.dimensions:
            return store.get_meter(tx, meter.meter_key)
        check_added_dimensions(meter.dimensions, wanted.dimensions)
        if meter.build is not None:
            message = f"meter {meter.meter_key!r} is being built: append dimensions when that is done"
            raise PreconditionError(message, reason="METER_BUILDING")
        store.insert_revision(tx, meter.meter_id, wanted.dimensions)
        return self._begin(tx, meter.meter_key)

    def delete(self, tx: Tx, meter_key: str, etag: str) -> None:
        """Delete a meter that no feature uses."""
        meter = store.get_meter(tx, meter_key)
        if etag and etag != meter.etag:
            message = f"meter {meter_key!r} was changed since: read it again (its etag is {meter.etag})"
            raise ConflictError(message)
        features = store.using_features(tx, meter)
        if features:
            message = f"meter {meter_key!r} is used by feature {', '.join(features)}: delete that first"
            raise PreconditionError(message, reason="IN_USE")
        store.delete(tx, meter)
        revisions = [meter.revision_id, meter.build.revision_id if meter.build else None]
        for revision in revisions:
            if revision is not None:
                tx.after_commit.append(partial(self._engine.drop_meter, tx.tenant_id, revision))


def build_meter(
    db: Database, engine: Engine, hash_key: bytes, job: BuildJob, stopping: threading.Event
) -> bool:
    """Read history and serve the revision; False if stopped, or if the meter is gone.

    Blocks written by an earlier, interrupted try are dropped first; those of
    checkpoints, which hold what came after the barrier, are not.
    """
    if not _wait_until_durable(engine, job, stopping):
        return False
    with db.engine() as conn:
        state = store.revision_state(conn, job.tenant_id, job.revision_id)
        if state != "building":
            # Active: an earlier try ended well, and only its end was not heard of.
            return state is not None
        store.forget_blocks(conn, job.tenant_id, job.revision_id, _BUILD_LEVEL)
    faults.reach("build.begun")
    builder = MeterBuilder(hash_key, job.tenant_id, job.spec)
    raw = db.raw()
    try:
        done = 0
        for batch in segments.read(raw, job.tenant_id, 0, job.barrier):
            for segment in batch:
                builder.add(
                    segment.position,
                    segment.codec,
                    segment.payload,
                    segment.raw_bytes,
                    segment.parts,
                    job.barrier,
                )
            done = min(batch[-1].position, job.barrier)
            if stopping.is_set() or not _report(db, builder, job, done):
                return False
    finally:
        raw.close()
    return _serve(db, engine, builder, job)


def _wait_until_durable(engine: Engine, job: BuildJob, stopping: threading.Event) -> bool:
    while engine.position(job.tenant_id) < job.barrier:
        if stopping.wait(_POLL_SECONDS):
            return False
    return True


def _report(db: Database, builder: MeterBuilder, job: BuildJob, done: int) -> bool:
    with db.engine() as conn:
        known = store.report_build(conn, job.tenant_id, job.revision_id, done, job.barrier)
        if known and builder.row_count > _MAX_BUILD_ROWS:
            blocks.insert(conn, builder.take_blocks(), level=_BUILD_LEVEL, run=done)
        return known


def _serve(db: Database, engine: Engine, builder: MeterBuilder, job: BuildJob) -> bool:
    faults.reach("activate.before")
    with db.engine() as conn:
        if not store.report_build(conn, job.tenant_id, job.revision_id, job.barrier, job.barrier):
            return False
        blocks.insert(conn, builder.take_blocks(), level=_BUILD_LEVEL, run=job.barrier)
        former = store.activate(
            conn, job.tenant_id, job.revision_id, builder.skipped_count, builder.skipped_events
        )
        faults.reach("activate.inserted")
    faults.reach("activate.after")
    if former is not None:
        engine.drop_meter(job.tenant_id, former)
    _log.info(
        "meter built",
        tenant_id=job.tenant_id,
        revision_id=job.revision_id,
        segments=job.barrier,
        skipped=builder.skipped_count,
    )
    return True
