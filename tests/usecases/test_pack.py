"""Packing changes rows and nothing else: what is read, counted, found and proven stays as it was."""

import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
import sqlalchemy.exc

from ammeter import faults
from ammeter.errors import UnavailableError
from ammeter.store import blocks, packs, schema, segments
from ammeter.store.db import Database
from ammeter.usecases.engine import Engine, Pack, pack_segments
from ammeter.usecases.events import NEWEST, EventFilter, FoundEvent, find_events
from ammeter.usecases.follow import EngineOptions, Follower
from ammeter.usecases.pack import OldVersionError, Packer
from ammeter.usecases.recover import recover
from ammeter.usecases.verify import verify
from tests.usecases.history import EPOCH, NOW_US, put_history

OPTIONS = EngineOptions(35 * 86_400, 300, 1 << 28, 1)
SEGMENTS = 60
ALL = EventFilter(-(2**62), 2**62, "", "", "", "")


@dataclass
class World:
    """A database with one tenant and its history, all of it below the checkpoint."""

    url: str
    db: Database
    tenant_id: int

    def engine(self) -> Engine:
        return recover(self.db, OPTIONS, NOW_US + 1000).engine

    def rows(self) -> list[tuple[int, int]]:
        with self.db.engine() as conn:
            rows = packs.rows_between(conn, self.tenant_id, 0, 2**40, 1000)
        return [(row.first, row.last) for row in rows]

    def events(self, engine: Engine) -> list[FoundEvent]:
        """All events, a few at a time."""
        found: list[FoundEvent] = []
        before: tuple[int, int] | None = NEWEST
        while before is not None:
            some, before = find_events(self.db, engine, self.tenant_id, ALL, before, 7)
            found += some
        return found

    def pack(self) -> int:
        return Packer(self.db, EPOCH).pack(threading.Event())


class _Forged:
    """A pack that has another digest for its first segment."""

    def __init__(self, pack: Pack) -> None:
        self._pack = pack

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - any column
        return bytes(48) + self._pack.parts[48:] if name == "parts" else getattr(self._pack, name)


def _forge(world: World) -> None:
    with world.db.engine() as conn:
        before = segments.digest_at(conn, world.tenant_id, 4)
        taken = packs.take(conn, world.tenant_id, 5, 6)
        pack = pack_segments(before, world.tenant_id, taken.rows)
        packs.put(conn, world.tenant_id, 5, taken, _Forged(pack))


@pytest.fixture
def world(new_database: object, rng: random.Random) -> Iterator[World]:
    url = new_database()  # type: ignore[operator]
    tenant_id = put_history(url, rng, SEGMENTS)
    db = Database(url)
    with db.engine() as conn:
        blocks.move_checkpoints(conn, [(tenant_id, SEGMENTS)])
    # What the checkpoint says is not in blocks here: these tests read segments.
    yield World(url, db, tenant_id)
    db.close()


def test_events_digests_and_identities_are_what_they_were(world: World) -> None:
    engine = world.engine()
    before = world.events(engine)
    with world.db.engine() as conn:
        digests = [segments.digest_at(conn, world.tenant_id, at) for at in range(SEGMENTS + 1)]
    assert world.pack() == SEGMENTS - 1
    assert world.rows() == [(1, SEGMENTS)]
    with world.db.engine() as conn:
        assert [segments.digest_at(conn, world.tenant_id, at) for at in range(SEGMENTS + 1)] == digests
        assert packs.count(conn) == (SEGMENTS, 1, 1)
    assert world.events(engine) == before
    assert world.events(world.engine()) == before
    assert world.engine().stats()["identities"] == len(before)
    assert world.pack() == 0


def test_one_that_follows_goes_on_in_the_middle_of_a_pack(world: World) -> None:
    follower = Follower(world.db, OPTIONS)
    with world.db.engine() as conn:
        (state,) = segments.tenant_states(conn)
    read = follower.follow(state, 23, NOW_US)
    world.pack()
    read += follower.follow(state, 41, NOW_US)
    read += follower.follow(state, SEGMENTS, NOW_US)
    assert read == follower.engine.stats()["identities"] == len(world.events(follower.engine))
    follower.close()


def test_verify_finds_damage_in_a_pack_as_it_does_in_segments(world: World) -> None:
    def faults_of_segments() -> list[str]:
        return [str(fault) for fault in verify(world.db).faults if fault.position is not None]

    world.pack()
    assert faults_of_segments() == []
    edit = "UPDATE segments SET parts = set_byte(parts, %s, get_byte(parts, %s) # 1)"
    with psycopg.connect(world.url, autocommit=True) as owner:
        at = 11 * 48 + 20  # in the digest of position 12
        owner.execute(edit.encode(), [at, at])
        assert any("position 12: the digest differs" in fault for fault in faults_of_segments())
        owner.execute(edit.encode(), [at, at])
        assert faults_of_segments() == []


def test_an_edited_segment_keeps_its_row_and_so_do_its_neighbours(world: World) -> None:
    with psycopg.connect(world.url, autocommit=True) as owner:
        owner.execute("UPDATE segments SET recorded_us = recorded_us + 1 WHERE position = 30")
    packer = Packer(world.db, EPOCH)
    assert packer.pack(threading.Event()) == 0
    assert "position 30" in packer.refused[world.tenant_id]
    assert len(world.rows()) == SEGMENTS


def test_a_writer_that_was_replaced_packs_nothing(world: World) -> None:
    assert Packer(world.db, EPOCH - 1).pack(threading.Event()) == 0
    assert len(world.rows()) == SEGMENTS


def test_nothing_after_the_checkpoint_is_packed(world: World) -> None:
    with psycopg.connect(world.url, autocommit=True) as owner:
        owner.execute("UPDATE checkpoints SET position = 40")
    world.pack()
    assert world.rows() == [(1, 40), *((at, at) for at in range(41, SEGMENTS + 1))]


def test_segments_of_several_writers_are_not_packed_together(world: World) -> None:
    with psycopg.connect(world.url, autocommit=True) as owner:
        owner.execute("UPDATE segments SET epoch = 2 WHERE position <= 20")
    world.pack()
    assert world.rows() == [(1, 20), (21, SEGMENTS)]


def test_the_engines_role_takes_no_segment_away_but_into_a_pack(world: World) -> None:
    with psycopg.connect(world.url, autocommit=True) as conn:
        conn.execute("SET ROLE ammeter_engine")
        for statement in ("DELETE FROM segments WHERE position = 5", "DELETE FROM segments"):
            with pytest.raises(psycopg.errors.IntegrityError):
                conn.execute(statement.encode())
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            conn.execute("UPDATE segments SET digest = digest")
    with pytest.raises(sqlalchemy.exc.IntegrityError):
        _forge(world)
    assert len(world.rows()) == SEGMENTS
    world.pack()
    with psycopg.connect(world.url, autocommit=True) as conn:
        conn.execute("SET ROLE ammeter_engine")
        with pytest.raises(psycopg.errors.IntegrityError):
            conn.execute("DELETE FROM segments")


def test_nothing_is_packed_while_a_version_runs_that_knows_no_packs(world: World) -> None:
    before = packs.SINCE - 1
    with psycopg.connect(world.url, autocommit=True) as owner:
        owner.execute("UPDATE server_state SET oldest_revision = %s", [before])
        owner.execute("SELECT pg_advisory_lock_shared(%s, %s)", [schema.KNOWN_LOCK, before])
        with pytest.raises(OldVersionError):
            world.pack()
        assert len(world.rows()) == SEGMENTS
    assert world.pack() == SEGMENTS - 1
    with world.db.engine() as conn:
        assert schema.oldest_revision(conn) == packs.SINCE


@pytest.mark.parametrize("point", ["pack.begun", "pack.taken", "pack.put"])
def test_a_pack_that_is_broken_off_leaves_the_rows(
    world: World, point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faults, "reach", faults.reach)
    faults.arm(f"{point}=lose@1")
    with pytest.raises(UnavailableError):
        world.pack()
    assert len(world.rows()) == SEGMENTS
    assert world.pack() == SEGMENTS - 1
