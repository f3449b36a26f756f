"""Other prices for single subscriptions, and lines that say so."""

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE price_overrides (
  tenant_id int NOT NULL,
  price_override_id text NOT NULL,
  subscription_id text NOT NULL,
  rate_card_key text NOT NULL,
  from_time timestamptz NOT NULL,
  to_time timestamptz,
  price jsonb, -- the rate card's, if null
  terms jsonb NOT NULL, -- by name; a null takes the rate card's away
  reason text NOT NULL,
  create_time timestamptz NOT NULL,
  PRIMARY KEY (tenant_id, price_override_id),
  FOREIGN KEY (tenant_id, subscription_id) REFERENCES subscriptions
);
CREATE INDEX ON price_overrides (tenant_id, subscription_id);
ALTER TABLE invoice_lines ADD COLUMN price_override_id text NOT NULL DEFAULT '';
"""

TENANT_CONDITION = "tenant_id = NULLIF(current_setting('ammeter.tenant', true), '')::int"


def upgrade() -> None:
    """Add the table, and to a line by which override it was priced."""
    op.execute(TABLES)
    op.execute("ALTER TABLE price_overrides ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE price_overrides FORCE ROW LEVEL SECURITY")
    op.execute("GRANT SELECT, INSERT, UPDATE ON price_overrides TO ammeter_app")
    op.execute(
        "CREATE POLICY tenant ON price_overrides TO ammeter_app "
        f"USING ({TENANT_CONDITION}) WITH CHECK ({TENANT_CONDITION})"
    )


def downgrade() -> None:
    """Refuse: what was agreed would be forgotten."""
    message = "prices were agreed on with customers: restore a backup instead"
    raise RuntimeError(message)
