"""Freeze usage by group with the lines of an invoice, for its annex."""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE invoice_usage (
  tenant_id int NOT NULL,
  invoice_id text NOT NULL,
  line_id text NOT NULL,
  names text[] NOT NULL,
  rows jsonb NOT NULL,
  left_out_count int NOT NULL,
  PRIMARY KEY (tenant_id, invoice_id, line_id),
  FOREIGN KEY (tenant_id, invoice_id, line_id) REFERENCES invoice_lines
);
CREATE FUNCTION refuse_frozen_usage() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP <> 'INSERT' OR EXISTS (
    SELECT FROM invoices
    WHERE tenant_id = NEW.tenant_id AND invoice_id = NEW.invoice_id AND state <> 'draft'
  ) THEN
    RAISE EXCEPTION 'usage of an issued invoice never changes' USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER frozen BEFORE INSERT OR UPDATE OR DELETE ON invoice_usage
  FOR EACH ROW EXECUTE FUNCTION refuse_frozen_usage();
"""

TENANT_CONDITION = "tenant_id = NULLIF(current_setting('ammeter.tenant', true), '')::int"


def upgrade() -> None:
    """Create the table, closed to other tenants."""
    op.execute(TABLES)
    op.execute("ALTER TABLE invoice_usage ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE invoice_usage FORCE ROW LEVEL SECURITY")
    op.execute("GRANT SELECT, INSERT ON invoice_usage TO ammeter_app")
    op.execute(
        "CREATE POLICY tenant ON invoice_usage TO ammeter_app "
        f"USING ({TENANT_CONDITION}) WITH CHECK ({TENANT_CONDITION})"
    )


def downgrade() -> None:
    """Refuse: issued invoices would lose a part."""
    message = "invoices were issued under this schema: restore a backup instead"
    raise RuntimeError(message)
