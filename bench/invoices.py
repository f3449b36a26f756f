"""How fast invoices are made, against pricing the same in one SQL transaction: `python -m bench.invoices`.

Customers with one subscription of five rate cards each, tiered, by five
features of one meter; usage of a month. The run issues an invoice for each,
with details, taxes' look-up, credits and gapless numbers. SQL prices the
same usage from a table of sums by the same tiers and inserts rows of
invoices and lines, in one transaction. Both must come to the same total.
"""

import argparse
import contextlib
import gc
import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from statistics import median

import psycopg
import sqlalchemy as sa

from ammeter.domain.catalog import DimensionFilter, Feature
from ammeter.domain.catalog_rules import PlanDraft, RateCardDraft
from ammeter.domain.credit_lot import LotDraft, LotKind
from ammeter.domain.customer import CustomerDraft
from ammeter.domain.meter import Meter
from ammeter.store import blocks, keys, meters
from ammeter.store.db import Database
from ammeter.store.embedded import EmbeddedPostgres
from ammeter.store.migrate import migrate
from ammeter.usecases import catalog, customers, subscribe
from ammeter.usecases.billing import Billing
from ammeter.usecases.credit_lots import make_lot
from ammeter.usecases.engine import Engine
from ammeter.usecases.generate import generate_invoices
from ammeter.usecases.ids import new_id
from ammeter.usecases.live import Live
from ammeter.usecases.measure import engine_billing, engine_survey
from ammeter.usecases.meters import spec_of
from ammeter.usecases.operations import claim, run_operation, start_generation
from ammeter.usecases.preview import preview_invoice
from ammeter.v1 import usage_pb2
from ammeter.workers.crew import Crew
from ammeter.workers.hand import Setting
from bench.cpu import hands_now, postgres_seconds

FEATURES = 5
START, END = datetime(2025, 3, 1, tzinfo=UTC), datetime(2025, 4, 1, tzinfo=UTC)
HORIZON = timedelta(days=40)
TIERS = ((100, "0.1"), (1000, "0.05"), (10_000, "0.02"), (100_000, "0.01"), (None, "0.005"))
_BATCH = 5_000
_WARM_UP = 1_000
_MIB = 1024


@dataclass
class Shop:
    """A tenant in a database, with an engine."""

    db: Database
    engine: Engine
    live: Live
    tenant_id: int


def quantity(customer: int, feature: int) -> int:
    """Say how much a customer used of a feature: into the third tier, on average."""
    return (customer * 7919 + feature * 104_729) % 4000


@contextlib.contextmanager
def _postgres(directory: Path) -> Iterator[str]:
    directory.chmod(0o711)
    with EmbeddedPostgres(directory / "data") as server:
        migrate(server.url)
        yield server.url


def open_shop(url: str) -> Shop:
    """Make a tenant."""
    db = Database(url)
    with db.engine() as conn:
        tenant_id = keys.insert_tenant(conn, "bench")
    assert tenant_id is not None
    engine = Engine(
        hash_key=bytes(16),
        horizon_past_seconds=40 * 86_400,
        horizon_future_seconds=86_400,
        max_pending_bytes=1 << 28,
    )
    engine.open_tenant(tenant_id, 0, bytes(32))
    return Shop(db, engine, Live(db, engine, lambda: END), tenant_id)


def set_up(shop: Shop, count: int) -> None:
    """Create meter, features, plan, customers and subscriptions; every tenth customer has credits."""
    with shop.db.tenant(shop.tenant_id) as tx:
        meters.insert(tx, Meter("tokens", "", "", "use", "SUM", "n", ("feature",), ()), START)
        made = meters.get_meter(tx, "tokens")
    assert made.build is not None
    with shop.db.engine() as conn:
        meters.activate(conn, shop.tenant_id, made.build.revision_id, 0, [])
    with shop.db.tenant(shop.tenant_id) as tx:
        meter = meters.get_meter(tx, "tokens")
    assert meter.revision_id is not None
    shop.engine.put_meter(shop.tenant_id, spec_of(meter, meter.revision_id, meter.dimensions))
    tiers = [{"up_to": "" if top is None else str(top), "unit_amount": price} for top, price in TIERS]
    cards = []
    for number in range(FEATURES):
        key = f"f{number}"
        with shop.db.tenant(shop.tenant_id) as tx:
            feature = Feature(key, key, "tokens", (DimensionFilter("feature", (key,)),))
            catalog.create_feature(tx, shop.live, feature, START)
        cards.append(RateCardDraft(key, key, key, price_kind="graduated", price={"tiers": tiers}))
    with shop.db.tenant(shop.tenant_id) as tx:
        catalog.create_plan(tx, PlanDraft("plan", "Plan", "USD", "P1M", tuple(cards)), START)
    _copy_first(shop, count)


_COPY_FIRST = """
INSERT INTO customers (tenant_id, customer_key, name, email, currency, time_zone, version, create_time,
    update_time, subjects_time)
  SELECT tenant_id, 'customer-' || lpad(number::text, 6, '0'), name, email, currency, time_zone, version,
    create_time, update_time, subjects_time
  FROM customers, generate_series(1, :last) number WHERE customer_key = 'customer-000000';
INSERT INTO customer_subjects (tenant_id, subject, from_minute, to_minute, customer_id)
  SELECT one.tenant_id, customer_key, from_minute, to_minute, other.customer_id
  FROM customer_subjects one JOIN customers other USING (tenant_id)
  WHERE subject = 'customer-000000' AND customer_key <> subject;
INSERT INTO subscriptions (tenant_id, subscription_id, customer_id, plan_id, start_time, anchor_time,
    create_time, update_time)
  SELECT sub.tenant_id, 'sub_' || customer_key, other.customer_id, plan_id, start_time, anchor_time,
    sub.create_time, sub.update_time
  FROM subscriptions sub JOIN customers other USING (tenant_id) WHERE customer_key <> 'customer-000000';
INSERT INTO subscription_spans
  SELECT tenant_id, other.subscription_id, span.start_time, span.end_time, span.plan_id, phase, quantity
  FROM subscription_spans span JOIN subscriptions other USING (tenant_id)
  WHERE other.subscription_id LIKE 'sub_customer-%'
"""


def _copy_first(shop: Shop, count: int) -> None:
    """Make one customer as callers do, the others by copying its rows; then give every tenth credits."""
    first = "customer-000000"
    with shop.db.tenant(shop.tenant_id) as tx:
        customers.create_customer(tx, shop.live, CustomerDraft(first), [first], START)
        subscribe.create_subscription(tx, shop.live, first, "plan", START, None, START)
    superuser = sa.create_engine(shop.db.url)
    with superuser.begin() as conn:
        for statement in _COPY_FIRST.split(";"):
            conn.execute(sa.text(statement), {"last": count - 1} if ":last" in statement else {})
        conn.execute(sa.text("ANALYZE"))
    superuser.dispose()
    shop.live.load()
    for number in range(0, count, 10):
        with shop.db.tenant(shop.tenant_id) as tx:
            make_lot(tx, LotDraft(f"customer-{number:06d}", Decimal(20)), LotKind.GRANTED, START)


def record(shop: Shop, count: int) -> None:
    """Report a month's usage: one event for each customer and feature."""
    events = []
    for number in range(count):
        for feature in range(FEATURES):
            event = usage_pb2.UsageEvent(
                id=f"{number}.{feature}", source="bench", type="use", subject=f"customer-{number:06d}"
            )
            event.time.FromDatetime(START + timedelta(minutes=(number * 37 + feature) % 44_000))
            event.properties["n"] = str(quantity(number, feature))
            event.properties["feature"] = f"f{feature}"
            events.append(event)
            if len(events) == _BATCH:
                admit(shop, events)
                events = []
    if events:
        admit(shop, events)


def admit(shop: Shop, events: list[usage_pb2.UsageEvent]) -> None:
    """Take events in, and count them; they need not be durable here."""
    now_us = int(END.timestamp()) * 1_000_000
    body = usage_pb2.RecordUsageRequest(events=events).SerializeToString()
    receipt = shop.engine.admit(shop.tenant_id, body, now_us)
    assert receipt.accepted == len(events), receipt.rejections
    group = shop.engine.seal(now_us)
    assert group is not None
    shop.engine.fold(group)


def checkpoint(shop: Shop) -> None:
    """Write all usage to blocks, as the server does every few seconds; memory has none of it afterwards."""
    frozen = shop.engine.freeze()
    with shop.db.engine() as conn:
        blocks.insert(conn, frozen.blocks, 0, 1)
        blocks.move_checkpoints(conn, frozen.positions)
        conn.execute(sa.text("ANALYZE blocks"))
    shop.engine.discard(frozen)


def warm_up(shop: Shop, billing: Billing) -> int:
    """Issue the first invoices and have Postgres count rows, as it does of itself within a minute.

    What it plans for tables that it believes to be empty is slow when they are
    not. Returns how many.
    """
    made = 0
    steps = generate_invoices(
        billing, shop.tenant_id, "", issue=True, now=END, must_end=lambda: made >= _WARM_UP
    )
    for step in steps:
        made += step.invoice is not None
    owner = sa.create_engine(shop.db.url)
    with owner.begin() as conn:
        conn.execute(sa.text("ANALYZE"))
    owner.dispose()
    return made


def run(shop: Shop, billing: Billing) -> int:
    """Issue every invoice by an operation, and tell how memory grows; returns how many."""
    with shop.db.tenant(shop.tenant_id) as tx:
        start_generation(tx, new_id("op", END), "", issue=True, now=END)
    operation = claim(billing, shop.tenant_id, END)
    assert operation is not None
    made = 0
    for step in run_operation(billing, shop.tenant_id, operation, lambda: END, whole=False):
        made += step.invoice is not None
        if made % 10_000 == 1 and step.invoice is not None:
            print(f"  {made:,} invoices, {_memory():,} MiB", file=sys.stderr)
    return made


def _memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // _MIB


_PRICE = """
CREATE TABLE bench_usage (customer int, feature int, quantity numeric, PRIMARY KEY (customer, feature));
CREATE TABLE bench_tiers (floor numeric, ceiling numeric, price numeric);
CREATE TABLE bench_invoices (customer int PRIMARY KEY, total numeric);
CREATE TABLE bench_lines (customer int, feature int, quantity numeric, amount numeric,
  PRIMARY KEY (customer, feature));
"""
_RUN = """
WITH priced AS (
  SELECT customer, feature, quantity, round(sum(
    greatest(least(quantity, coalesce(ceiling, quantity)) - floor, 0) * price), 2) AS amount
  FROM bench_usage CROSS JOIN bench_tiers GROUP BY customer, feature, quantity
), lines AS (
  INSERT INTO bench_lines SELECT customer, feature, quantity, amount FROM priced
  RETURNING customer, amount
)
INSERT INTO bench_invoices SELECT customer, sum(amount) FROM lines GROUP BY customer
"""


def run_sql(url: str, directory: str, count: int) -> tuple[float, float, Decimal]:
    """Price the same in one transaction; returns the seconds, those of CPU time, and the total."""
    with psycopg.connect(url) as conn:
        conn.execute(_PRICE)
        with conn.cursor().copy("COPY bench_usage FROM STDIN") as rows:
            for number in range(count):
                for feature in range(FEATURES):
                    rows.write_row((number, feature, quantity(number, feature)))
        floor = 0
        for top, price in TIERS:
            conn.execute("INSERT INTO bench_tiers VALUES (%s, %s, %s)", (floor, top, price))
            floor = top or 0
        conn.commit()
        conn.execute("ANALYZE")
        busy, started = postgres_seconds(directory), time.perf_counter()
        conn.execute(_RUN)
        conn.commit()
        seconds, busy = time.perf_counter() - started, postgres_seconds(directory) - busy
        row = conn.execute("SELECT sum(total) FROM bench_invoices").fetchone()
        assert row is not None
        return seconds, busy, row[0]


def preview(shop: Shop, billing: Billing, events: int, *, in_blocks: bool) -> float:
    """Preview one customer's month of so many events; returns the median of milliseconds."""
    batch = []
    for number in range(events):
        event = usage_pb2.UsageEvent(
            id=f"big.{number}", source="bench", type="use", subject="customer-000000"
        )
        event.time.FromDatetime(START + timedelta(seconds=number * 2_600_000 // events))
        event.properties["n"] = "1"
        event.properties["feature"] = f"f{number % FEATURES}"
        batch.append(event)
        if len(batch) == _BATCH:
            admit(shop, batch)
            batch = []
    if batch:
        admit(shop, batch)
    if in_blocks:
        checkpoint(shop)
    now = END - timedelta(minutes=1)
    times = []
    for _ in range(20):
        started = time.perf_counter()
        shown = preview_invoice(billing, shop.tenant_id, "customer-000000", "", now)
        times.append((time.perf_counter() - started) * 1000)
    assert sum(line.quantity for line in shown.lines) >= events
    return median(times)


def measure(customers: int, preview_events: int, *, in_blocks: bool, processes: int) -> dict[str, float]:
    """Bill that many customers, then the same in SQL, which must come to the same; and preview one month."""
    with tempfile.TemporaryDirectory() as directory, _postgres(Path(directory)) as url:
        shop = open_shop(url)
        billing = engine_billing(shop.db, shop.engine, HORIZON)
        setting = Setting(
            shop.db.url.render_as_string(hide_password=False), HORIZON, log_level="info", log_format="console"
        )
        crew = Crew(processes, billing, engine_survey(shop.db, shop.engine), setting)
        billing = crew.put_to(billing)
        set_up(shop, customers)
        record(shop, customers)
        if in_blocks:
            checkpoint(shop)
        warm = warm_up(shop, billing)
        before = _memory()
        gc.freeze()  # as the server does
        own_before = hands_now().seconds
        theirs, own, started = postgres_seconds(directory), time.process_time(), time.perf_counter()
        made = run(shop, billing)
        seconds = time.perf_counter() - started
        theirs, own = postgres_seconds(directory) - theirs, time.process_time() - own
        hands = hands_now()
        own += hands.seconds - own_before
        crew.stop()
        assert warm + made == customers
        with shop.db.tenant(shop.tenant_id) as tx:
            total = tx.conn.execute(sa.text("SELECT sum(total) FROM invoices")).scalar_one()
        sql_seconds, sql_busy, sql_total = run_sql(url, directory, customers)
        assert total == sql_total, (total, sql_total)
        milliseconds = preview(shop, billing, preview_events, in_blocks=in_blocks)
        shop.db.close()
    rate, sql_rate = made / seconds, customers / sql_seconds
    return {
        "invoices": made,
        "per_second": rate,
        "cpu_seconds": own,
        "cpu_seconds_of_postgres": theirs,
        "sql_per_second": sql_rate,
        "sql_cpu_seconds": sql_busy,
        "of_sql": rate / sql_rate,
        "of_sql_by_cpu": (made / (own + theirs)) / (customers / sql_busy),
        "mib_before": before,
        "mib_after": _memory(),
        "processes": processes,
        "mib_of_processes": hands.mib,
        "preview_events": preview_events,
        "preview_ms": milliseconds,
    }


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--customers", type=int, default=3000)
    parser.add_argument("--preview-events", type=int, default=100_000)
    parser.add_argument("--blocks", action="store_true", help="usage is in the database, not in memory")
    parser.add_argument("--processes", type=int, default=2, help="that make invoices; 0: the server's own")
    options = parser.parse_args()
    found = measure(
        options.customers, options.preview_events, in_blocks=options.blocks, processes=options.processes
    )
    print(f"load {os.getloadavg()[0]:.1f}")
    for name, value in found.items():
        print(f"{name:24} {value:,.3f}".rstrip("0").rstrip("."))


if __name__ == "__main__":
    main()
