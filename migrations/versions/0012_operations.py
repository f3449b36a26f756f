"""Keep operations: work that outlives calls and processes, of a tenant one at a time."""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE operations (
  tenant_id int NOT NULL REFERENCES tenants,
  operation_id text NOT NULL,
  kind text NOT NULL CHECK (kind IN ('generate_invoices')),
  state text NOT NULL CHECK (state IN ('waiting', 'running', 'succeeded', 'failed', 'cancelled')),
  customer_key text NOT NULL,
  issue boolean NOT NULL,
  cursor text NOT NULL,
  done_count bigint NOT NULL,
  total_count bigint NOT NULL,
  invoice_count bigint NOT NULL,
  failed_count bigint NOT NULL,
  error_reason text NOT NULL,
  error_message text NOT NULL,
  create_time timestamptz NOT NULL,
  update_time timestamptz NOT NULL,
  end_time timestamptz,
  cancel_time timestamptz,
  PRIMARY KEY (tenant_id, operation_id),
  CHECK ((end_time IS NULL) = (state IN ('waiting', 'running')))
);
CREATE UNIQUE INDEX operations_running ON operations (tenant_id) WHERE state = 'running';
CREATE INDEX ON operations (tenant_id, operation_id) WHERE end_time IS NULL;
"""

TENANT_CONDITION = "tenant_id = NULLIF(current_setting('ammeter.tenant', true), '')::int"


def upgrade() -> None:
    """Create the table, closed to other tenants; the worker asks who has work."""
    op.execute(TABLES)
    op.execute("ALTER TABLE operations ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE operations FORCE ROW LEVEL SECURITY")
    op.execute("GRANT SELECT, INSERT, UPDATE ON operations TO ammeter_app")
    op.execute(
        "CREATE POLICY tenant ON operations TO ammeter_app "
        f"USING ({TENANT_CONDITION}) WITH CHECK ({TENANT_CONDITION})"
    )
    op.execute("GRANT SELECT ON operations TO ammeter_engine")
    op.execute("CREATE POLICY engine ON operations TO ammeter_engine USING (true) WITH CHECK (true)")


def downgrade() -> None:
    """Drop the table: what operations made stays."""
    op.execute("DROP TABLE operations")
