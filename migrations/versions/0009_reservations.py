"""Hold balance for work in flight."""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

# No foreign keys: the writer alone writes these rows, from customers that it
# knows, and a key would lock the customer's row in each commit.
TABLES = """
CREATE TABLE reservations (
  tenant_id int NOT NULL,
  reservation_id text NOT NULL,
  customer_id bigint NOT NULL,
  feature_key text NOT NULL,
  subject text NOT NULL,
  lease boolean NOT NULL,
  generation int NOT NULL,
  version int NOT NULL,
  wanted numeric(38, 12) NOT NULL CHECK (wanted >= 0),
  granted numeric(38, 12) NOT NULL CHECK (granted > 0),
  held numeric(38, 12) NOT NULL CHECK (held >= 0),
  settled numeric(38, 12) NOT NULL CHECK (settled >= 0),
  state text NOT NULL CHECK (state IN ('held', 'settled', 'released')),
  late boolean NOT NULL,
  create_time timestamptz NOT NULL,
  expire_time timestamptz NOT NULL,
  hold_time timestamptz NOT NULL,
  end_time timestamptz,
  PRIMARY KEY (tenant_id, reservation_id),
  CHECK ((state = 'held') = (end_time IS NULL))
);
CREATE INDEX ON reservations (tenant_id, customer_id, reservation_id);
CREATE INDEX reservations_that_hold ON reservations (hold_time) WHERE state = 'held';
"""

APP_RIGHTS = {"reservations": "SELECT"}
ENGINE_RIGHTS = {"reservations": "SELECT, INSERT, UPDATE, DELETE"}

TENANT_CONDITION = "tenant_id = NULLIF(current_setting('ammeter.tenant', true), '')::int"


def upgrade() -> None:
    """Create the table, closed to other tenants; let the writer keep its answers."""
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
    op.execute("GRANT INSERT ON requests TO ammeter_engine")


def downgrade() -> None:
    """Refuse: holds would be lost."""
    message = "reservations cannot be taken back: restore a backup instead"
    raise RuntimeError(message)
