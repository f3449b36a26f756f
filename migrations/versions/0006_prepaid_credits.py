"""Keep prepaid credits: lots, a ledger of double entries that always balances, rules of when to top up."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE credit_lots (
  tenant_id int NOT NULL,
  credit_lot_id text NOT NULL,
  customer_id bigint NOT NULL,
  kind text NOT NULL CHECK (kind IN ('granted', 'purchased')),
  currency text NOT NULL,
  amount numeric NOT NULL CHECK (amount > 0),
  remaining numeric NOT NULL CHECK (remaining BETWEEN 0 AND amount),
  cost_basis numeric NOT NULL CHECK (cost_basis >= 0),
  priority int NOT NULL,
  feature_keys text[] NOT NULL,
  effective_time timestamptz NOT NULL,
  expire_time timestamptz CHECK (expire_time > effective_time),
  description text NOT NULL,
  reference text NOT NULL,
  create_time timestamptz NOT NULL,
  void_time timestamptz,
  PRIMARY KEY (tenant_id, credit_lot_id),
  FOREIGN KEY (tenant_id, customer_id) REFERENCES customers
);
CREATE INDEX ON credit_lots (tenant_id, customer_id, credit_lot_id);
CREATE INDEX ON credit_lots (expire_time) WHERE remaining > 0;
CREATE TABLE credit_transactions (
  tenant_id int NOT NULL,
  transaction_id bigint GENERATED ALWAYS AS IDENTITY,
  kind text NOT NULL CHECK (kind IN ('grant', 'purchase', 'apply', 'return', 'expire', 'void')),
  customer_id bigint NOT NULL,
  invoice_id text CHECK ((invoice_id IS NOT NULL) = (kind IN ('apply', 'return'))),
  book_time timestamptz NOT NULL,
  create_time timestamptz NOT NULL,
  PRIMARY KEY (tenant_id, transaction_id),
  FOREIGN KEY (tenant_id, customer_id) REFERENCES customers,
  FOREIGN KEY (tenant_id, invoice_id) REFERENCES invoices
);
CREATE INDEX ON credit_transactions (tenant_id, customer_id, transaction_id);
CREATE UNIQUE INDEX ON credit_transactions (tenant_id, invoice_id, kind);
CREATE TABLE credit_entries (
  tenant_id int NOT NULL,
  transaction_id bigint NOT NULL,
  ordinal int NOT NULL,
  account text NOT NULL CHECK (account IN ('lot', 'granted', 'purchased', 'applied', 'expired', 'voided')),
  credit_lot_id text NOT NULL,
  line_id text NOT NULL,
  amount numeric NOT NULL CHECK (amount <> 0),
  cost numeric NOT NULL,
  PRIMARY KEY (tenant_id, transaction_id, ordinal),
  FOREIGN KEY (tenant_id, transaction_id) REFERENCES credit_transactions,
  FOREIGN KEY (tenant_id, credit_lot_id) REFERENCES credit_lots
);
CREATE INDEX ON credit_entries (tenant_id, credit_lot_id, transaction_id);
CREATE TABLE top_up_rules (
  tenant_id int NOT NULL,
  customer_id bigint NOT NULL,
  threshold numeric NOT NULL CHECK (threshold > 0),
  amount numeric NOT NULL CHECK (amount > 0),
  armed boolean NOT NULL,
  version bigint NOT NULL,
  check_time timestamptz NOT NULL,
  update_time timestamptz NOT NULL,
  PRIMARY KEY (tenant_id, customer_id),
  FOREIGN KEY (tenant_id, customer_id) REFERENCES customers
);
CREATE INDEX ON top_up_rules (check_time);
CREATE TABLE credit_events (
  tenant_id int NOT NULL,
  credit_event_id text NOT NULL,
  kind text NOT NULL CHECK (kind IN ('top_up_needed')),
  customer_id bigint NOT NULL,
  currency text NOT NULL,
  available numeric NOT NULL,
  threshold numeric NOT NULL,
  amount numeric NOT NULL,
  create_time timestamptz NOT NULL,
  PRIMARY KEY (tenant_id, credit_event_id),
  FOREIGN KEY (tenant_id, customer_id) REFERENCES customers
);
ALTER TABLE invoices ADD COLUMN prepaid_total numeric NOT NULL DEFAULT 0 CHECK (prepaid_total >= 0);
"""

# A lot's remaining amount is the sum of its entries and nothing else: only this trigger writes it.
TRIGGERS = """
CREATE FUNCTION move_credit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.account = 'lot' THEN
    UPDATE credit_lots SET remaining = remaining + NEW.amount
    WHERE tenant_id = NEW.tenant_id AND credit_lot_id = NEW.credit_lot_id;
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER move_credit AFTER INSERT ON credit_entries FOR EACH ROW EXECUTE FUNCTION move_credit();

CREATE FUNCTION refuse_unbalanced() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF EXISTS (
    SELECT FROM credit_entries
    WHERE tenant_id = NEW.tenant_id AND transaction_id = NEW.transaction_id
    HAVING sum(amount) IS DISTINCT FROM 0 OR sum(cost) IS DISTINCT FROM 0
  ) THEN
    RAISE EXCEPTION 'credit transaction % does not balance', NEW.transaction_id
      USING ERRCODE = 'check_violation';
  END IF;
  RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER balanced AFTER INSERT ON credit_transactions DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW EXECUTE FUNCTION refuse_unbalanced();

CREATE FUNCTION refuse_foreign_transaction() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  -- Entries come with their transaction: what was committed before is closed.
  IF NOT EXISTS (
    SELECT FROM credit_transactions
    WHERE tenant_id = NEW.tenant_id AND transaction_id = NEW.transaction_id
      AND xmin = pg_current_xact_id()::xid
  ) THEN
    RAISE EXCEPTION 'credit transaction % is closed', NEW.transaction_id USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER same_transaction BEFORE INSERT ON credit_entries
  FOR EACH ROW EXECUTE FUNCTION refuse_foreign_transaction();

CREATE FUNCTION refuse_ledger_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'the ledger of credits only grows' USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON credit_entries
  FOR EACH ROW EXECUTE FUNCTION refuse_ledger_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON credit_transactions
  FOR EACH ROW EXECUTE FUNCTION refuse_ledger_change();

CREATE FUNCTION refuse_lot_change() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  may_change CONSTANT text[] := ARRAY['remaining', 'void_time'];
BEGIN
  IF TG_OP = 'DELETE' THEN
    RAISE EXCEPTION 'a credit lot is never deleted' USING ERRCODE = 'restrict_violation';
  ELSIF TG_OP = 'INSERT' THEN
    IF NEW.remaining <> 0 THEN
      RAISE EXCEPTION 'a credit lot is filled by entries' USING ERRCODE = 'restrict_violation';
    END IF;
  ELSIF (NEW.remaining <> OLD.remaining AND pg_trigger_depth() < 2)
     OR to_jsonb(OLD) - may_change <> to_jsonb(NEW) - may_change THEN
    RAISE EXCEPTION 'a credit lot changes by entries only' USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN COALESCE(NEW, OLD);
END $$;
CREATE TRIGGER guarded BEFORE INSERT OR UPDATE OR DELETE ON credit_lots
  FOR EACH ROW EXECUTE FUNCTION refuse_lot_change();
"""

APP_RIGHTS = {
    "credit_lots": "SELECT, INSERT, UPDATE",
    "credit_transactions": "SELECT, INSERT",
    "credit_entries": "SELECT, INSERT",
    "top_up_rules": "SELECT, INSERT, UPDATE, DELETE",
    "credit_events": "SELECT, INSERT",
}
# The worker asks what is due, whoever's it is; verify rereads.
ENGINE_RIGHTS = {
    "credit_lots": "SELECT",
    "credit_transactions": "SELECT",
    "credit_entries": "SELECT",
    "top_up_rules": "SELECT",
}

TENANT_CONDITION = "tenant_id = NULLIF(current_setting('ammeter.tenant', true), '')::int"


def upgrade() -> None:
    """Create the tables, closed to other tenants, and what guards them."""
    op.execute(TABLES)
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
    """Refuse: what customers paid ahead would be lost."""
    message = "credits were booked under this schema: restore a backup instead"
    raise RuntimeError(message)
