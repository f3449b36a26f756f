"""Add-ons: plans beside a subscription's own."""

from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE add_ons (
  tenant_id int NOT NULL,
  add_on_id text NOT NULL,
  subscription_id text NOT NULL,
  plan_id bigint NOT NULL,
  quantity int NOT NULL CHECK (quantity > 0),
  from_time timestamptz NOT NULL,
  to_time timestamptz,
  create_time timestamptz NOT NULL,
  PRIMARY KEY (tenant_id, add_on_id),
  FOREIGN KEY (tenant_id, subscription_id) REFERENCES subscriptions,
  FOREIGN KEY (tenant_id, plan_id) REFERENCES plans
);
CREATE INDEX ON add_ons (tenant_id, subscription_id);
"""

TENANT_CONDITION = "tenant_id = NULLIF(current_setting('ammeter.tenant', true), '')::int"


def upgrade() -> None:
    """Add the table."""
    op.execute(TABLES)
    op.execute("ALTER TABLE add_ons ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE add_ons FORCE ROW LEVEL SECURITY")
    op.execute("GRANT SELECT, INSERT, UPDATE ON add_ons TO ammeter_app")
    op.execute(
        "CREATE POLICY tenant ON add_ons TO ammeter_app "
        f"USING ({TENANT_CONDITION}) WITH CHECK ({TENANT_CONDITION})"
    )


def downgrade() -> None:
    """Refuse: what was sold would be forgotten."""
    message = "add-ons were sold: restore a backup instead"
    raise RuntimeError(message)
