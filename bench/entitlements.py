"""How long a server takes to load entitlements at its start, in how much memory; what first checks cost.

`python -m bench.entitlements [COUNT] [PER_CUSTOMER]`: fills a database by SQL, loads it, and checks
every entitlement twice.
"""

import os
import resource
import shutil
import statistics
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
from ammeter.usecases.check import Check, check
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
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(f"{engine.stats()['counters']:,} entitlements of {len(live.customers):,} customers:")
    print(
        f"{seconds:.1f} s, {cpu:.1f} s of CPU; {_mib(process.memory_info().rss - before)} MiB more, "
        f"{_mib(most)} in all at most; load {os.getloadavg()[0]:.1f}"
    )
    features = sorted({key for _, key in live.features})
    for which in ("first", "second"):
        took = _check_all(live, features)
        print(
            f"{which} check of each: {statistics.fmean(took) * 1e6:.1f} us of CPU, of a customer's first one "
            f"{statistics.fmean(took[:: len(features)]) * 1e6:.1f} us, "
            f"at most {max(took) * 1e6:,.0f}; {_mib(process.memory_info().rss - before)} MiB"
        )


def _check_all(live: Live, features: list[str]) -> list[float]:
    """Check every entitlement; returns the CPU-seconds of each, those of a customer in a row."""
    minute = int(time.time()) // 60
    took = []
    names = [f"customer-{number + 1}" for number in range(len(live.customers))]
    for name in names:
        for feature in features:
            began = time.thread_time()
            access = check(live, 1, Check(name, None, feature, None), minute)
            took.append(time.thread_time() - began)
            assert access.access, (name, feature, access)
    return took


def _mib(size: float) -> str:
    return f"{size / 2**20:,.0f}"


if __name__ == "__main__":
    if sys.argv[1:2] == ["load"]:
        load(sys.argv[2])
    else:
        main()
