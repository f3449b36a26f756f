"""The migration that gives plans versions, over a database that has subscriptions and invoices already."""

from collections.abc import Iterator
from contextlib import closing

import alembic.command
import psycopg
import pytest
import sqlalchemy as sa

from ammeter.store import catalog, invoices, subscriptions
from ammeter.store.db import Database, driver_url
from ammeter.store.embedded import EmbeddedPostgres
from ammeter.store.migrate import _config, migrate

BEFORE = """
INSERT INTO tenants (tenant_key) VALUES ('old');
INSERT INTO customers (tenant_id, customer_key, name, email, currency, time_zone, version)
  SELECT tenant_id, 'acme', '', '', 'USD', 'UTC', 1 FROM tenants WHERE tenant_key = 'old';
INSERT INTO plans (tenant_id, plan_key, name, currency, billing_cadence, state, create_time, archive_time)
  SELECT tenant_id, key, '', 'USD', 'P1M', state, '2026-01-01Z', gone::timestamptz
  FROM tenants, (VALUES ('open', 'active', NULL), ('closed', 'archived', '2026-01-05Z'))
    AS made (key, state, gone)
  WHERE tenant_key = 'old';
INSERT INTO rate_cards (tenant_id, plan_id, ordinal, rate_card_key, name, price)
  SELECT tenant_id, plan_id, 0, 'fee', 'Fee', '{"kind": "flat", "amount": "20"}' FROM plans;
INSERT INTO subscriptions
  (tenant_id, subscription_id, customer_id, plan_id, start_time, end_time, anchor_time, create_time,
   cancel_time)
  SELECT tenant_id, 'sub_' || plan_key, customer_id, plan_id, '2026-01-01Z', gone::timestamptz, '2026-01-01Z',
    '2026-01-01Z', said::timestamptz
  FROM plans JOIN customers USING (tenant_id)
  JOIN (VALUES ('open', NULL, NULL), ('closed', '2026-01-20Z', '2026-01-10Z')) AS made (plan_key, gone, said)
    USING (plan_key);
INSERT INTO invoices
  (tenant_id, invoice_id, number, state, customer_id, subscription_id, period_index, ordinal, currency,
   period_start_time, period_end_time, total, position, issue_time, subtotal)
  SELECT tenant_id, 'inv_old', 1, 'issued', customer_id, subscription_id, 0, 0, 'USD',
    '2026-01-01Z', '2026-02-01Z', 20, 0, now(), 20
  FROM subscriptions WHERE subscription_id = 'sub_open';
"""


@pytest.fixture
def url(postgres: EmbeddedPostgres) -> Iterator[str]:
    base, _, rest = postgres.url.partition("/ammeter?")
    with psycopg.connect(f"{base}/postgres?{rest}", autocommit=True) as conn:
        conn.execute("CREATE DATABASE before_versions")
    yield f"{base}/before_versions?{rest}"
    with psycopg.connect(f"{base}/postgres?{rest}", autocommit=True) as conn:
        conn.execute("DROP DATABASE before_versions")


def test_plans_become_their_first_version_and_subscriptions_one_span_on_it(url: str) -> None:
    engine = sa.create_engine(driver_url(url), poolclass=sa.NullPool)
    with engine.begin() as conn:
        alembic.command.upgrade(_config(conn), "0007")
    with psycopg.connect(url, autocommit=True) as old:
        old.execute(BEFORE.encode())
    assert migrate(url)[0] == "0008"
    with closing(Database(url)) as db:
        with db.engine() as reading:
            find = sa.text("SELECT tenant_id FROM tenants WHERE tenant_key = 'old'")
            tenant_id = reading.execute(find).scalar_one()
        with db.tenant(tenant_id) as tx:
            active, archived = (catalog.get_plan(tx, key) for key in ("open", "closed"))
            assert active is not None
            assert archived is not None
            assert (active.version, active.state, active.publish_time) == (1, "active", active.create_time)
            assert (archived.version, archived.state) == (1, "archived")
            assert active.cards_of(0) == active.rate_cards
            found = {one.subscription_id: one for one in subscriptions.page(tx, None, "", 10)}
            (span,) = found["sub_open"].spans
            assert (span.plan_id, span.start_time, span.end_time) == (
                active.plan_id,
                found["sub_open"].start_time,
                None,
            )
            (ended,) = found["sub_closed"].stretches
            assert ended.end_time == found["sub_closed"].end_time
            invoice = invoices.get_invoice(tx, "inv_old")
            assert (invoice.plan_key, invoice.plan_version) == ("open", 1)
    with psycopg.connect(url) as conn2, pytest.raises(psycopg.errors.RestrictViolation):
        conn2.execute("UPDATE invoices SET plan_id = 2")
