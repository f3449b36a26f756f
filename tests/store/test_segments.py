"""What may be appended to the chain is decided by the database alone, whoever asks."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import pytest

from ammeter.errors import UnavailableError
from ammeter.store import segments
from ammeter.store.db import Database
from ammeter.store.segments import RawConnection, tenant_states
from ammeter.usecases.keys import create_tenant

_NOW = 1_790_000_000_000_000


@dataclass(frozen=True)
class Segment:
    """A segment as the core gives it; what is in it does not matter here."""

    tenant: int
    position: int
    digest: bytes = b"d" * 32
    event_count: int = 1
    min_time_us: int = _NOW
    max_time_us: int = _NOW
    recorded_us: int = _NOW
    codec: int = 0
    raw_bytes: int = 1
    payload: bytes = b"x"


@dataclass(frozen=True)
class Chains:
    """A writer's connection, its epoch, and two tenants."""

    raw: RawConnection
    epoch: int
    first: int
    second: int
    url: str

    def positions(self) -> list[tuple[int, int]]:
        """All segments there are."""
        rows = self.raw.execute("SELECT tenant_id, position FROM segments ORDER BY 1, 2").fetchall()
        heads = self.raw.execute("SELECT tenant_id, position FROM heads WHERE position > 0 ORDER BY 1")
        assert dict(sorted(rows)) == dict(heads.fetchall()), "heads stand at the last segments"
        return rows


@pytest.fixture
def chains(new_database: Callable[[], str]) -> Iterator[Chains]:
    url = new_database()
    db = Database(url)
    names = (f"t{number}" for number in range(2))
    first, second = (create_tenant(db, b"p" * 32, name, datetime.now(UTC))[0] for name in names)
    with db.engine() as conn:
        tenant_states(conn)
    raw = db.raw()
    epoch = segments.acquire_writer(raw, "test")
    assert epoch is not None
    yield Chains(raw, epoch, first, second, url)
    raw.close()
    db.close()


def test_segments_follow_each_other(chains: Chains) -> None:
    for position in (1, 2):
        assert segments.append(chains.raw, chains.epoch, [Segment(chains.first, position)])
    assert chains.positions() == [(chains.first, 1), (chains.first, 2)]


def test_a_writer_that_was_replaced_appends_nothing(chains: Chains) -> None:
    """Though nothing else has been appended since: the epoch alone tells."""
    assert segments.append(chains.raw, chains.epoch, [Segment(chains.first, 1)])
    chains.raw.execute("SELECT pg_advisory_unlock_all()")
    successor = segments.acquire_writer(chains.raw, "another")
    assert successor == chains.epoch + 1
    assert not segments.append(chains.raw, chains.epoch, [Segment(chains.first, 2)])
    assert chains.positions() == [(chains.first, 1)]
    assert segments.append(chains.raw, successor, [Segment(chains.first, 2)])


def _stand_still(db: Database, chains: Chains) -> None:
    with db.engine() as conn:
        assert segments.require_epoch(conn, chains.epoch)
        chains.raw.execute("SELECT pg_advisory_unlock_all()")
        assert segments.acquire_writer(chains.raw, "another") == chains.epoch + 1


def test_a_writer_that_stands_still_in_a_transaction_holds_up_nobody_for_long(chains: Chains) -> None:
    db = Database(chains.url)
    with pytest.raises(UnavailableError):
        _stand_still(db, chains)
    with db.engine() as conn:
        assert not segments.require_epoch(conn, chains.epoch)
    db.close()


@pytest.mark.parametrize("position", [1, 3])
def test_a_segment_that_does_not_follow_the_head_is_not_appended(chains: Chains, position: int) -> None:
    assert segments.append(chains.raw, chains.epoch, [Segment(chains.first, 1)])
    assert not segments.append(chains.raw, chains.epoch, [Segment(chains.first, position, b"e" * 32)])
    assert chains.positions() == [(chains.first, 1)]


def test_a_group_is_appended_whole_or_not_at_all(chains: Chains) -> None:
    group = [Segment(chains.first, 1), Segment(chains.second, 2)]
    assert not segments.append(chains.raw, chains.epoch, group)
    assert chains.positions() == []
    group[1] = Segment(chains.second, 1)
    assert segments.append(chains.raw, chains.epoch, group)
    assert chains.positions() == [(chains.first, 1), (chains.second, 1)]


def test_another_segment_at_the_position_is_not_ours(chains: Chains) -> None:
    ours = Segment(chains.first, 1)
    assert not segments.is_durable(chains.raw, ours)
    assert segments.append(chains.raw, chains.epoch, [replace(ours, digest=b"e" * 32)])
    assert not segments.is_durable(chains.raw, ours)
    assert segments.is_durable(chains.raw, replace(ours, digest=b"e" * 32))
