"""Customers and their subjects, with a real database."""

import itertools
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest

from ammeter.domain.catalog_rules import RateCardDraft
from ammeter.domain.customer import Customer, CustomerDraft
from ammeter.errors import (
    AlreadyExistsError,
    AmmeterError,
    ConflictError,
    InvalidInputError,
    NotFoundError,
    PreconditionError,
)
from ammeter.store import customers as store
from ammeter.usecases import customers
from tests.usecases.world import World


@pytest.fixture(scope="module")
def url(new_database: Callable[[], str]) -> str:
    return new_database()


@pytest.fixture
def world(url: str) -> Iterator[World]:
    world = World(url)
    yield world
    world.close()


def update(world: World, draft: CustomerDraft, *mask: str, etag: str = "") -> None:
    with world.tx() as tx:
        customers.update_customer(tx, draft, mask, etag, world.now)


def read(world: World, key: str) -> Customer:
    with world.tx() as tx:
        return customers.get_customer(tx, key)


def test_a_new_customer_has_defaults_and_owns_its_subjects_from_the_beginning(world: World) -> None:
    created = world.customer("acme", "bob", "alice")
    assert (created.currency, created.time_zone) == ("USD", "UTC")
    assert [(span.subject, span.from_minute, span.to_minute) for span in created.subjects] == [
        ("alice", -(2**31), 2**31 - 1),
        ("bob", -(2**31), 2**31 - 1),
    ]
    assert read(world, "acme") == created


def test_a_key_is_taken_once(world: World) -> None:
    world.customer("acme")
    with pytest.raises(AlreadyExistsError):
        world.customer("acme")


def test_a_subject_with_an_owner_cannot_be_given_to_a_new_customer(world: World) -> None:
    world.customer("acme", "alice")
    with pytest.raises(PreconditionError, match="alice") as caught:
        world.customer("beta", "zoe", "alice")
    assert caught.value.reason == "IN_USE"
    with pytest.raises(NotFoundError):
        read(world, "beta")


def test_every_fault_of_a_new_customer_is_named_at_once(world: World) -> None:
    draft = CustomerDraft("a b", "n" * 257, "e\0", "EURO", "Mars/Olympus")
    with world.tx() as tx, pytest.raises(InvalidInputError) as caught:
        customers.create_customer(tx, world.live, draft, ["", "x" * 257, "y", "y", "n\0"], world.now)
    assert [violation.field for violation in caught.value.violations] == [
        "customer.customer_key",
        "customer.name",
        "customer.email",
        "customer.currency",
        "customer.time_zone",
        "subjects[0]",
        "subjects[1]",
        "subjects[3]",
        "subjects[4]",
    ]


def test_an_update_without_a_mask_changes_what_is_set(world: World) -> None:
    world.customer("acme")
    update(world, CustomerDraft("acme", name="Acme", time_zone="Europe/Berlin"))
    changed = read(world, "acme")
    assert (changed.name, changed.time_zone, changed.currency, changed.version) == (
        "Acme",
        "Europe/Berlin",
        "USD",
        2,
    )
    update(world, CustomerDraft("acme", email="a@b"), "name")
    changed = read(world, "acme")
    assert (changed.name, changed.email) == ("", "")


def test_an_update_that_changes_nothing_keeps_the_etag(world: World) -> None:
    before = world.customer("acme")
    update(world, CustomerDraft("acme", currency="USD"), "currency")
    assert read(world, "acme") == before


def test_a_mask_names_known_fields_only(world: World) -> None:
    world.customer("acme")
    with pytest.raises(InvalidInputError, match="update_mask"):
        update(world, CustomerDraft("acme"), "customer_key")


def test_a_stale_etag_is_refused(world: World) -> None:
    created = world.customer("acme")
    update(world, CustomerDraft("acme", name="one"), etag=created.etag)
    with pytest.raises(ConflictError):
        update(world, CustomerDraft("acme", name="two"), etag=created.etag)
    assert read(world, "acme").name == "one"


def test_currency_and_zone_are_fixed_by_the_first_subscription(world: World) -> None:
    world.customer("acme")
    world.plan("basic", currency="EUR")
    update(world, CustomerDraft("acme", currency="EUR", time_zone="Asia/Tokyo"))
    world.subscribe("acme", "basic")
    for draft in (CustomerDraft("acme", currency="USD"), CustomerDraft("acme", time_zone="UTC")):
        with pytest.raises(PreconditionError):
            update(world, draft)
    update(world, CustomerDraft("acme", name="Acme", currency="EUR"))
    assert read(world, "acme").name == "Acme"


def test_changes_of_subjects_leave_their_time_with_every_customer_concerned(world: World) -> None:
    world.customer("acme", "alice")
    world.customer("beta")
    bystander = world.customer("gamma", "zoe")
    world.now += timedelta(minutes=3)
    world.assign("beta", "alice")
    assert read(world, "acme").subjects_time == world.now
    assert read(world, "beta").subjects_time == world.now
    assert read(world, "gamma") == bystander


def test_giving_a_subject_to_its_owner_again_changes_nothing(world: World) -> None:
    before = world.customer("acme", "alice")
    world.now += timedelta(minutes=3)
    assert world.assign("acme", "alice") == before


def test_a_subject_cannot_be_assigned_before_its_last_move(world: World) -> None:
    world.customer("acme", "alice")
    world.customer("beta")
    world.assign("beta", "alice", "2025-03-05T10:00:59")
    with pytest.raises(PreconditionError):
        world.assign("acme", "alice", "2025-03-05T09:59:59")
    assert len(world.assign("acme", "alice", "2025-03-05T10:00").subjects) == 1


def test_only_the_owner_can_release(world: World) -> None:
    world.customer("acme", "alice")
    world.customer("beta")
    for subject in ("alice", "nobody"):
        with pytest.raises(PreconditionError):
            world.release("beta", subject)


def test_subjects_of_other_tenants_are_others(world: World, url: str) -> None:
    world.customer("acme", "alice")
    other = World(url)
    try:
        other.customer("acme", "alice")
        other.release("acme", "alice")
        assert read(world, "acme").subjects[0].to_minute == 2**31 - 1
    finally:
        other.close()


def test_concurrent_claims_of_one_subject_never_overlap(world: World) -> None:
    names = [f"customer{number}" for number in range(6)]
    for name in names:
        world.customer(name)
    outcomes: list[str] = []
    start = threading.Barrier(len(names))

    def claim(name: str) -> None:
        start.wait()
        try:
            for _ in range(5):
                world.assign(name, "shared")
            outcomes.append("moved")
        except AmmeterError as error:
            outcomes.append(error.reason)

    threads = [threading.Thread(target=claim, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == ["moved"] * len(names)
    with world.tx() as tx:
        spans = store.spans_of_subjects(tx.conn, tx.tenant_id, ["shared"])["shared"]
    assert spans[0].from_minute == -(2**31)
    assert spans[-1].to_minute == 2**31 - 1
    for before, after in itertools.pairwise(spans):
        assert before.to_minute == after.from_minute
    live = world.live.spans(world.tenant_id, "shared")
    assert [tuple(span[1:]) for span in spans] == [tuple(span) for span in live]


def test_concurrent_creations_with_one_subject_leave_one_owner(world: World) -> None:
    reasons: list[str] = []
    start = threading.Barrier(4)

    def create(name: str) -> None:
        start.wait()
        try:
            world.customer(name, "b", "a", "c")
            reasons.append("")
        except AmmeterError as error:
            reasons.append(error.reason)

    threads = [threading.Thread(target=create, args=(f"c{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(reasons) == ["", "IN_USE", "IN_USE", "IN_USE"]


def test_customers_are_listed_by_key_page_by_page(world: World) -> None:
    for name in ("c", "a", "b"):
        world.customer(name, f"subject-{name}")
    with world.tx() as tx:
        first, second = store.page(tx, "", 2), store.page(tx, "b", 2)
    assert [(one.customer_key, one.subjects[0].subject) for one in first + second] == [
        ("a", "subject-a"),
        ("b", "subject-b"),
        ("c", "subject-c"),
    ]


def test_the_application_role_sees_one_tenant_even_without_its_filter(world: World, url: str) -> None:
    world.customer("acme", "alice")
    world.feature("sso")
    world.plan("basic", RateCardDraft("sso", feature_key="sso", template_kind="boolean"))
    other = World(url)
    try:
        with other.tx() as tx:
            for table in ("customers", "customer_subjects", "features", "plans", "rate_cards"):
                assert tx.conn.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one() == 0
    finally:
        other.close()
