"""How long a server takes to load entitlements at its start, and in how much memory.

`python -m bench.entitlements [COUNT] [PER_CUSTOMER]`: fills a database of its own by SQL, then loads it.
"""

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import psycopg

from ammeter.store import meters
from ammeter.store.db import Database
from ammeter.store.migrate import migrate
from ammeter.usecases.engine import Engine
from ammeter.usecases.live import Live
from ammeter.usecases.meters import spec_of
from bench.machine import new_database, postgres

_FILL = """
INSERT INTO meters (tenant_id, meter_key, name, description, event_type, aggregation, value_property,
  filters, version, create_time, update_time)
  VALUES (1, 'tokens', '', '', 'use', 'SUM', 'n', '[]', 1, now(), now());
INSERT INTO meter_revisions (tenant_id, meter_id, dimensions, state, build_done, build_total, skipped_count,
  skipped_events) SELECT 1, meter_id, '{}', 'active', 0, 0, 0, '{}' FROM meters;
INSERT INTO features (tenant_id, feature_key, name, meter_id, filters, create_time)
  SELECT 1, 'feature-' || n, '', meter_id, '[]', now() FROM meters, generate_series(1, %(each)s) n;
INSERT INTO customers (tenant_id, customer_key, name, email, currency, time_zone, version, create_time,
  update_time, subjects_time)
  SELECT 1, 'customer-' || n, '', '', 'USD', 'UTC', 1, now(), now(), now()
  FROM generate_series(1, %(customers)s) n;
INSERT INTO customer_subjects (tenant_id, subject, from_minute, to_minute, customer_id)
  SELECT 1, customer_key, -2147483648, 2147483647, customer_id FROM customers;
INSERT INTO entitlements (tenant_id, entitlement_id, customer_id, feature_id, kind, allowance, soft_limit,
  from_time, preserve_overage, cadence, anchor_time)
  SELECT 1, 'ent_' || lpad((customer_id * 1000 + feature_id)::text, 26, '0'), customer_id, feature_id,
    'metered', 1000, false, date_trunc('minute', now()) - interval '1 day' * (customer_id % 28),
    false, 'P1M', date_trunc('minute', now()) - interval '1 day' * (customer_id % 28)
  FROM customers, features;
ANALYZE;
"""


def main() -> None:
    """Fill, load in a process of its own, report."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    each = int(sys.argv[2]) if len(sys.argv) > 2 else 10  # noqa: PLR2004
    directory = Path(tempfile.mkdtemp(prefix="ammeter-bench-"))
    directory.chmod(0o711)
    try:
        with postgres(directory) as running:
            url = new_database(running.url, "entitlements")
            migrate(url)
            with psycopg.connect(url, autocommit=True) as conn:
                conn.execute("INSERT INTO tenants (tenant_key, create_time) VALUES ('bench', now())")
                numbers = {"each": each, "customers": count // each}
                for statement in _FILL.strip().split(";\n"):
                    text = statement.strip().rstrip(";")
                    for name, value in numbers.items():
                        text = text.replace(f"%({name})s", str(value))
                    conn.execute(text.encode())
            subprocess.run([sys.executable, "-m", "bench.entitlements", "load", url], check=True)  # noqa: S603
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def load(url: str) -> None:
    """Load all, as a server does after recovery."""
    db = Database(url)
    engine = Engine(hash_key=bytes(16), horizon_past_seconds=1, horizon_future_seconds=1, max_pending_bytes=1)
    engine.open_tenant(1, 0, bytes(32))
    with db.tenant(1) as tx:
        meter = meters.get_meter(tx, "tokens")
    engine.put_meter(1, spec_of(meter, meter.revision_id or 0, meter.dimensions))
    process = psutil.Process()
    before, began, busy = process.memory_info().rss, time.monotonic(), time.process_time()
    live = Live(db, engine)
    live.load()
    seconds, cpu = time.monotonic() - began, time.process_time() - busy
    held = (process.memory_info().rss - before) / 2**20
    entitlements = sum(len(one.entitlements) for one in live.by_id.values())
    print(
        f"{entitlements:,} entitlements of {len(live.by_id):,} customers: "
        f"{seconds:.1f} s ({cpu:.1f} s of CPU), {held:,.0f} MiB"
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["load"]:
        load(sys.argv[2])
    else:
        main()
