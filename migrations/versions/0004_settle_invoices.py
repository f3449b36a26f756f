"""Settle invoices: how they are paid, taxed and credited, and who says so.

Triggers refuse to change what was issued, whoever asks: the application does
not try to, and cannot.
"""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

INVOICES = """
ALTER TABLE invoices
  DROP CONSTRAINT invoices_state_check,
  DROP CONSTRAINT invoices_check,
  ADD CONSTRAINT invoices_state_check
    CHECK (state IN ('draft', 'issued', 'paid', 'uncollectible', 'void')),
  ADD CONSTRAINT invoices_number_check CHECK (state IN ('draft', 'void') OR number IS NOT NULL),
  ADD COLUMN number_text text NOT NULL DEFAULT '',
  ADD COLUMN subtotal numeric,
  ADD COLUMN taxes jsonb NOT NULL DEFAULT '[]',
  ADD COLUMN terms jsonb NOT NULL DEFAULT '{}',
  ADD COLUMN due_time timestamptz,
  ADD COLUMN paid_time timestamptz,
  ADD COLUMN payment_reference text NOT NULL DEFAULT '',
  ADD COLUMN uncollectible_time timestamptz,
  ADD COLUMN automatic_issue_time timestamptz,
  ADD COLUMN replaces_invoice_id text NOT NULL DEFAULT '';
UPDATE invoices SET
  subtotal = total, number_text = coalesce(number::text, ''), due_time = issue_time;
ALTER TABLE invoices ALTER COLUMN subtotal SET NOT NULL;
CREATE INDEX ON invoices (tenant_id, automatic_issue_time) WHERE state = 'draft';
"""

TABLES = """
CREATE TABLE tax_rates (
  tenant_id int NOT NULL REFERENCES tenants,
  tax_rate_key text NOT NULL,
  name text NOT NULL,
  percentage numeric NOT NULL CHECK (percentage BETWEEN 0 AND 100),
  inclusive boolean NOT NULL,
  note text NOT NULL,
  create_time timestamptz NOT NULL,
  archive_time timestamptz,
  PRIMARY KEY (tenant_id, tax_rate_key)
);
CREATE TABLE billing_profiles (
  tenant_id int NOT NULL REFERENCES tenants,
  customer_id bigint,
  profile jsonb NOT NULL,
  version bigint NOT NULL,
  update_time timestamptz NOT NULL,
  UNIQUE NULLS NOT DISTINCT (tenant_id, customer_id),
  FOREIGN KEY (tenant_id, customer_id) REFERENCES customers
);
CREATE TABLE credit_notes (
  tenant_id int NOT NULL,
  credit_note_id text NOT NULL,
  number bigint NOT NULL,
  number_text text NOT NULL,
  invoice_id text NOT NULL,
  reason text NOT NULL,
  subtotal numeric NOT NULL,
  taxes jsonb NOT NULL,
  total numeric NOT NULL,
  create_time timestamptz NOT NULL,
  PRIMARY KEY (tenant_id, credit_note_id),
  UNIQUE (tenant_id, number),
  FOREIGN KEY (tenant_id, invoice_id) REFERENCES invoices
);
CREATE INDEX ON credit_notes (tenant_id, invoice_id);
CREATE TABLE credit_note_lines (
  tenant_id int NOT NULL,
  credit_note_id text NOT NULL,
  line_id text NOT NULL,
  ordinal int NOT NULL,
  description text NOT NULL,
  amount numeric NOT NULL,
  PRIMARY KEY (tenant_id, credit_note_id, line_id),
  FOREIGN KEY (tenant_id, credit_note_id) REFERENCES credit_notes
);
CREATE TABLE credit_note_numbers (
  tenant_id int PRIMARY KEY REFERENCES tenants,
  last_number bigint NOT NULL
);
"""

# When the billing worker looks at a subscription next. Whatever may change what
# it owes sets the clock back, in the same transaction, whoever does it.
CLOCK = """
CREATE TABLE billing_clocks (
  tenant_id int NOT NULL,
  subscription_id text NOT NULL,
  due_time timestamptz, -- never, if null
  version bigint NOT NULL,
  PRIMARY KEY (tenant_id, subscription_id),
  FOREIGN KEY (tenant_id, subscription_id) REFERENCES subscriptions
);
CREATE INDEX ON billing_clocks (tenant_id, due_time);
INSERT INTO billing_clocks SELECT tenant_id, subscription_id, 'epoch', 1 FROM subscriptions;

CREATE FUNCTION set_billing_clock_back() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO billing_clocks AS clock VALUES (NEW.tenant_id, NEW.subscription_id, 'epoch', 1)
  ON CONFLICT (tenant_id, subscription_id)
  DO UPDATE SET due_time = 'epoch', version = clock.version + 1;
  RETURN NULL;
END $$;
CREATE TRIGGER set_billing_clock_back AFTER INSERT OR UPDATE ON subscriptions
  FOR EACH ROW EXECUTE FUNCTION set_billing_clock_back();
CREATE TRIGGER set_billing_clock_back AFTER UPDATE OF state ON invoices
  FOR EACH ROW WHEN (NEW.state = 'void') EXECUTE FUNCTION set_billing_clock_back();

CREATE FUNCTION set_billing_clocks_back() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  UPDATE billing_clocks AS clock SET due_time = 'epoch', version = clock.version + 1
  FROM subscriptions
  WHERE subscriptions.tenant_id = NEW.tenant_id AND subscriptions.customer_id = NEW.customer_id
    AND clock.tenant_id = NEW.tenant_id AND clock.subscription_id = subscriptions.subscription_id;
  RETURN NULL;
END $$;
CREATE TRIGGER set_billing_clocks_back AFTER UPDATE OF subjects_time ON customers
  FOR EACH ROW WHEN (OLD.subjects_time <> NEW.subjects_time) EXECUTE FUNCTION set_billing_clocks_back();
"""

TRIGGERS = """
CREATE FUNCTION refuse_frozen_lines() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF EXISTS (
    SELECT FROM changed JOIN invoices USING (tenant_id, invoice_id) WHERE invoices.state <> 'draft'
  ) THEN
    RAISE EXCEPTION 'lines of an issued invoice never change' USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER frozen_insert AFTER INSERT ON invoice_lines REFERENCING NEW TABLE AS changed
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_frozen_lines();
CREATE TRIGGER frozen_delete AFTER DELETE ON invoice_lines REFERENCING OLD TABLE AS changed
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_frozen_lines();
CREATE TRIGGER frozen_update_from AFTER UPDATE ON invoice_lines REFERENCING OLD TABLE AS changed
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_frozen_lines();
CREATE TRIGGER frozen_update_to AFTER UPDATE ON invoice_lines REFERENCING NEW TABLE AS changed
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_frozen_lines();

CREATE FUNCTION refuse_frozen_invoice() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  may_change CONSTANT text[] := ARRAY[
    'state', 'void_time', 'paid_time', 'payment_reference', 'uncollectible_time'];
BEGIN
  IF TG_OP = 'DELETE' OR NEW.state = 'draft' OR OLD.state = 'void'
     OR to_jsonb(OLD) - may_change <> to_jsonb(NEW) - may_change THEN
    RAISE EXCEPTION 'an issued invoice never changes' USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER frozen_update BEFORE UPDATE ON invoices
  FOR EACH ROW WHEN (OLD.state <> 'draft') EXECUTE FUNCTION refuse_frozen_invoice();
CREATE TRIGGER frozen_delete BEFORE DELETE ON invoices
  FOR EACH ROW WHEN (OLD.state <> 'draft') EXECUTE FUNCTION refuse_frozen_invoice();
"""

APP_RIGHTS = {
    "tax_rates": "SELECT, INSERT, UPDATE",
    "billing_profiles": "SELECT, INSERT, UPDATE",
    "credit_notes": "SELECT, INSERT",
    "credit_note_lines": "SELECT, INSERT",
    "credit_note_numbers": "SELECT, INSERT, UPDATE",
    "billing_clocks": "SELECT, INSERT, UPDATE",
}
# The billing worker asks which tenants want it to work.
ENGINE_RIGHTS = {"billing_profiles": "SELECT"}

TENANT_CONDITION = "tenant_id = NULLIF(current_setting('ammeter.tenant', true), '')::int"


def upgrade() -> None:
    """Widen invoices, add what goes with them, and guard what was issued."""
    op.execute(INVOICES)
    op.execute(TABLES)
    op.execute(CLOCK)
    op.execute(TRIGGERS)
    for table, rights in APP_RIGHTS.items():
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        op.execute(f"GRANT {rights} ON {table} TO ammeter_app")
        op.execute(
            f"CREATE POLICY tenant ON {table} TO ammeter_app "
            f"USING ({TENANT_CONDITION}) WITH CHECK ({TENANT_CONDITION})"
        )
    for table, rights in ENGINE_RIGHTS.items():
        op.execute(f"GRANT {rights} ON {table} TO ammeter_engine")
        op.execute(f"CREATE POLICY engine ON {table} TO ammeter_engine USING (true) WITH CHECK (true)")


def downgrade() -> None:
    """Refuse: issued invoices would lose what they say."""
    message = "invoices were settled under this schema: restore a backup instead"
    raise RuntimeError(message)
