"""A month of history: what is asked of it, and what of it is read for one customer."""

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from google.protobuf.timestamp_pb2 import Timestamp

from ammeter.client import Client
from ammeter.store import blocks
from ammeter.store.db import Database
from ammeter.v1 import usage_pb2
from bench.kinds import Kind

MONTH_DAYS = 30
# The gate of what is sent looks at yesterday and today; history ends before.
GAP_DAYS = 3
_SECONDS_PER_DAY = 86_400
_PAGE = 10_000
_WAIT_SECONDS = 120.0
CUSTOMER = "customer-00000"


def last_day() -> int:
    """Say which day history ends before, since the epoch."""
    return int(time.time()) // _SECONDS_PER_DAY - GAP_DAYS


def customer_month(client: Client, kind: Kind) -> int:
    """Ask for one customer's month by day; returns the number of rows."""
    request = _month(kind)
    request.customer_keys.append(CUSTOMER)
    request.window_size = usage_pb2.WINDOW_SIZE_DAY
    return len(client.usage.QueryUsage(request).rows)


def rows_by_subject(client: Client, kind: Kind) -> int:
    """Ask for everybody's month, all pages of it; returns the number of rows."""
    request = _month(kind)
    request.group_by.extend(["subject", *kind.dimensions])
    count = 0
    while True:
        page = client.usage.QueryUsage(request)
        count += len(page.rows)
        if not page.next_page_token:
            return count
        request.page_token = page.next_page_token


def wait_until_written(url: str) -> None:
    """Wait until blocks hold all that is in the segments."""
    deadline = time.monotonic() + _WAIT_SECONDS
    query = (
        "SELECT count(*) FROM heads LEFT JOIN checkpoints USING (tenant_id) "
        "WHERE heads.position > coalesce(checkpoints.position, 0)"
    )
    with psycopg.connect(url, autocommit=True) as conn:
        while conn.execute(query).fetchone() != (0,):
            assert time.monotonic() < deadline, "no checkpoint is written"
            time.sleep(0.1)


def blocks_of(url: str, kind: Kind) -> dict[str, Any]:
    """Count the blocks that a customer's month is read from, and those that the month has."""
    db = Database(url)
    meter = next(iter(kind.meters))
    with psycopg.connect(url) as conn:
        query = (
            "SELECT r.tenant_id, r.revision_id FROM meter_revisions r "
            "JOIN meters USING (tenant_id, meter_id) WHERE meter_key = %s AND state = 'active'"
        )
        row = conn.execute(query, [meter]).fetchone()
        assert row is not None
        tenant_id, revision_id = row
        who = conn.execute("SELECT customer_id FROM customers WHERE customer_key = %s", [CUSTOMER]).fetchone()
        assert who is not None
    days = last_day() - MONTH_DAYS, last_day()
    with db.tenant(tenant_id) as tx:
        ours, _ = blocks.read(tx.conn, tenant_id, revision_id, *days, (), who)
        everybody, _ = blocks.read(tx.conn, tenant_id, revision_id, *days)
    db.close()
    return {
        "blocks_of_customer": len(ours),
        "kib_of_customer": sum(map(len, ours)) / 1024,
        "blocks_of_month": len(everybody),
        "kib_of_month": sum(map(len, everybody)) / 1024,
    }


def _month(kind: Kind) -> usage_pb2.QueryUsageRequest:
    end = datetime.fromtimestamp(last_day() * _SECONDS_PER_DAY, UTC)
    return usage_pb2.QueryUsageRequest(
        meter_key=next(iter(kind.meters)),
        from_time=_time(end - timedelta(days=MONTH_DAYS)),
        to_time=_time(end),
        page_size=_PAGE,
    )


def _time(moment: datetime) -> Timestamp:
    return Timestamp(seconds=int(moment.timestamp()))
