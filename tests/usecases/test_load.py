"""What is loaded as columns is what following every change comes to, and is never older than that."""

import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta

import pytest
import sqlalchemy as sa

from ammeter.domain.cancellation import Timing
from ammeter.domain.catalog_rules import RateCardDraft
from ammeter.domain.entitlement_rules import EntitlementDraft, GrantDraft
from ammeter.domain.minute import minute_of
from ammeter.errors import AmmeterError
from ammeter.store import entitlements
from ammeter.store.tables import meter_revisions, meters
from ammeter.usecases.change import Wish, change_subscription
from ammeter.usecases.check import Check, check
from ammeter.usecases.entitle import create_entitlement, delete_entitlement, override_entitlement
from ammeter.usecases.grants import create_grant, reset_usage
from ammeter.usecases.live import Live
from tests.usecases.world import World, exact, metered

FEATURES = ("tokens", "calls", "inputs", "unbuilt", "sso", "models")
CUSTOMERS = 12


@pytest.fixture
def world(new_database: Callable[[], str]) -> Iterator[World]:
    world = World(new_database())
    yield world
    world.close()


def _catalog(world: World) -> None:
    world.meter("tokens", dimensions=["kind"])
    world.meter("calls", "COUNT")
    world.meter("unbuilt")
    for meter in ("tokens", "calls", "unbuilt"):
        world.feature(meter, meter)
    world.feature("inputs", "tokens", kind=["in"])
    world.feature("sso")
    world.feature("models")
    fixed = [
        RateCardDraft("sso", feature_key="sso", template_kind="boolean"),
        RateCardDraft("models", feature_key="models", template_kind="static", config={"max": 3, "all": True}),
    ]
    world.plan("small", metered("tokens", "100"), metered("inputs", "7.5", soft=True), fixed[0])
    world.plan("large", metered("tokens", "90000000000000000000000000"), metered("calls", "3"), *fixed)


class Operator:
    """Gives, changes and takes away, at random; what is refused is refused."""

    def __init__(self, world: World, rng: random.Random) -> None:
        self._world = world
        self._rng = rng
        self.names: list[str] = []

    def enrol(self, number: int) -> None:
        zone = self._rng.choice(["UTC", "Europe/Berlin", "Asia/Kathmandu", "America/New_York"])
        name = f"customer-{number}"
        subjects = [f"{name}-{one}" for one in range(self._rng.randrange(2))]
        self._world.customer(name, *subjects, time_zone=zone)
        self.names.append(name)

    def act(self) -> None:
        world, rng = self._world, self._rng
        name = rng.choice(self.names)
        acts = [
            self._subscribe,
            self._give,
            self._give,
            self._grant,
            self._end,
            self._move,
            self._use,
            self._use,
        ]
        with suppress(AmmeterError):
            rng.choice(acts)(name)
        if rng.random() < 0.3:
            world.now += timedelta(minutes=rng.choice([1, 59, 60, 61, 1440, 20_000]))

    def _subscribe(self, name: str) -> None:
        world, rng = self._world, self._rng
        subscription = world.subscribe(name, rng.choice(["small", "large"]))
        world.now += timedelta(minutes=rng.randrange(3))
        what = rng.random()
        if what < 0.3:
            with world.tx() as tx:
                change_subscription(tx, world.live, subscription.subscription_id, Wish("large"), world.now)
        elif what < 0.6:
            world.cancel(subscription, rng.choice([Timing.NOW, Timing.PERIOD_END]))

    def _give(self, name: str) -> None:
        world, rng = self._world, self._rng
        feature = rng.choice(FEATURES)
        start = world.now + timedelta(minutes=rng.choice([0, 0, -3000, 500]))
        end = start + timedelta(minutes=rng.randrange(1, 90_000)) if rng.random() < 0.5 else None
        draft = EntitlementDraft(
            name,
            feature,
            {"sso": "boolean", "models": "static"}.get(feature, "metered"),
            allowance=rng.choice(["", "0", "12.000000000001", "500"])
            if feature not in {"sso", "models"}
            else "",
            soft_limit=rng.random() < 0.3,
            preserve_overage=rng.random() < 0.2,
            cadence=rng.choice(["P1D", "P1M", "P2W", "P1Y"]) if feature not in {"sso", "models"} else "",
            anchor_time=rng.choice([None, start - timedelta(days=400, minutes=7)]),
            config={"number": rng.randrange(2)} if feature == "models" else None,
            from_time=start,
            to_time=end,
        )
        with world.tx() as tx:
            (create_entitlement if rng.random() < 0.7 else override_entitlement)(
                tx, world.live, draft, world.now
            )

    def _one_of(self, name: str) -> str:
        live = self._world.live.customers[self._world.tenant_id, name]
        with self._world.tx() as tx:
            found = entitlements.page(tx, live.customer_id, "", 100)
        return self._rng.choice(found).entitlement_id if found else "none"

    def _grant(self, name: str) -> None:
        world, rng = self._world, self._rng
        with world.tx() as tx:
            if rng.random() < 0.5:
                create_grant(tx, world.live, GrantDraft(self._one_of(name), "5"), world.now)
            else:
                reset_usage(
                    tx,
                    world.live,
                    self._one_of(name),
                    None,
                    moves_anchor=rng.random() < 0.5,
                    preserve_overage=None,
                    now=world.now,
                )

    def _end(self, name: str) -> None:
        with self._world.tx() as tx:
            delete_entitlement(tx, self._world.live, self._one_of(name), self._world.now)

    def _move(self, name: str) -> None:
        self._world.assign(name, f"customer-{self._rng.randrange(CUSTOMERS)}-0")

    def _use(self, name: str) -> None:
        kind = self._rng.choice(["in", "out"])
        self._world.use(f"{name}-0", str(self._rng.randrange(1, 9)), kind=kind)
        if self._rng.random() < 0.2:
            self._world.checkpoint()


def _answers(world: World, live: Live) -> dict[tuple[str, str, int], object]:
    found: dict[tuple[str, str, int], object] = {}
    present = minute_of(world.now)
    for _, name in sorted(live.customers):
        for feature in FEATURES:
            for minute in (present, present + 1500):
                try:
                    answer = check(live, world.tenant_id, Check(name, None, feature, None), minute)
                except Exception as error:  # noqa: BLE001 - the same error is an answer, too
                    found[name, feature, minute] = type(error)
                else:
                    found[name, feature, minute] = answer
    return found


def _build_anew(world: World, meter_key: str) -> None:
    """Leave a meter without a revision that is served."""
    with world.db.engine() as conn:
        theirs = sa.select(meters.c.meter_id).where(meters.c.meter_key == meter_key)
        mine = meter_revisions.c.meter_id.in_(theirs)
        conn.execute(sa.update(meter_revisions).where(mine).values(state="building"))


@pytest.mark.parametrize("round_number", range(2))
def test_loading_comes_to_what_following_comes_to(
    world: World, rng: random.Random, round_number: int
) -> None:
    _catalog(world)
    operator = Operator(world, random.Random(rng.getrandbits(32) + round_number))  # noqa: S311 - to be repeated
    for number in range(CUSTOMERS):
        operator.enrol(number)
    for _ in range(70):
        operator.act()
    _build_anew(world, "unbuilt")
    followed = world.live
    for (tenant, _), live in list(followed.by_id.items()):
        followed.refresh_customer(tenant, live.customer_id)
    expected = _answers(world, followed)
    counted = world.engine.stats()["counters"]
    names = [f"customer-{number}-0" for number in range(CUSTOMERS)]
    owned = [followed.spans(world.tenant_id, name) for name in names]
    for name in names:
        world.engine.set_subject(world.tenant_id, name, [])
    loaded = Live(world.db, world.engine, lambda: world.now)
    loaded.load()
    assert world.engine.stats()["counters"] == counted
    assert [loaded.spans(world.tenant_id, name) for name in names] == owned
    assert dict(loaded.by_id.everyone()) == dict(followed.by_id.everyone())
    assert _answers(world, loaded) == expected
    assert loaded.customers == followed.customers
    assert loaded.by_id == followed.by_id
    assert loaded.features == followed.features


def test_who_changed_before_anybody_asked_is_not_taken_off_the_shelf(world: World) -> None:
    _catalog(world)
    world.customer("acme", "alice")
    world.customer("beta", "bob")
    world.subscribe("acme", "small")
    world.subscribe("beta", "small")
    world.checkpoint()
    world.restart()
    shelf = world.live._shelf
    number = shelf.number_of_key(world.tenant_id, "acme")
    assert number is not None
    old = shelf.peek(number)
    world.assign("acme", "bob")
    with world.tx() as tx:
        several = entitlements.page(tx, old.customer_id, "", 9)
        mine = next(one for one in several if one.feature_key == "tokens")
        create_grant(tx, world.live, GrantDraft(mine.entitlement_id, "5"), world.now)
    world.use("bob", "3", kind="in")
    feature = mine.feature_key
    answer = world.check("acme", feature)
    assert exact(answer.usage) == 3
    assert exact(answer.balance) == exact(answer.allowance) + 5 - 3
    assert exact(world.check("beta", feature).usage) == 0
    assert world.live.customers[world.tenant_id, "acme"].subjects == {"alice", "bob"}
    # Whoever was about to take it off comes too late.
    shelf.take(number)
    assert world.live.by_id[world.tenant_id, old.customer_id].subjects == {"alice", "bob"}


def test_one_that_is_taken_off_is_the_same_by_key_and_by_number(world: World) -> None:
    _catalog(world)
    world.customer("acme", "alice")
    world.subscribe("acme", "large")
    world.restart()
    first = world.live.customers[world.tenant_id, "acme"]
    assert world.live.by_id[world.tenant_id, first.customer_id] is first
    assert world.live.customers.get((world.tenant_id, "nobody")) is None
    assert world.live.by_id.get((world.tenant_id + 1, first.customer_id)) is None
    assert len(world.live.customers) == 1


def test_those_on_the_shelf_are_renewed_when_they_are_due(world: World) -> None:
    world.meter("tokens")
    world.feature("tokens", "tokens")
    world.plan("daily", metered("tokens", "10"), cadence="P1D")
    for number in range(5):
        world.customer(f"customer-{number}", f"user-{number}")
        world.subscribe(f"customer-{number}", "daily")
    world.restart()
    for _ in range(40):
        world.now += timedelta(hours=6)
        world.live.roll(world.now)
        for number in range(5):
            name = Check(f"customer-{number}", None, "tokens", None)
            assert check(world.live, world.tenant_id, name, minute_of(world.now)).access
