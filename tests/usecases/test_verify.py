"""History cannot be edited unseen: whatever changes in the rows, verify says so and says where."""

import json
import os
import random
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psycopg
import pytest

from ammeter.store.chain import BlockRow
from ammeter.store.db import Database
from ammeter.usecases.verify import Chain, Derived, Fault, verify
from tests.usecases.history import EPOCH, KEY, NOW_US, History, new_history, packed, put_history


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


def test_a_fault_in_a_pack_names_the_segment(rng: random.Random) -> None:
    history = packed(new_history(rng), 2, 6)
    pack = history.segments[1]
    assert pack.parts is not None
    parts = bytearray(pack.parts)
    parts[2 * 48 + 8] ^= 1  # of position 4, when it was recorded
    (fault, *_) = _faults(
        history._replace(
            segments=[history.segments[0], pack._replace(parts=bytes(parts)), *history.segments[2:]]
        )
    )
    assert (fault.position, fault.what[:18]) == (4, "the digest differs")
    short = pack._replace(first_position=3, parts=pack.parts[48:])
    found = _faults(history._replace(segments=[history.segments[0], short, *history.segments[2:]]))
    assert str(found[0]) == "tenant 1, position 2: missing"


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
    "first_position": ">q",
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
    there = [at for at, row in enumerate(rows) if getattr(row, column) is not None]
    if not there:
        return _edit(rng, history)
    at = rng.choice(there)
    new = [*rows[:at], _edited(rng, rows[at], column), *rows[at + 1 :]]
    changed: Any = new[0] if name == "head" else new
    edited = history._replace(**{name: changed})
    if column == "position" and name == "segments":
        edited.segments.sort(key=lambda row: row.position)
    return f"{name}.{column} of row {at}", edited


def _prove_edits_found(rng: random.Random, edits: int) -> None:
    for round_ in range(0, edits, 100):
        history = new_history(rng)
        # Every other one has packs, and one of those is a pack of packs.
        if round_ % 200:
            history = packed(packed(packed(history, 1, 2), 3, 4), 1, 4)
            history = packed(history, 6, 8)
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
    history = new_history(rng)
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


@pytest.fixture(scope="module")
def stored(database_url: str) -> tuple[str, int]:
    return database_url, put_history(database_url, random.Random(7))  # noqa: S311


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
