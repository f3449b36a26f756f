"""Create the first schema: roles, tables, row-level security.

Two roles hold the rights, neither owns anything:
- ammeter_app sees and writes the rows of the tenant in `ammeter.tenant`, which
  is set for one transaction; it can append nothing to the chain of segments.
- ammeter_engine reads across tenants and alone appends segments, moves heads
  and writes blocks; it cannot change or delete a segment.
"""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

ROLES = """
DO $$
DECLARE name text;
BEGIN
  FOREACH name IN ARRAY ARRAY['ammeter_app', 'ammeter_engine'] LOOP
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) THEN
      BEGIN
        EXECUTE format('CREATE ROLE %I NOLOGIN NOBYPASSRLS', name);
      EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
      END;
    END IF;
    IF NOT pg_has_role(current_user, name, 'MEMBER') THEN
      EXECUTE format('GRANT %I TO %I', name, current_user);
    END IF;
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', current_schema(), name);
  END LOOP;
END $$;
"""

TABLES = """
CREATE TABLE tenants (
  tenant_id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  tenant_key text NOT NULL UNIQUE,
  create_time timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE api_keys (
  tenant_id int NOT NULL REFERENCES tenants,
  key_id text PRIMARY KEY,
  name text NOT NULL,
  secret_hmac bytea NOT NULL,
  scopes text[] NOT NULL,
  create_time timestamptz NOT NULL DEFAULT now(),
  expire_time timestamptz,
  revoke_time timestamptz
);
CREATE INDEX ON api_keys (tenant_id, create_time);
CREATE TABLE requests (
  tenant_id int NOT NULL REFERENCES tenants,
  request_id text NOT NULL,
  method text NOT NULL,
  content_digest bytea NOT NULL,
  response bytea NOT NULL,
  create_time timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, request_id)
);
CREATE INDEX ON requests (create_time);

CREATE TABLE writer (
  singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
  epoch bigint NOT NULL,
  holder text NOT NULL,
  acquire_time timestamptz NOT NULL DEFAULT now()
);
INSERT INTO writer (epoch, holder) VALUES (0, '');
CREATE TABLE server_state (
  singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
  hash_key bytea NOT NULL CHECK (length(hash_key) = 16)
);
INSERT INTO server_state (hash_key) VALUES (decode(replace(gen_random_uuid()::text, '-', ''), 'hex'));

CREATE TABLE segments (
  tenant_id int NOT NULL REFERENCES tenants,
  position bigint NOT NULL CHECK (position > 0),
  epoch bigint NOT NULL,
  event_count int NOT NULL CHECK (event_count > 0),
  min_time_us bigint NOT NULL,
  max_time_us bigint NOT NULL,
  recorded_us bigint NOT NULL,
  codec smallint NOT NULL,
  raw_bytes int NOT NULL,
  digest bytea NOT NULL CHECK (length(digest) = 32),
  payload bytea NOT NULL,
  PRIMARY KEY (tenant_id, position)
);
ALTER TABLE segments ALTER COLUMN payload SET STORAGE EXTERNAL;
CREATE TABLE heads (
  tenant_id int PRIMARY KEY REFERENCES tenants,
  position bigint NOT NULL,
  digest bytea NOT NULL
) WITH (fillfactor = 50);
CREATE TABLE checkpoints (
  tenant_id int PRIMARY KEY REFERENCES tenants,
  position bigint NOT NULL,
  update_time timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);

CREATE TABLE meters (
  tenant_id int NOT NULL REFERENCES tenants,
  meter_id int GENERATED ALWAYS AS IDENTITY,
  meter_key text NOT NULL,
  name text NOT NULL,
  description text NOT NULL,
  event_type text NOT NULL,
  aggregation text NOT NULL,
  value_property text NOT NULL,
  filters jsonb NOT NULL,
  version int NOT NULL DEFAULT 1,
  create_time timestamptz NOT NULL DEFAULT now(),
  update_time timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, meter_id),
  UNIQUE (tenant_id, meter_key)
);
CREATE TABLE meter_revisions (
  tenant_id int NOT NULL,
  revision_id int GENERATED ALWAYS AS IDENTITY,
  meter_id int NOT NULL,
  dimensions text[] NOT NULL,
  state text NOT NULL CHECK (state IN ('building', 'active')),
  build_done bigint NOT NULL DEFAULT 0,
  build_total bigint NOT NULL DEFAULT 0,
  skipped_count bigint NOT NULL DEFAULT 0,
  skipped_events text[] NOT NULL DEFAULT '{}',
  PRIMARY KEY (tenant_id, revision_id),
  FOREIGN KEY (tenant_id, meter_id) REFERENCES meters ON DELETE CASCADE
);
CREATE UNIQUE INDEX ON meter_revisions (tenant_id, meter_id) WHERE state = 'active';
CREATE UNIQUE INDEX ON meter_revisions (tenant_id, meter_id) WHERE state = 'building';
CREATE TABLE blocks (
  tenant_id int NOT NULL,
  block_id bigint GENERATED ALWAYS AS IDENTITY,
  revision_id int NOT NULL,
  day int NOT NULL,
  level smallint NOT NULL,
  run bigint NOT NULL,
  subject_min bytea NOT NULL,
  subject_max bytea NOT NULL,
  row_count int NOT NULL,
  payload bytea NOT NULL,
  PRIMARY KEY (tenant_id, block_id),
  FOREIGN KEY (tenant_id, revision_id) REFERENCES meter_revisions ON DELETE CASCADE
);
ALTER TABLE blocks ALTER COLUMN payload SET STORAGE EXTERNAL;
CREATE INDEX ON blocks (tenant_id, revision_id, day, subject_min);

CREATE TABLE customers (
  tenant_id int NOT NULL REFERENCES tenants,
  customer_id bigint GENERATED ALWAYS AS IDENTITY,
  customer_key text NOT NULL,
  name text NOT NULL,
  email text NOT NULL,
  currency text NOT NULL,
  time_zone text NOT NULL,
  version int NOT NULL DEFAULT 1,
  create_time timestamptz NOT NULL DEFAULT now(),
  update_time timestamptz NOT NULL DEFAULT now(),
  subjects_time timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, customer_id),
  UNIQUE (tenant_id, customer_key)
);
CREATE TABLE customer_subjects (
  tenant_id int NOT NULL,
  subject text NOT NULL,
  from_minute int NOT NULL,
  to_minute int NOT NULL CHECK (to_minute > from_minute),
  customer_id bigint NOT NULL,
  PRIMARY KEY (tenant_id, subject, from_minute),
  FOREIGN KEY (tenant_id, customer_id) REFERENCES customers
);
CREATE INDEX ON customer_subjects (tenant_id, customer_id);

CREATE TABLE features (
  tenant_id int NOT NULL REFERENCES tenants,
  feature_id bigint GENERATED ALWAYS AS IDENTITY,
  feature_key text NOT NULL,
  name text NOT NULL,
  meter_id int,
  filters jsonb NOT NULL,
  create_time timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, feature_id),
  UNIQUE (tenant_id, feature_key),
  FOREIGN KEY (tenant_id, meter_id) REFERENCES meters
);
CREATE TABLE plans (
  tenant_id int NOT NULL REFERENCES tenants,
  plan_id bigint GENERATED ALWAYS AS IDENTITY,
  plan_key text NOT NULL,
  name text NOT NULL,
  currency text NOT NULL,
  billing_cadence text NOT NULL,
  state text NOT NULL CHECK (state IN ('active', 'archived')),
  create_time timestamptz NOT NULL DEFAULT now(),
  archive_time timestamptz,
  PRIMARY KEY (tenant_id, plan_id),
  UNIQUE (tenant_id, plan_key)
);
CREATE TABLE rate_cards (
  tenant_id int NOT NULL,
  rate_card_id bigint GENERATED ALWAYS AS IDENTITY,
  plan_id bigint NOT NULL,
  ordinal int NOT NULL,
  rate_card_key text NOT NULL,
  name text NOT NULL,
  feature_id bigint,
  price jsonb,
  entitlement jsonb,
  PRIMARY KEY (tenant_id, rate_card_id),
  UNIQUE (tenant_id, plan_id, rate_card_key),
  FOREIGN KEY (tenant_id, plan_id) REFERENCES plans,
  FOREIGN KEY (tenant_id, feature_id) REFERENCES features
);

CREATE TABLE subscriptions (
  tenant_id int NOT NULL,
  subscription_id text NOT NULL,
  customer_id bigint NOT NULL,
  plan_id bigint NOT NULL,
  start_time timestamptz NOT NULL,
  end_time timestamptz CHECK (end_time >= start_time),
  anchor_time timestamptz NOT NULL,
  create_time timestamptz NOT NULL DEFAULT now(),
  cancel_time timestamptz,
  PRIMARY KEY (tenant_id, subscription_id),
  FOREIGN KEY (tenant_id, customer_id) REFERENCES customers,
  FOREIGN KEY (tenant_id, plan_id) REFERENCES plans
);
CREATE INDEX ON subscriptions (tenant_id, customer_id);
CREATE TABLE entitlements (
  tenant_id int NOT NULL,
  entitlement_id text NOT NULL,
  counter bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
  customer_id bigint NOT NULL,
  feature_id bigint NOT NULL,
  subscription_id text NOT NULL,
  kind text NOT NULL CHECK (kind IN ('boolean', 'static', 'metered')),
  allowance numeric(38, 12) CHECK (allowance >= 0),
  soft_limit boolean,
  config jsonb,
  from_time timestamptz NOT NULL,
  to_time timestamptz,
  PRIMARY KEY (tenant_id, entitlement_id),
  FOREIGN KEY (tenant_id, customer_id) REFERENCES customers,
  FOREIGN KEY (tenant_id, feature_id) REFERENCES features,
  FOREIGN KEY (tenant_id, subscription_id) REFERENCES subscriptions
);
CREATE INDEX ON entitlements (tenant_id, customer_id);

CREATE TABLE invoices (
  tenant_id int NOT NULL,
  invoice_id text NOT NULL,
  number bigint,
  state text NOT NULL CHECK (state IN ('draft', 'issued', 'void')),
  customer_id bigint NOT NULL,
  subscription_id text NOT NULL,
  period_index int NOT NULL,
  ordinal int NOT NULL,
  currency text NOT NULL,
  period_start_time timestamptz NOT NULL,
  period_end_time timestamptz NOT NULL,
  total numeric NOT NULL,
  position bigint NOT NULL,
  create_time timestamptz NOT NULL DEFAULT now(),
  issue_time timestamptz,
  void_time timestamptz,
  PRIMARY KEY (tenant_id, invoice_id),
  UNIQUE (tenant_id, number),
  CHECK ((state = 'issued') <= (number IS NOT NULL)),
  FOREIGN KEY (tenant_id, customer_id) REFERENCES customers,
  FOREIGN KEY (tenant_id, subscription_id) REFERENCES subscriptions
);
CREATE UNIQUE INDEX ON invoices (tenant_id, subscription_id, period_index, ordinal) WHERE state <> 'void';
CREATE INDEX ON invoices (tenant_id, customer_id);
CREATE TABLE invoice_lines (
  tenant_id int NOT NULL,
  invoice_id text NOT NULL,
  line_id text NOT NULL,
  ordinal int NOT NULL,
  kind text NOT NULL CHECK (kind IN ('flat', 'usage', 'late_usage')),
  rate_card_id bigint NOT NULL,
  rate_card_key text NOT NULL,
  feature_key text NOT NULL,
  description text NOT NULL,
  quantity numeric NOT NULL,
  unit_price numeric NOT NULL,
  amount numeric NOT NULL,
  period_index int NOT NULL,
  period_start_time timestamptz NOT NULL,
  period_end_time timestamptz NOT NULL,
  position bigint NOT NULL,
  covered_seconds bigint NOT NULL,
  period_seconds bigint NOT NULL,
  total_quantity numeric NOT NULL,
  billed_amount numeric NOT NULL,
  PRIMARY KEY (tenant_id, invoice_id, line_id),
  FOREIGN KEY (tenant_id, invoice_id) REFERENCES invoices,
  FOREIGN KEY (tenant_id, rate_card_id) REFERENCES rate_cards
);
CREATE TABLE invoice_numbers (
  tenant_id int PRIMARY KEY REFERENCES tenants,
  last_number bigint NOT NULL
);
"""

# What the application role may do with its own tenant's rows.
APP_RIGHTS = {
    "tenants": "SELECT",
    "api_keys": "SELECT, INSERT, UPDATE",
    "requests": "SELECT, INSERT",
    "segments": "SELECT",
    "heads": "SELECT",
    "checkpoints": "SELECT",
    "meters": "SELECT, INSERT, UPDATE, DELETE",
    "meter_revisions": "SELECT, INSERT, UPDATE, DELETE",
    "blocks": "SELECT",
    "customers": "SELECT, INSERT, UPDATE",
    "customer_subjects": "SELECT, INSERT, UPDATE, DELETE",
    "features": "SELECT, INSERT, DELETE",
    "plans": "SELECT, INSERT, UPDATE",
    "rate_cards": "SELECT, INSERT",
    "subscriptions": "SELECT, INSERT, UPDATE",
    "entitlements": "SELECT, INSERT, UPDATE",
    "invoices": "SELECT, INSERT, UPDATE",
    "invoice_lines": "SELECT, INSERT, DELETE",
    "invoice_numbers": "SELECT, INSERT, UPDATE",
}

# What the engine role may do with every tenant's rows.
ENGINE_RIGHTS = {
    "tenants": "SELECT, INSERT",
    "api_keys": "SELECT, INSERT",
    "requests": "SELECT, DELETE",
    "writer": "SELECT, UPDATE",
    "server_state": "SELECT",
    "segments": "SELECT, INSERT",
    "heads": "SELECT, INSERT, UPDATE",
    "checkpoints": "SELECT, INSERT, UPDATE",
    "meters": "SELECT",
    "meter_revisions": "SELECT, UPDATE, DELETE",
    "blocks": "SELECT, INSERT, DELETE",
    "customers": "SELECT",
    "customer_subjects": "SELECT",
    "features": "SELECT",
    "plans": "SELECT",
    "rate_cards": "SELECT",
    "subscriptions": "SELECT",
    "entitlements": "SELECT",
    "invoices": "SELECT",
}

TENANT_CONDITION = "tenant_id = NULLIF(current_setting('ammeter.tenant', true), '')::int"


def upgrade() -> None:
    """Create everything."""
    op.execute(ROLES)
    op.execute(TABLES)
    for table in sorted(APP_RIGHTS.keys() | ENGINE_RIGHTS.keys()):
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
    for table, rights in APP_RIGHTS.items():
        op.execute(f"GRANT {rights} ON {table} TO ammeter_app")
        op.execute(
            f"CREATE POLICY tenant ON {table} TO ammeter_app "
            f"USING ({TENANT_CONDITION}) WITH CHECK ({TENANT_CONDITION})"
        )
    for table, rights in ENGINE_RIGHTS.items():
        op.execute(f"GRANT {rights} ON {table} TO ammeter_engine")
        op.execute(f"CREATE POLICY engine ON {table} TO ammeter_engine USING (true) WITH CHECK (true)")


def downgrade() -> None:
    """Refuse: the first schema holds the truth."""
    message = "the first schema cannot be taken back: drop the database instead"
    raise RuntimeError(message)
