"""A tenant with a real database and a real engine, and a clock that tests set."""

import asyncio
import itertools
from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from fractions import Fraction

from ammeter.domain.cancellation import Timing
from ammeter.domain.catalog import DimensionFilter, Feature, Plan
from ammeter.domain.catalog_rules import PlanDraft, RateCardDraft
from ammeter.domain.customer import Customer, CustomerDraft
from ammeter.domain.entitlement import Access
from ammeter.domain.meter import Meter
from ammeter.domain.minute import minute_of
from ammeter.domain.subscription import Subscription
from ammeter.store import blocks, keys, meters
from ammeter.store.db import Database, Tx
from ammeter.usecases import catalog, customers, subscribe
from ammeter.usecases.check import Check, check_all
from ammeter.usecases.engine import QUANTITY_SCALE, Engine, parse_quantity
from ammeter.usecases.live import Live
from ammeter.usecases.meters import spec_of
from ammeter.v1 import usage_pb2

_KEY = bytes(16)
_names = itertools.count(1)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def new_engine() -> Engine:
    return Engine(
        hash_key=_KEY,
        horizon_past_seconds=40 * 86_400,
        horizon_future_seconds=86_400,
        max_pending_bytes=1 << 24,
    )


class World:
    """One tenant; everything is done as the server does it, without the wire."""

    def __init__(self, database_url: str, now: str = "2025-03-10T12:00") -> None:
        self.db = Database(database_url)
        with self.db.engine() as conn:
            tenant_id = keys.insert_tenant(conn, f"tenant{next(_names)}")
        assert tenant_id is not None
        self.tenant_id = tenant_id
        self.now = at(now)
        self.engine = new_engine()
        self.engine.open_tenant(tenant_id, 0, bytes(32))
        self.live = Live(self.db, self.engine, lambda: self.now)
        self._ids = itertools.count(1)
        self._head = (0, bytes(32))
        self._specs: dict[str, Meter] = {}

    def close(self) -> None:
        self.db.close()

    def tx(self) -> AbstractContextManager[Tx]:
        return self.db.tenant(self.tenant_id)

    # What operators do

    def meter(
        self, key: str, aggregation: str = "SUM", *, dimensions: Sequence[str] = (), served: bool = True
    ) -> None:
        meter = Meter(
            key, "", "", "use", aggregation, "" if aggregation == "COUNT" else "n", tuple(dimensions), ()
        )
        with self.tx() as tx:
            meter_id = meters.insert(tx, meter, self.now)
            stored = meters.get_meter_by_id(tx, meter_id)
        assert stored.build is not None
        if served:
            with self.db.engine() as conn:
                meters.activate(conn, self.tenant_id, stored.build.revision_id, 0, [])
            with self.tx() as tx:
                self._put_meter(meters.get_meter(tx, key))

    def _put_meter(self, meter: Meter) -> None:
        assert meter.revision_id is not None
        self._specs[meter.meter_key] = meter
        self.engine.put_meter(self.tenant_id, spec_of(meter, meter.revision_id, meter.dimensions))

    def feature(self, key: str, meter_key: str = "", **filters: Sequence[str]) -> Feature:
        conditions = tuple(DimensionFilter(name, tuple(values)) for name, values in filters.items())
        with self.tx() as tx:
            return catalog.create_feature(tx, self.live, Feature(key, "", meter_key, conditions), self.now)

    def plan(self, key: str, *cards: RateCardDraft, currency: str = "USD", cadence: str = "P1M") -> Plan:
        with self.tx() as tx:
            draft = PlanDraft(key, "", currency, cadence, cards)
            return catalog.create_plan(tx, draft, self.now)

    def customer(self, key: str, *subjects: str, time_zone: str = "") -> Customer:
        with self.tx() as tx:
            draft = CustomerDraft(key, time_zone=time_zone)
            return customers.create_customer(tx, self.live, draft, subjects, self.now)

    def subscribe(self, customer: str, plan: str, start: str = "", anchor: str = "") -> Subscription:
        times = (at(start) if start else None, at(anchor) if anchor else None)
        with self.tx() as tx:
            return subscribe.create_subscription(tx, self.live, customer, plan, *times, self.now)

    def cancel(self, subscription: Subscription, timing: Timing, time: str = "") -> Subscription:
        with self.tx() as tx:
            cancel_time = at(time) if time else None
            return subscribe.cancel_subscription(
                tx, self.live, subscription.subscription_id, timing, cancel_time, self.now
            )

    def assign(self, customer: str, subject: str, time: str = "") -> Customer:
        with self.tx() as tx:
            return customers.assign_subject(
                tx, self.live, customer, subject, at(time) if time else None, self.now
            )

    def release(self, customer: str, subject: str, time: str = "") -> Customer:
        with self.tx() as tx:
            return customers.release_subject(
                tx, self.live, customer, subject, at(time) if time else None, self.now
            )

    # What producers and services do

    def use(self, subject: str, amount: str = "1", time: datetime | None = None, **properties: str) -> int:
        """Record one event and return its position, durable or not."""
        event = usage_pb2.UsageEvent(id=str(next(self._ids)), source="test", type="use", subject=subject)
        event.time.FromDatetime(time or self.now)
        event.properties.update({"n": amount} | properties)
        body = usage_pb2.RecordUsageRequest(events=[event]).SerializeToString()
        now_us = int(self.now.timestamp()) * 1_000_000
        receipt = self.engine.admit(self.tenant_id, body, now_us)
        assert receipt.accepted == 1, receipt.rejections
        group = self.engine.seal(now_us)
        assert group is not None
        self._head = (group.segments[-1].position, group.segments[-1].digest)
        self.engine.fold(group)
        return self._head[0]

    def checkpoint(self) -> None:
        frozen = self.engine.freeze()
        with self.db.engine() as conn:
            blocks.insert(conn, frozen.blocks, 0, next(_names))
            blocks.move_checkpoints(conn, frozen.positions)
        self.engine.discard(frozen)

    def restart(self) -> None:
        """Begin again from the database; only what a checkpoint wrote is left of the usage."""
        self.engine = new_engine()
        self.engine.open_tenant(self.tenant_id, *self._head)
        for meter in self._specs.values():
            self._put_meter(meter)
        self.live = Live(self.db, self.engine, lambda: self.now)
        self._load_this_tenant()

    def _load_this_tenant(self) -> None:
        self.live.load()

    def ask(self, *asked: Check, min_position: int = 0) -> list[Access]:
        answers, position = asyncio.run(
            check_all(self.live, self.tenant_id, asked, min_position, minute_of(self.now), 0.2)
        )
        assert position >= min_position
        return answers

    def check(self, customer: str, feature: str, amount: str = "") -> Access:
        return self.ask(Check(customer, None, feature, parse_quantity(amount) if amount else None))[0]

    def check_subject(self, subject: str, feature: str) -> Access:
        return self.ask(Check(None, subject, feature, None))[0]


def metered(feature: str, allowance: str, *, soft: bool = False) -> RateCardDraft:
    return RateCardDraft(
        feature, feature_key=feature, template_kind="metered", allowance=allowance, soft_limit=soft
    )


def exact(scaled: int | None) -> Fraction:
    assert scaled is not None
    return Fraction(scaled, QUANTITY_SCALE)
