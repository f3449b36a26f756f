"""Versions of the program side by side, and back again, while a column is renamed under load.

The older version is the tree as it is. The newer one renames `segments.event_count`, a column that every
commit writes and every start reads, as docs/operating.md says: it adds the new column and keeps both equal
(expand), fills it in for old rows (backfill), and uses the new one alone. The newest drops the old
column (contract). They are copies of the tree: other migrations, other SQL, processes of their own.
"""

import contextlib
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import grpc
import psycopg
import pytest

from ammeter.store import schema
from ammeter.v1 import entitlement_pb2
from tests.crash.load import METER, SUBJECTS, Load, all_windows, set_up
from tests.crash.test_standby import FloatingAddress
from tests.rpc.shop import Shop
from tests.rpc.test_grants import check, entitle
from tests.schema_versions import add_migration, copy_program
from tests.serving import ServerProcess, Stubs

_RETRYABLE = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED}

EXPAND = '''op.execute("""
    ALTER TABLE segments
      ADD COLUMN events int,
      ADD CONSTRAINT events_known CHECK (events IS NOT NULL) NOT VALID;
    CREATE FUNCTION both_names_of_events() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
      NEW.events := coalesce(NEW.events, NEW.event_count);
      NEW.event_count := coalesce(NEW.event_count, NEW.events);
      RETURN NEW;
    END $$;
    CREATE TRIGGER both_names_of_events BEFORE INSERT ON segments
      FOR EACH ROW EXECUTE FUNCTION both_names_of_events();
    """)'''
BACKFILL = '''batch = """
        UPDATE segments SET events = event_count WHERE (tenant_id, position) IN (
          SELECT tenant_id, position FROM segments WHERE events IS NULL LIMIT 200)
    """
    with op.get_context().autocommit_block():
        while op.get_bind().exec_driver_sql(batch).rowcount:
            pass
        op.execute("ALTER TABLE segments VALIDATE CONSTRAINT events_known")'''
CONTRACT = '''op.execute("""
    DROP TRIGGER both_names_of_events ON segments;
    DROP FUNCTION both_names_of_events;
    ALTER TABLE segments
      ALTER COLUMN events SET NOT NULL,
      DROP CONSTRAINT events_known,
      DROP COLUMN event_count;
    """)'''
NEW_NAME = {
    "store/segments.py": (
        ("position, epoch, event_count, min_time_us", "position, epoch, events, min_time_us"),
        ("payload, raw_bytes, event_count, recorded_us", "payload, raw_bytes, events, recorded_us"),
    ),
    "store/tables.py": (('Column("event_count", Integer,', 'Column("events", Integer, key="event_count",'),),
}


class Programs(NamedTuple):
    """Where the versions are."""

    newer: Path
    newest: Path


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Programs:
    directory = tmp_path_factory.mktemp("programs")
    known = schema.known_revision()
    found = Programs(copy_program(directory / "newer"), copy_program(directory / "newest"))
    for program in found:
        add_migration(program.parent / "migrations", "expand", EXPAND, still_serves=known)
        add_migration(program.parent / "migrations", "backfill", BACKFILL, still_serves=known)
        for name, changes in NEW_NAME.items():
            path = program / "ammeter" / name
            text = path.read_text()
            for before, after in changes:
                assert text.count(before) == 1, before
                text = text.replace(before, after)
            path.write_text(text)
    add_migration(found.newest.parent / "migrations", "contract", CONTRACT, still_serves=known + 2)
    return found


class Checks(threading.Thread):
    """Asks for an entitlement again and again: use never becomes less, and no error is final."""

    def __init__(self, address: str, customer: str, feature: str) -> None:
        super().__init__(name="checks", daemon=True)
        self.answers = 0
        self.failed_calls = 0
        self.failure: BaseException | None = None
        self._address = address
        asked = entitlement_pb2.EntitlementCheck(customer_key=customer, feature_key=feature)
        self._request = entitlement_pb2.CheckEntitlementRequest(check=asked)
        self._stopping = threading.Event()

    def run(self) -> None:
        try:
            with ServerProcess.open_channel(self._address) as channel:
                self._ask(Stubs(channel))
        except BaseException as error:  # noqa: BLE001 - the test asks for it
            self.failure = error

    def _ask(self, stubs: Stubs) -> None:
        used = 0
        while not self._stopping.wait(0.01):
            try:
                access = stubs.entitlements.CheckEntitlement(self._request, timeout=5).access
            except grpc.RpcError as error:
                if error.code() not in _RETRYABLE:
                    raise
                self.failed_calls += 1
                continue
            assert access.access
            assert int(access.usage) >= used, "use that was counted is gone"
            used = int(access.usage)
            self.answers += 1

    def finish(self) -> None:
        self._stopping.set()
        self.join()
        if self.failure is not None:
            raise self.failure


class Locks(threading.Thread):
    """Watches how long the migrations lock others out of `segments`, and how long these wait, in seconds."""

    _HELD = """
        SELECT max(extract(epoch FROM clock_timestamp() - a.xact_start)) FROM pg_locks l
        JOIN pg_stat_activity a USING (pid)
        WHERE l.granted AND l.relation = 'segments'::regclass AND a.datname = current_database()
          AND l.mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
    """
    _WAITED = """
        SELECT max(extract(epoch FROM clock_timestamp() - l.waitstart)) FROM pg_locks l
        JOIN pg_stat_activity a USING (pid)
        WHERE NOT l.granted AND l.relation IS NOT NULL AND a.datname = current_database()
          AND a.application_name LIKE 'ammeter%'
    """

    def __init__(self, url: str) -> None:
        super().__init__(name="locks", daemon=True)
        self.held = 0.0
        self.waited = 0.0
        self._conn = psycopg.connect(url, autocommit=True)
        self._stopping = threading.Event()

    def run(self) -> None:
        while not self._stopping.wait(0.003):
            self.held = max(self.held, self._longest(self._HELD))
            self.waited = max(self.waited, self._longest(self._WAITED))

    def _longest(self, query: str) -> float:
        row = self._conn.execute(query.encode()).fetchone()
        return float(row[0] or 0) if row else 0.0

    def finish(self) -> None:
        self._stopping.set()
        self.join()
        self._conn.close()


def _wait_for_log(server: ServerProcess, words: str, times: int = 1) -> None:
    deadline = time.monotonic() + 60
    while server.log.read_text().count(words) < times:
        assert time.monotonic() < deadline, server.last_words()
        time.sleep(0.02)


def _refusal(server: ServerProcess) -> str:
    """Start a server that must end by itself; what it said."""
    server.launch()
    assert server.process.wait(60) != 0
    return server.last_words()


@pytest.fixture
def url(new_database: Callable[[], str]) -> str:
    return new_database()


@pytest.fixture
def versions(url: str, tmp_path: Path, programs: Programs) -> Iterator[list[ServerProcess]]:
    """The tree as it is, the newer one, the newest."""
    found = [ServerProcess(url, tmp_path, checkpoint_interval_seconds=0.3) for _ in range(3)]
    found[1].use(programs.newer)
    found[2].use(programs.newest)
    yield found
    for one in found:
        one.close()


@pytest.mark.timeout(300)
def test_versions_relieve_each_other_while_a_column_is_renamed_under_load(
    versions: list[ServerProcess], url: str, tmp_path: Path, rng: random.Random
) -> None:
    old, new, newest = versions
    known = schema.known_revision()
    old.start()
    set_up(old.stubs())
    shop = Shop(old.stubs())
    feature, customer = shop.feature(METER), shop.customer(*SUBJECTS)
    entitle(shop, feature, customer, allowance="1000000000")
    floating = FloatingAddress(old.address)
    checks, locks = Checks(floating.address, customer, feature), Locks(url)

    def stand_by(server: ServerProcess) -> None:
        times = server.log.read_text().count("identities are known") if server.log.exists() else 0
        server.launch()
        _wait_for_log(server, "identities are known", times + 1)
        time.sleep(rng.random() * 0.5)

    def hand_over(before: ServerProcess, after: ServerProcess, *, gently: bool) -> None:
        if gently:
            before.stop()
        else:
            before.kill()
        after.wait_until_serving()
        floating.move(after.address)
        time.sleep(rng.random())

    load = Load(floating.address, tmp_path / "journals", rng, streams=1, unary=2)
    with contextlib.closing(floating), load:
        checks.start()
        time.sleep(1)
        locks.start()
        stand_by(new)  # expands and fills in, beside the old one that writes
        hand_over(old, new, gently=True)
        stand_by(old)  # for a schema newer than it knows
        assert f"knows the schema up to {known:04}" in _refusal(newest)
        hand_over(new, old, gently=False)  # back
        stand_by(new)
        hand_over(old, new, gently=False)
        stand_by(newest)  # contracts, beside the newer one that writes
        hand_over(new, newest, gently=True)
        assert "start a newer version" in _refusal(old)
        stand_by(new)
        hand_over(newest, new, gently=True)  # back
        load.settle()
        checks.finish()
        locks.finish()
    figures = load.verdict(new.stubs())
    total = sum(window.value for window in all_windows(new.stubs()))
    assert check(Shop(new.stubs()), customer, feature).usage == str(total)
    with psycopg.connect(url) as conn:
        stored = conn.execute("SELECT sum(events) FROM segments").fetchone()
    assert stored == (figures["stored"],)
    print(  # noqa: T201 - the figures to publish
        f"3 versions, 5 changes of the writer: {figures}; {checks.answers} checks; longest lock held"
        f" {locks.held:.3f} s, longest wait for one {locks.waited:.3f} s; 0 lost, 0 doubled"
    )
