"""A short history of one tenant as rows, in memory and in a database."""

import random
from typing import NamedTuple

import psycopg

from ammeter.domain.meter import Meter
from ammeter.store import blocks, segments
from ammeter.store.chain import BlockRow, HeadRow, SegmentRow
from ammeter.store.db import Database
from ammeter.store.meters import StoredRevision
from ammeter.store.segments import StoredSegment
from ammeter.usecases.engine import Engine, pack_segments
from ammeter.usecases.meters import spec_of
from tests.model import Event
from tests.native.encoding import event_bytes, request_bytes

KEY = b"sixteen secrets!"
NOW_US = 1_790_000_000_000_000
EPOCH = 3
AGGREGATIONS = ("COUNT", "SUM", "UNIQUE_COUNT", "LATEST")


class History(NamedTuple):
    """All rows of one tenant."""

    segments: list[SegmentRow]
    head: HeadRow
    blocks: list[BlockRow]
    checkpoint: int
    revisions: list[StoredRevision]


def _meters(tenant_id: int) -> list[StoredRevision]:
    found = []
    for number, aggregation in enumerate(AGGREGATIONS, 1):
        meter = Meter(
            meter_key=f"m{number}",
            name="",
            description="",
            event_type="t",
            aggregation=aggregation,
            value_property="" if aggregation == "COUNT" else "v",
            dimensions=("d",),
            filters=(),
            meter_id=number,
        )
        found.append(StoredRevision(tenant_id, number, "active", meter, built=0))
    return found


def _engine(tenant_id: int, key: bytes) -> Engine:
    engine = Engine(
        hash_key=key, horizon_past_seconds=35 * 86_400, horizon_future_seconds=300, max_pending_bytes=1 << 28
    )
    engine.open_tenant(tenant_id, 0, bytes(32))
    return engine


def _body(rng: random.Random, number: int, count: int) -> bytes:
    seconds = NOW_US // 1_000_000
    events = (
        Event(
            f"{number}-{n}",
            "src",
            "t",
            rng.choice("abc"),
            (seconds - rng.randrange(200_000), 0),
            {"v": str(rng.randrange(50)), "d": rng.choice("xy")},
        )
        for n in range(count)
    )
    return request_bytes(event_bytes(event) for event in events)


def new_history(rng: random.Random, tenant_id: int = 1, key: bytes = KEY, count: int = 8) -> History:
    """Eight segments or more, blocks up to the sixth, from three checkpoints."""
    engine = _engine(tenant_id, key)
    revisions = _meters(tenant_id)
    for one in revisions:
        engine.put_meter(tenant_id, spec_of(one.meter, one.revision_id, one.meter.dimensions))
    rows: list[SegmentRow] = []
    stored: list[BlockRow] = []
    for number in range(1, count + 1):
        # Some are too small to compress.
        engine.admit(tenant_id, _body(rng, number, rng.choice((1, 2, 30))), NOW_US)
        group = engine.seal(NOW_US + number)
        assert group is not None
        (new,) = group.segments
        columns = {name: getattr(new, name) for name in SegmentRow._fields[3:-2]}
        rows.append(SegmentRow(tenant_id, new.position, EPOCH, **columns))
        engine.fold(group)
        if number in (2, 5, 6):
            for block in engine.freeze().blocks:
                fields = (block.subject_min, block.subject_max, block.row_count, block.payload)
                stored.append(BlockRow(tenant_id, block.meter, block.day, *fields))
    return History(rows, HeadRow(tenant_id, count, rows[-1].digest), stored, 6, revisions)


def packed(history: History, first: int, last: int) -> History:
    """The same history with one pack for its segments from first to last, which are rows by now."""
    before = [row for row in history.segments if row.position < first]
    old = [row for row in history.segments if first <= row.first and row.position <= last]
    after = [row for row in history.segments if row.first > last]
    digest = before[-1].digest if before else bytes(32)
    rows = [StoredSegment(*(getattr(row, name) for name in StoredSegment._fields)) for row in old]
    pack = pack_segments(digest, old[0].tenant_id, rows)
    new = SegmentRow(
        old[0].tenant_id,
        last,
        EPOCH,
        pack.event_count,
        min(row.min_time_us for row in old),
        max(row.max_time_us for row in old),
        pack.recorded_us,
        pack.codec,
        pack.raw_bytes,
        pack.digest,
        pack.payload,
        first,
        pack.parts,
    )
    return history._replace(segments=[*before, new, *after])


def put_history(url: str, rng: random.Random, count: int = 8) -> int:
    """Write a history through the doors that the server uses; returns the tenant."""
    db = Database(url)
    owner = psycopg.connect(url, autocommit=True)
    with db.engine() as conn:
        key = segments.hash_key(conn)
    row = owner.execute(
        "INSERT INTO tenants (tenant_key) VALUES (md5(random()::text)) RETURNING tenant_id"
    ).fetchone()
    assert row is not None
    tenant_id = int(row[0])
    owner.execute("UPDATE writer SET epoch = %s", [EPOCH])
    history = new_history(rng, tenant_id, key, count)
    for one in history.revisions:
        made = owner.execute(
            "INSERT INTO meters (tenant_id, meter_key, name, description, event_type, aggregation,"
            " value_property, filters) VALUES (%s, %s, '', '', 't', %s, %s, '[]') RETURNING meter_id",
            [tenant_id, one.meter.meter_key, one.meter.aggregation, one.meter.value_property],
        ).fetchone()
        assert made is not None
        owner.execute(
            "INSERT INTO meter_revisions (tenant_id, revision_id, meter_id, dimensions, state) "
            "OVERRIDING SYSTEM VALUE VALUES (%s, %s, %s, '{d}', 'active')",
            [tenant_id, one.revision_id, made[0]],
        )
    with db.engine() as conn:
        segments.tenant_states(conn)  # makes the head's row
    raw = db.raw()
    for row_ in history.segments:
        new = _Appended(tenant_id, *[getattr(row_, name) for name in _Appended._fields[1:]])
        assert segments.append(raw, EPOCH, [new])
    raw.close()
    with db.engine() as conn:
        stored = [_Block(one.tenant_id, one.revision_id, *one[2:]) for one in history.blocks]
        blocks.insert(conn, stored, level=0, run=1)
        blocks.move_checkpoints(conn, [(tenant_id, history.checkpoint)])
    owner.close()
    db.close()
    return tenant_id


class _Appended(NamedTuple):
    tenant: int
    position: int
    event_count: int
    min_time_us: int
    max_time_us: int
    recorded_us: int
    codec: int
    raw_bytes: int
    digest: bytes
    payload: bytes


class _Block(NamedTuple):
    tenant: int
    meter: int
    day: int
    subject_min: bytes
    subject_max: bytes
    row_count: int
    payload: bytes
