"""Give plans versions and phases, and subscriptions dated spans on them."""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

PLANS = """
ALTER TABLE plans
  DROP CONSTRAINT plans_tenant_id_plan_key_key,
  DROP CONSTRAINT plans_state_check,
  ADD CONSTRAINT plans_state_check CHECK (state IN ('draft', 'active', 'archived')),
  ADD COLUMN version int NOT NULL DEFAULT 1 CHECK (version > 0),
  ADD COLUMN publish_time timestamptz,
  ADD COLUMN update_time timestamptz,
  ADD COLUMN revision int NOT NULL DEFAULT 1,
  ADD COLUMN phases jsonb NOT NULL DEFAULT '[]',
  ADD COLUMN form jsonb, -- of a draft: as it was sent
  ADD UNIQUE (tenant_id, plan_key, version),
  ADD CHECK (state <> 'draft' OR form IS NOT NULL);
UPDATE plans SET publish_time = create_time, update_time = coalesce(archive_time, create_time);
ALTER TABLE plans
  ALTER COLUMN update_time SET NOT NULL,
  ADD CHECK (state <> 'active' OR publish_time IS NOT NULL);
CREATE UNIQUE INDEX ON plans (tenant_id, plan_key) WHERE state = 'draft';
CREATE UNIQUE INDEX ON plans (tenant_id, plan_key) WHERE state = 'active';

ALTER TABLE rate_cards
  DROP CONSTRAINT rate_cards_tenant_id_plan_id_rate_card_key_key,
  ADD COLUMN phase int NOT NULL DEFAULT 0 CHECK (phase >= 0),
  ADD UNIQUE (tenant_id, plan_id, phase, rate_card_key);
"""

# Spans run on as if there were no end: a subscription's own end cuts them, so
# that it can be taken back.
SPANS = """
CREATE TABLE subscription_spans (
  tenant_id int NOT NULL,
  subscription_id text NOT NULL,
  start_time timestamptz NOT NULL,
  end_time timestamptz CHECK (end_time > start_time),
  plan_id bigint NOT NULL,
  phase int NOT NULL CHECK (phase >= 0),
  quantity bigint NOT NULL CHECK (quantity >= 0),
  PRIMARY KEY (tenant_id, subscription_id, start_time),
  FOREIGN KEY (tenant_id, subscription_id) REFERENCES subscriptions,
  FOREIGN KEY (tenant_id, plan_id) REFERENCES plans
);
CREATE UNIQUE INDEX ON subscription_spans (tenant_id, subscription_id) WHERE end_time IS NULL;
CREATE INDEX ON subscription_spans (tenant_id, plan_id);
INSERT INTO subscription_spans
  SELECT tenant_id, subscription_id, start_time, NULL, plan_id, 0, 1 FROM subscriptions;
ALTER TABLE subscriptions ADD COLUMN update_time timestamptz;
ALTER TABLE subscriptions DISABLE TRIGGER USER;
UPDATE subscriptions SET update_time = coalesce(cancel_time, create_time);
ALTER TABLE subscriptions ENABLE TRIGGER USER;
ALTER TABLE subscriptions ALTER COLUMN update_time SET NOT NULL;
"""

INVOICES = """
ALTER TABLE invoices ADD COLUMN plan_id bigint;
ALTER TABLE invoices DISABLE TRIGGER USER; -- which guards what was issued
UPDATE invoices SET plan_id = subscriptions.plan_id
  FROM subscriptions
  WHERE subscriptions.tenant_id = invoices.tenant_id
    AND subscriptions.subscription_id = invoices.subscription_id;
ALTER TABLE invoices ENABLE TRIGGER USER;
ALTER TABLE invoices
  ALTER COLUMN plan_id SET NOT NULL,
  ADD FOREIGN KEY (tenant_id, plan_id) REFERENCES plans;
"""

TENANT_CONDITION = "tenant_id = NULLIF(current_setting('ammeter.tenant', true), '')::int"


def upgrade() -> None:
    """Make every plan version 1 of itself, and every subscription one span on it."""
    op.execute(PLANS)
    op.execute(SPANS)
    op.execute(INVOICES)
    op.execute("ALTER TABLE subscription_spans ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE subscription_spans FORCE ROW LEVEL SECURITY")
    op.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON subscription_spans TO ammeter_app")
    op.execute(
        "CREATE POLICY tenant ON subscription_spans TO ammeter_app "
        f"USING ({TENANT_CONDITION}) WITH CHECK ({TENANT_CONDITION})"
    )
    op.execute("GRANT SELECT ON subscription_spans TO ammeter_engine")
    op.execute("CREATE POLICY engine ON subscription_spans TO ammeter_engine USING (true) WITH CHECK (true)")


def downgrade() -> None:
    """Refuse: versions would be lost."""
    message = "versions of plans cannot be made one again: restore a backup instead"
    raise RuntimeError(message)
