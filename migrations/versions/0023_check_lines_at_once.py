"""Check what lines of invoices name once for a statement, rather than twice for each line.

Two foreign keys go. What they promised, triggers promise now: lines name a
draft that there is, and a rate card that there is (or none); and since
invoices and rate cards are never deleted and keep their keys, whoever asks,
that stays so. Nothing needs to be locked: what was seen once cannot vanish.
"""

from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None
still_serves = "0019"

# First, as it waits for those who write lines: they came under the old rules.
KEYS = """
ALTER TABLE invoice_lines
  DROP CONSTRAINT invoice_lines_tenant_id_invoice_id_fkey,
  DROP CONSTRAINT invoice_lines_tenant_id_rate_card_id_fkey
"""

KEPT = """
CREATE FUNCTION refuse_to_lose_row() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'lines of invoices name rows of %: none is ever deleted, or gets another key', TG_TABLE_NAME
    USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER kept_rows BEFORE DELETE ON invoices
  FOR EACH ROW EXECUTE FUNCTION refuse_to_lose_row();
CREATE TRIGGER kept_keys BEFORE UPDATE OF tenant_id, invoice_id ON invoices
  FOR EACH ROW WHEN ((OLD.tenant_id, OLD.invoice_id) IS DISTINCT FROM (NEW.tenant_id, NEW.invoice_id))
  EXECUTE FUNCTION refuse_to_lose_row();
CREATE TRIGGER kept_table BEFORE TRUNCATE ON invoices
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_to_lose_row();
CREATE TRIGGER kept_rows BEFORE DELETE ON rate_cards
  FOR EACH ROW EXECUTE FUNCTION refuse_to_lose_row();
CREATE TRIGGER kept_keys BEFORE UPDATE OF tenant_id, rate_card_id ON rate_cards
  FOR EACH ROW WHEN ((OLD.tenant_id, OLD.rate_card_id) IS DISTINCT FROM (NEW.tenant_id, NEW.rate_card_id))
  EXECUTE FUNCTION refuse_to_lose_row();
CREATE TRIGGER kept_table BEFORE TRUNCATE ON rate_cards
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_to_lose_row();
"""

# A row that its asker may not see is not there: what is not found is refused. The names mean this
# schema's tables, whatever temporary ones there are. Each row is looked up by its key: a plan made while
# tables were empty must not read them whole when they have grown.
LINES = """
CREATE FUNCTION refuse_unfounded_lines() RETURNS trigger LANGUAGE plpgsql
  SET search_path = {schema}, pg_temp
  SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
DECLARE
  found_state text;
BEGIN
  SELECT coalesce(invoices.state, 'gone') INTO found_state
  FROM (SELECT DISTINCT tenant_id, invoice_id FROM changed) AS named
  LEFT JOIN invoices USING (tenant_id, invoice_id)
  WHERE invoices.state IS DISTINCT FROM 'draft' LIMIT 1;
  IF found_state = 'gone' THEN
    RAISE EXCEPTION 'lines are of an invoice that is not there' USING ERRCODE = 'foreign_key_violation';
  ELSIF FOUND THEN
    RAISE EXCEPTION 'lines of an issued invoice never change' USING ERRCODE = 'restrict_violation';
  END IF;
  PERFORM FROM (SELECT DISTINCT tenant_id, rate_card_id FROM changed WHERE rate_card_id IS NOT NULL) AS named
  LEFT JOIN rate_cards USING (tenant_id, rate_card_id)
  WHERE rate_cards.plan_id IS NULL LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION 'lines are of a rate card that is not there' USING ERRCODE = 'foreign_key_violation';
  END IF;
  RETURN NULL;
END $$;
CREATE OR REPLACE TRIGGER frozen_insert AFTER INSERT ON invoice_lines REFERENCING NEW TABLE AS changed
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_unfounded_lines();
CREATE OR REPLACE TRIGGER frozen_update_to AFTER UPDATE ON invoice_lines REFERENCING NEW TABLE AS changed
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_unfounded_lines();
"""


def upgrade() -> None:
    """Take the keys away and put the triggers in their place, in one transaction."""
    schema = op.get_bind().exec_driver_sql("SELECT quote_ident(current_schema())").scalar_one()
    op.execute(KEYS)
    op.execute(KEPT)
    op.execute(LINES.replace("{schema}", schema))


def downgrade() -> None:
    """Put the keys back, which hold for every line there is."""
    op.execute("""
        ALTER TABLE invoice_lines
          ADD FOREIGN KEY (tenant_id, invoice_id) REFERENCES invoices,
          ADD FOREIGN KEY (tenant_id, rate_card_id) REFERENCES rate_cards;
        CREATE OR REPLACE TRIGGER frozen_insert AFTER INSERT ON invoice_lines
          REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION refuse_frozen_lines();
        CREATE OR REPLACE TRIGGER frozen_update_to AFTER UPDATE ON invoice_lines
          REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION refuse_frozen_lines();
        DROP FUNCTION refuse_unfounded_lines;
        DROP FUNCTION refuse_to_lose_row CASCADE;
    """)
