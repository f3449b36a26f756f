"""Coupons: what they take off, where they are attached, and lines that say so."""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE coupons (
  tenant_id int NOT NULL REFERENCES tenants,
  coupon_id bigint GENERATED ALWAYS AS IDENTITY,
  coupon_key text NOT NULL,
  name text NOT NULL,
  percentage numeric CHECK (percentage > 0 AND percentage <= 100),
  amount numeric CHECK (amount > 0),
  currency text NOT NULL,
  period_count int NOT NULL CHECK (period_count >= 0),
  create_time timestamptz NOT NULL,
  archive_time timestamptz,
  PRIMARY KEY (tenant_id, coupon_id),
  UNIQUE (tenant_id, coupon_key),
  CHECK ((percentage IS NULL) <> (amount IS NULL))
);
CREATE TABLE attached_coupons (
  tenant_id int NOT NULL,
  attached_coupon_id text NOT NULL,
  coupon_id bigint NOT NULL,
  customer_id bigint NOT NULL,
  subscription_id text, -- all of the customer's, if null
  from_time timestamptz NOT NULL,
  to_time timestamptz,
  create_time timestamptz NOT NULL,
  PRIMARY KEY (tenant_id, attached_coupon_id),
  FOREIGN KEY (tenant_id, coupon_id) REFERENCES coupons,
  FOREIGN KEY (tenant_id, customer_id) REFERENCES customers,
  FOREIGN KEY (tenant_id, subscription_id) REFERENCES subscriptions
);
CREATE INDEX ON attached_coupons (tenant_id, customer_id);
ALTER TABLE invoice_lines
  DROP CONSTRAINT invoice_lines_kind_check,
  ADD CONSTRAINT invoice_lines_kind_check
    CHECK (kind IN ('flat', 'usage', 'late_usage', 'minimum', 'coupon')),
  DROP CONSTRAINT invoice_lines_check,
  ADD CONSTRAINT invoice_lines_check CHECK ((kind IN ('minimum', 'coupon')) = (rate_card_id IS NULL)),
  ADD COLUMN coupon_key text NOT NULL DEFAULT '',
  ADD COLUMN attached_coupon_id text NOT NULL DEFAULT '',
  ADD CHECK ((kind = 'coupon') = (attached_coupon_id <> ''));
"""

APP_RIGHTS = {"coupons": "SELECT, INSERT, UPDATE", "attached_coupons": "SELECT, INSERT, UPDATE"}

TENANT_CONDITION = "tenant_id = NULLIF(current_setting('ammeter.tenant', true), '')::int"


def upgrade() -> None:
    """Add both tables, and to a line which coupon it is of."""
    op.execute(TABLES)
    for table, rights in APP_RIGHTS.items():
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        op.execute(f"GRANT {rights} ON {table} TO ammeter_app")
        op.execute(
            f"CREATE POLICY tenant ON {table} TO ammeter_app "
            f"USING ({TENANT_CONDITION}) WITH CHECK ({TENANT_CONDITION})"
        )


def downgrade() -> None:
    """Refuse: invoices would have lines of nothing."""
    message = "invoices have lines of coupons: restore a backup instead"
    raise RuntimeError(message)
