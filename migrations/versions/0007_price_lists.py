"""Price lists: what a unit of a model costs, from which minute on."""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE price_lists (
  tenant_id int NOT NULL REFERENCES tenants,
  price_list_id bigint GENERATED ALWAYS AS IDENTITY,
  price_list_key text NOT NULL,
  name text NOT NULL,
  currency text NOT NULL,
  version bigint NOT NULL,
  create_time timestamptz NOT NULL,
  update_time timestamptz NOT NULL,
  PRIMARY KEY (tenant_id, price_list_id),
  UNIQUE (tenant_id, price_list_key)
);
CREATE TABLE price_list_entries (
  tenant_id int NOT NULL,
  price_list_id bigint NOT NULL,
  token_type text NOT NULL,
  model text NOT NULL,
  effective_minute int NOT NULL,
  layer text NOT NULL CHECK (layer IN ('list', 'override')),
  unit_amount numeric CHECK (unit_amount >= 0), -- withdrawn, if null
  write_time timestamptz NOT NULL,
  in_past boolean NOT NULL, -- written when its time had passed
  PRIMARY KEY (tenant_id, price_list_id, token_type, model, effective_minute, layer),
  FOREIGN KEY (tenant_id, price_list_id) REFERENCES price_lists
);
CREATE INDEX ON price_list_entries (tenant_id, price_list_id, token_type, write_time) WHERE in_past;
ALTER TABLE invoice_lines ADD COLUMN unpriced_models text[] NOT NULL DEFAULT '{}';
"""

APP_RIGHTS = {"price_lists": "SELECT, INSERT, UPDATE", "price_list_entries": "SELECT, INSERT, UPDATE"}

TENANT_CONDITION = "tenant_id = NULLIF(current_setting('ammeter.tenant', true), '')::int"


def upgrade() -> None:
    """Add both tables, and to a line what it could not price."""
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
    """Refuse: rate cards would name what is not there."""
    message = "rate cards refer to price lists: restore a backup instead"
    raise RuntimeError(message)
