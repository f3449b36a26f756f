"""Let entitlements be made by hand, and give them grants and resets."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

TABLES = """
ALTER TABLE entitlements
  ALTER COLUMN subscription_id DROP NOT NULL,
  ADD COLUMN preserve_overage boolean NOT NULL DEFAULT false,
  ADD COLUMN cadence text,
  ADD COLUMN anchor_time timestamptz,
  ADD COLUMN delete_time timestamptz,
  ADD CHECK (
    kind <> 'metered' OR subscription_id IS NOT NULL OR (cadence IS NOT NULL AND anchor_time IS NOT NULL)
  );

CREATE TABLE grants (
  tenant_id int NOT NULL,
  grant_id text NOT NULL,
  entitlement_id text NOT NULL,
  amount numeric(38, 12) NOT NULL CHECK (amount > 0),
  priority int NOT NULL,
  from_minute int NOT NULL,
  expire_minute int NOT NULL CHECK (expire_minute > from_minute),
  end_minute int NOT NULL CHECK (end_minute <= expire_minute),
  rollover_minimum numeric(38, 12) NOT NULL CHECK (rollover_minimum >= 0),
  rollover_maximum numeric(38, 12) CHECK (rollover_maximum >= rollover_minimum),
  recurrence_cadence text,
  recurrence_anchor_time timestamptz,
  create_time timestamptz NOT NULL,
  void_time timestamptz,
  PRIMARY KEY (tenant_id, grant_id),
  FOREIGN KEY (tenant_id, entitlement_id) REFERENCES entitlements,
  CHECK ((recurrence_cadence IS NULL) = (recurrence_anchor_time IS NULL))
);
CREATE INDEX ON grants (tenant_id, entitlement_id);
CREATE TABLE usage_resets (
  tenant_id int NOT NULL,
  entitlement_id text NOT NULL,
  reset_minute int NOT NULL,
  moves_anchor boolean NOT NULL,
  preserve_overage boolean,
  create_time timestamptz NOT NULL,
  PRIMARY KEY (tenant_id, entitlement_id, reset_minute),
  FOREIGN KEY (tenant_id, entitlement_id) REFERENCES entitlements
);
"""

APP_RIGHTS = {"grants": "SELECT, INSERT, UPDATE", "usage_resets": "SELECT, INSERT"}

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
        op.execute(f"GRANT SELECT ON {table} TO ammeter_engine")
        op.execute(f"CREATE POLICY engine ON {table} TO ammeter_engine USING (true) WITH CHECK (true)")


def downgrade() -> None:
    """Refuse: grants and resets would be lost."""
    message = "grants cannot be taken back: restore a backup instead"
    raise RuntimeError(message)
