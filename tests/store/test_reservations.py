"""Reservations are written by the writer alone, and only ever forward."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest

from ammeter.domain.customer import CustomerDraft
from ammeter.domain.reservation import Key, Reservation, State
from ammeter.store import customers, reservations, segments
from ammeter.store.db import Database
from ammeter.store.requests import Answered
from ammeter.store.reservations import Answer
from ammeter.store.segments import RawConnection
from ammeter.usecases.keys import create_tenant
from tests.store.test_segments import Segment

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


@dataclass(frozen=True)
class Desk:
    """A writer's connection and a customer."""

    db: Database
    raw: RawConnection
    epoch: int
    tenant_id: int
    customer_id: int

    def reservation(self, number: int, **fields: object) -> Reservation:
        made = Reservation(
            reservation_id=f"rsv_{number}",
            key=Key(self.tenant_id, self.customer_id, "tokens"),
            customer_key="acme",
            subject="s",
            lease=False,
            wanted=5,
            granted=5,
            held=5,
            settled=0,
            state=State.HELD,
            create_time=NOW,
            expire_time=NOW + HOUR,
            hold_time=NOW + HOUR,
        )
        return replace(made, **fields)  # type: ignore[arg-type]

    def stored(self, number: int) -> Reservation | None:
        with self.db.tenant(self.tenant_id) as tx:
            return reservations.get(tx, f"rsv_{number}")


@pytest.fixture
def desk(new_database: Callable[[], str]) -> Iterator[Desk]:
    db = Database(new_database())
    tenant_id = create_tenant(db, b"p" * 32, "t", NOW)[0]
    with db.tenant(tenant_id) as tx:
        made = customers.insert(tx, CustomerDraft("acme", "", "", "USD", "UTC"), NOW)
    raw = db.raw()
    epoch = segments.acquire_writer(raw, "test")
    assert epoch is not None
    assert made is not None
    yield Desk(db, raw, epoch, tenant_id, made.customer_id)
    raw.close()
    db.close()


def test_what_is_written_is_read_back(desk: Desk) -> None:
    made = [
        desk.reservation(1),
        desk.reservation(2, held=10**25 * 10**12 + 1, granted=10**25 * 10**12 + 1, lease=True, generation=3),
        desk.reservation(3, state=State.SETTLED, held=0, settled=7, end_time=NOW, late=True, version=2),
    ]
    assert reservations.write(desk.raw, desk.epoch, made, [])
    assert [desk.stored(number) for number in (1, 2, 3)] == made
    names = [(desk.tenant_id, "rsv_1"), (desk.tenant_id, "rsv_9"), (desk.tenant_id + 1, "rsv_2")]
    with desk.db.engine() as conn:
        assert reservations.named(conn, names) == {names[0]: made[0]}
        assert list(reservations.holding(conn, NOW)) == made[:2]
        assert list(reservations.holding(conn, NOW + HOUR)) == []
    with desk.db.tenant(desk.tenant_id) as tx:
        assert reservations.page(tx, desk.customer_id, State.HELD, NOW, "", 9) == made[:2]
        assert reservations.page(tx, None, State.EXPIRED, NOW + HOUR, "rsv_1", 9) == made[1:2]
        assert reservations.page(tx, None, None, NOW, "rsv_1", 1) == made[1:2]
    with desk.db.engine() as conn:
        assert reservations.expire(conn, NOW + timedelta(seconds=1)) == 1
        assert reservations.expire(conn, NOW + HOUR + timedelta(seconds=1)) == 2


def test_a_replaced_writer_writes_no_reservation(desk: Desk) -> None:
    other = desk.db.raw()
    desk.raw.execute("SELECT pg_advisory_unlock_all()")
    assert segments.acquire_writer(other, "another") == desk.epoch + 1
    answer = Answer(desk.tenant_id, "id", Answered("m", b"d", b"r"), NOW)
    assert not reservations.write(desk.raw, desk.epoch, [desk.reservation(1)], [answer])
    assert desk.stored(1) is None
    with desk.db.engine() as conn:
        assert reservations.answers_to(conn, [(desk.tenant_id, "id")]) == {}
    assert reservations.write(other, desk.epoch + 1, [desk.reservation(1)], [answer])
    other.close()


def test_a_change_that_arrives_late_undoes_nothing(desk: Desk) -> None:
    first = desk.reservation(1)
    second = desk.reservation(1, state=State.SETTLED, held=0, settled=3, end_time=NOW, version=2)
    for change in (first, second, first, second, first):
        assert reservations.write(desk.raw, desk.epoch, [change], [])
    assert desk.stored(1) == second


def test_the_first_answer_to_a_request_stays(desk: Desk) -> None:
    for response in (b"first", b"second"):
        answer = Answer(desk.tenant_id, "id", Answered("m", b"d", response), NOW)
        assert reservations.write(desk.raw, desk.epoch, [], [answer])
    with desk.db.engine() as conn:
        found = reservations.answers_to(conn, [(desk.tenant_id, "id"), (desk.tenant_id, "other")])
    assert found == {(desk.tenant_id, "id"): Answered("m", b"d", b"first")}


def test_what_refuses_takes_the_events_of_its_commit_back(desk: Desk) -> None:
    with desk.db.engine() as conn:
        segments.tenant_states(conn)
    new = Segment(desk.tenant_id, 1)
    assert not segments.append(desk.raw, desk.epoch, [new], lambda: False)
    assert not segments.is_durable(desk.raw, new)
    change = desk.reservation(1)
    assert segments.append(
        desk.raw, desk.epoch, [new], lambda: reservations.write(desk.raw, desk.epoch, [change], [])
    )
    assert segments.is_durable(desk.raw, new)
    assert desk.stored(1) == change
