"""Let tenants say what they want to be told, and keep what was told."""

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

# Notifications have no foreign keys: they stay when rules go, and the writer
# alone writes them. The unique key is what tells each thing once.
TABLES = """
CREATE TABLE thresholds (
  tenant_id int NOT NULL REFERENCES tenants,
  threshold_id text NOT NULL,
  customer_id bigint,
  feature_id bigint,
  kind text NOT NULL CHECK (kind IN ('USAGE', 'BALANCE', 'LOW_BALANCE', 'EXHAUSTED', 'RESET')),
  amount numeric(38, 12) CHECK (amount >= 0),
  percent numeric(38, 12) CHECK (percent >= 0),
  create_time timestamptz NOT NULL,
  PRIMARY KEY (tenant_id, threshold_id),
  FOREIGN KEY (tenant_id, customer_id) REFERENCES customers,
  FOREIGN KEY (tenant_id, feature_id) REFERENCES features ON DELETE CASCADE,
  CHECK (num_nonnulls(amount, percent) = (kind IN ('USAGE', 'BALANCE', 'LOW_BALANCE'))::int)
);
CREATE TABLE notifications (
  tenant_id int NOT NULL,
  sequence bigint NOT NULL,
  threshold_id text NOT NULL,
  counter bigint NOT NULL,
  period_start_minute int NOT NULL,
  period_end_minute int NOT NULL,
  threshold jsonb NOT NULL,
  entitlement_id text NOT NULL,
  customer_key text NOT NULL,
  feature_key text NOT NULL,
  usage numeric(38, 12) NOT NULL,
  balance numeric(38, 12) NOT NULL,
  overage numeric(38, 12) NOT NULL,
  create_time timestamptz NOT NULL,
  PRIMARY KEY (tenant_id, sequence),
  UNIQUE (tenant_id, threshold_id, counter, period_start_minute)
);
CREATE INDEX ON notifications (period_end_minute);
"""

APP_RIGHTS = {"thresholds": "SELECT, INSERT, DELETE", "notifications": "SELECT"}
ENGINE_RIGHTS = {"thresholds": "SELECT", "notifications": "SELECT, INSERT"}

TENANT_CONDITION = "tenant_id = NULLIF(current_setting('ammeter.tenant', true), '')::int"


def upgrade() -> None:
    """Create both tables, closed to other tenants."""
    op.execute(TABLES)
    for table, rights in APP_RIGHTS.items():
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        op.execute(f"GRANT {rights} ON {table} TO ammeter_app")
        op.execute(
            f"CREATE POLICY tenant ON {table} TO ammeter_app "
            f"USING ({TENANT_CONDITION}) WITH CHECK ({TENANT_CONDITION})"
        )
        op.execute(f"GRANT {ENGINE_RIGHTS[table]} ON {table} TO ammeter_engine")
        op.execute(f"CREATE POLICY engine ON {table} TO ammeter_engine USING (true) WITH CHECK (true)")


def downgrade() -> None:
    """Refuse: what was told would be told again."""
    message = "notifications cannot be taken back: restore a backup instead"
    raise RuntimeError(message)
