"""History cannot be edited unseen: whatever changes in the rows, verify says so and says where."""

import json
import os
import random
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pytest

from ammeter.domain.meter import Meter
from ammeter.store import blocks, segments
from ammeter.store.chain import BlockRow, HeadRow, SegmentRow
from ammeter.store.db import Database
from ammeter.store.meters import StoredRevision
from ammeter.usecases.engine import Engine
from ammeter.usecases.meters import spec_of
from ammeter.usecases.verify import Chain, Derived, Fault, verify
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


def _history(rng: random.Random, tenant_id: int = 1, key: bytes = KEY) -> History:
    """Eight segments, blocks up to the sixth, from three checkpoints."""
    engine = _engine(tenant_id, key)
    revisions = _meters(tenant_id)
    for one in revisions:
        engine.put_meter(tenant_id, spec_of(one.meter, one.revision_id, one.meter.dimensions))
    rows: list[SegmentRow] = []
    stored: list[BlockRow] = []
    for number in range(1, 9):
        # Some are too small to compress.
        engine.admit(tenant_id, _body(rng, number, rng.choice((1, 2, 30))), NOW_US)
        group = engine.seal(NOW_US + number)
        assert group is not None
        (new,) = group.segments
        columns = {name: getattr(new, name) for name in SegmentRow._fields[3:]}
        rows.append(SegmentRow(tenant_id, new.position, EPOCH, **columns))
        engine.fold(group)
        if number in (2, 5, 6):
            for block in engine.freeze().blocks:
                fields = (block.subject_min, block.subject_max, block.row_count, block.payload)
                stored.append(BlockRow(tenant_id, block.meter, block.day, *fields))
    return History(rows, HeadRow(tenant_id, 8, rows[-1].digest), stored, 6, revisions)


def _faults(history: History, tenant_id: int = 1) -> list[Fault]:
    """What verify does, without a database."""
    links = Chain(tenant_id, EPOCH)
    derived = Derived(tenant_id, KEY, history.checkpoint, history.revisions)
    found: list[Fault] = []
    for row in history.segments:
        found += links.check(row)
        derived.add(row)
    found += links.finish(history.head)
    there: dict[tuple[int, int], list[BlockRow]] = {}
    for block in history.blocks:
        there.setdefault((block.revision_id, block.day), []).append(block)
    for revision_id, day in sorted(derived.finish() | there.keys()):
        found += derived.compare(revision_id, day, there.get((revision_id, day), []))
    return found


# How Postgres keeps them: an edit changes one byte of this.
_FORMATS = {
    "tenant_id": ">i",
    "position": ">q",
    "event_count": ">i",
    "min_time_us": ">q",
    "max_time_us": ">q",
    "recorded_us": ">q",
    "codec": ">h",
    "raw_bytes": ">i",
    "revision_id": ">i",
    "day": ">i",
    "row_count": ">i",
}


def _flip(rng: random.Random, data: bytes) -> bytes:
    at = rng.randrange(len(data))
    return data[:at] + bytes([data[at] ^ rng.randrange(1, 256)]) + data[at + 1 :]


def _edited(rng: random.Random, row: Any, column: str) -> Any:  # noqa: ANN401 - any of the three rows
    value = getattr(row, column)
    if isinstance(value, bytes):
        return row._replace(**{column: _flip(rng, value)})
    layout = _FORMATS[column]
    (new,) = struct.unpack(layout, _flip(rng, struct.pack(layout, value)))
    return row._replace(**{column: new})


def _edit(rng: random.Random, history: History) -> tuple[str, History]:
    """Change one byte of one column of one row, each column as likely as any other."""
    tables: list[tuple[str, Sequence[Any]]] = [
        ("segments", history.segments),
        ("head", [history.head]),
        ("blocks", history.blocks),
    ]
    # Which process wrote a segment is no part of its content: only its order is checked.
    columns = [
        (name, rows, column) for name, rows in tables for column in rows[0]._fields if column != "epoch"
    ]
    name, rows, column = rng.choice(columns)
    at = rng.randrange(len(rows))
    new = [*rows[:at], _edited(rng, rows[at], column), *rows[at + 1 :]]
    changed: Any = new[0] if name == "head" else new
    edited = history._replace(**{name: changed})
    if column == "position" and name == "segments":
        edited.segments.sort(key=lambda row: row.position)
    return f"{name}.{column} of row {at}", edited


def _prove_edits_found(rng: random.Random, edits: int) -> None:
    for round_ in range(0, edits, 100):
        history = _history(rng)
        assert _faults(history) == []
        for _ in range(min(100, edits - round_)):
            what, edited = _edit(rng, history)
            assert _faults(edited), f"{what} was changed unseen"


def test_five_hundred_changed_bytes_are_all_found(rng: random.Random) -> None:
    _prove_edits_found(rng, 500)


@pytest.mark.long
def test_ten_thousand_changed_bytes_are_all_found(rng: random.Random) -> None:
    _prove_edits_found(rng, 10_000)
    print("10,000 random single-byte edits: all found")  # noqa: T201 - the figure to publish


def test_a_fault_names_its_place(rng: random.Random) -> None:
    history = _history(rng)
    rows = history.segments
    lost = history._replace(segments=rows[:3] + rows[4:])
    assert str(_faults(lost)[0]) == "tenant 1, position 4: missing"
    changed = rows[3]._replace(recorded_us=NOW_US)
    (fault,) = _faults(history._replace(segments=[*rows[:3], changed, *rows[4:]]))
    assert (fault.position, fault.what[:18]) == (4, "the digest differs")
    ended = history._replace(segments=rows[:7])
    assert "position 8: missing" in str(_faults(ended)[0])
    block = history.blocks[0]
    (fault,) = _faults(history._replace(blocks=history.blocks[1:]))
    assert (fault.meter_key, fault.day) == (f"m{block.revision_id}", block.day)
    (fault,) = _faults(history._replace(blocks=[*history.blocks, block]))
    assert (fault.meter_key, fault.day) == (f"m{block.revision_id}", block.day)


# Over real Postgres

_SWAP_SEGMENTS = """
UPDATE segments SET position = CASE position WHEN 3 THEN 4 ELSE 3 END + 100
WHERE tenant_id = %(t)s AND position IN (3, 4);
UPDATE segments SET position = position - 100 WHERE tenant_id = %(t)s AND position > 100
"""
_REPEAT_SEGMENT = """
INSERT INTO segments (tenant_id, position, epoch, event_count, min_time_us, max_time_us, recorded_us,
                      codec, raw_bytes, digest, payload)
SELECT tenant_id, 9, epoch, event_count, min_time_us, max_time_us, recorded_us,
       codec, raw_bytes, digest, payload
FROM segments WHERE tenant_id = %(t)s AND position = 8
"""
_REPEAT_BLOCK = """
INSERT INTO blocks (tenant_id, revision_id, day, level, run, subject_min, subject_max, row_count, payload)
SELECT tenant_id, revision_id, day, level, run, subject_min, subject_max, row_count, payload
FROM blocks WHERE tenant_id = %(t)s ORDER BY block_id LIMIT 1
"""
_SWAP_BLOCKS = """
WITH one AS (SELECT * FROM blocks WHERE tenant_id = %(t)s ORDER BY block_id LIMIT 1),
other AS (
  SELECT b.* FROM blocks b, one
  WHERE b.tenant_id = %(t)s AND b.revision_id <> one.revision_id ORDER BY b.block_id LIMIT 1
)
UPDATE blocks b
SET revision_id = CASE WHEN b.block_id = one.block_id THEN other.revision_id ELSE one.revision_id END
FROM one, other WHERE b.block_id IN (one.block_id, other.block_id)
"""
_DAMAGE = {
    "a dropped segment": (
        "DELETE FROM segments WHERE tenant_id = %(t)s AND position = 3",
        "position 3: missing",
    ),
    "a dropped last segment": (
        "DELETE FROM segments WHERE tenant_id = %(t)s AND position = 8",
        "position 8: missing",
    ),
    "swapped segments": (_SWAP_SEGMENTS, "position 3: the digest differs"),
    "a segment twice": (_REPEAT_SEGMENT, "position 9: surplus"),
    "a head set back": ("UPDATE heads SET position = 7 WHERE tenant_id = %(t)s", "position 8: surplus"),
    "a dropped head": ("DELETE FROM heads WHERE tenant_id = %(t)s", "the head's row is missing"),
    "a dropped block": (
        "DELETE FROM blocks WHERE block_id = (SELECT min(block_id) FROM blocks WHERE tenant_id = %(t)s)",
        "day ",
    ),
    "a block twice": (_REPEAT_BLOCK, "the windows differ"),
    "swapped blocks": (_SWAP_BLOCKS, "a block was edited"),
    "a checkpoint set ahead": (
        "UPDATE checkpoints SET position = 8 WHERE tenant_id = %(t)s",
        "the windows differ",
    ),
}


def _store(url: str, rng: random.Random) -> int:
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
    history = _history(rng, tenant_id, key)
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


@pytest.fixture(scope="module")
def stored(database_url: str) -> tuple[str, int]:
    return database_url, _store(database_url, random.Random(7))  # noqa: S311


@pytest.mark.parametrize("damage", sorted(_DAMAGE))
def test_damage_in_the_database_is_found(damage: str, stored: tuple[str, int]) -> None:
    url, tenant_id = stored
    db = Database(url)
    assert verify(db).faults == []
    statement, expected = _DAMAGE[damage]
    with psycopg.connect(url) as owner:
        backup = ("segments", "heads", "blocks", "checkpoints")
        for table in backup:
            owner.execute(f"CREATE TABLE kept_{table} AS TABLE {table}".encode())
        for part in statement.split(";"):
            owner.execute(part.encode(), {"t": tenant_id})
    try:
        report = verify(db, tenant_id)
        assert any(expected in str(fault) for fault in report.faults), [str(fault) for fault in report.faults]
        assert all(fault.tenant_id == tenant_id for fault in report.faults)
    finally:
        with psycopg.connect(url) as owner:
            for table in backup:
                owner.execute(f"DELETE FROM {table}".encode())
                kept = "OVERRIDING SYSTEM VALUE" if table == "blocks" else ""
                owner.execute(f"INSERT INTO {table} {kept} TABLE kept_{table}".encode())
                owner.execute(f"DROP TABLE kept_{table}".encode())
        db.close()


def test_the_verb_says_yes_and_no(stored: tuple[str, int], tmp_path: Path) -> None:
    url, tenant_id = stored

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"AMMETER_DATABASE_URL": url, "AMMETER_DATA_DIR": str(tmp_path)}
        command = [sys.executable, "-m", "ammeter.cli", "verify", "--json", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    good = run()
    assert (good.returncode, json.loads(good.stdout)["faults"]) == (0, 0), good.stderr
    change = "UPDATE segments SET recorded_us = recorded_us + %s WHERE tenant_id = %s AND position = 5"
    with psycopg.connect(url, autocommit=True) as owner:
        owner.execute(change.encode(), [1, tenant_id])
        bad = run()
        owner.execute(change.encode(), [-1, tenant_id])
    assert bad.returncode == 1
    assert "position 5: the digest differs" in bad.stderr
    assert run("--tenant", "nobody").returncode == 1
