"""The tables, as SQLAlchemy sees them. The DDL that makes them is in migrations/.

Every table carries `tenant_id` and row-level security, except `writer` and
`server_state`, which belong to the process and are closed to the application
role.
"""

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Identity,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    SmallInteger,
    Table,
    Text,
)
from sqlalchemy.dialects.postgresql import JSONB

metadata = MetaData()

TIME = DateTime(timezone=True)
QUANTITY = Numeric(38, 12)


def tenant_column() -> Column[int]:
    """Give each table its tenant."""
    return Column("tenant_id", Integer, primary_key=True)


tenants = Table(
    "tenants",
    metadata,
    tenant_column(),
    Column("tenant_key", Text, nullable=False),
    Column("create_time", TIME, nullable=False),
)

api_keys = Table(
    "api_keys",
    metadata,
    tenant_column(),
    Column("key_id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("secret_hmac", LargeBinary, nullable=False),
    Column("scopes", ARRAY(Text), nullable=False),
    Column("create_time", TIME, nullable=False),
    Column("expire_time", TIME),
    Column("revoke_time", TIME),
)

requests = Table(
    "requests",
    metadata,
    tenant_column(),
    Column("request_id", Text, primary_key=True),
    Column("method", Text, nullable=False),
    Column("content_digest", LargeBinary, nullable=False),
    Column("response", LargeBinary, nullable=False),
    Column("create_time", TIME, nullable=False),
)

writer = Table(
    "writer",
    metadata,
    Column("singleton", Boolean, primary_key=True),
    Column("epoch", BigInteger, nullable=False),
    Column("holder", Text, nullable=False),
    Column("acquire_time", TIME, nullable=False),
)

server_state = Table(
    "server_state",
    metadata,
    Column("singleton", Boolean, primary_key=True),
    Column("hash_key", LargeBinary, nullable=False),
    Column("oldest_revision", Integer, nullable=False),
)

segments = Table(
    "segments",
    metadata,
    tenant_column(),
    Column("position", BigInteger, primary_key=True),
    Column("epoch", BigInteger, nullable=False),
    Column("event_count", Integer, nullable=False),
    Column("min_time_us", BigInteger, nullable=False),
    Column("max_time_us", BigInteger, nullable=False),
    Column("recorded_us", BigInteger, nullable=False),
    Column("codec", SmallInteger, nullable=False),
    Column("raw_bytes", Integer, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("payload", LargeBinary, nullable=False),
    Column("first_position", BigInteger),
    Column("parts", LargeBinary),
)

heads = Table(
    "heads",
    metadata,
    tenant_column(),
    Column("position", BigInteger, nullable=False),
    Column("digest", LargeBinary, nullable=False),
)

checkpoints = Table(
    "checkpoints",
    metadata,
    tenant_column(),
    Column("position", BigInteger, nullable=False),
    Column("update_time", TIME, nullable=False),
)

meters = Table(
    "meters",
    metadata,
    tenant_column(),
    Column("meter_id", Integer, Identity(always=True), primary_key=True),
    Column("meter_key", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("event_type", Text, nullable=False),
    Column("aggregation", Text, nullable=False),
    Column("value_property", Text, nullable=False),
    Column("filters", JSONB, nullable=False),
    Column("version", Integer, nullable=False),
    Column("create_time", TIME, nullable=False),
    Column("update_time", TIME, nullable=False),
)

meter_revisions = Table(
    "meter_revisions",
    metadata,
    tenant_column(),
    Column("revision_id", Integer, Identity(always=True), primary_key=True),
    Column("meter_id", Integer, nullable=False),
    Column("dimensions", ARRAY(Text), nullable=False),
    Column("state", Text, nullable=False),
    Column("build_done", BigInteger, nullable=False),
    Column("build_total", BigInteger, nullable=False),
    Column("skipped_count", BigInteger, nullable=False),
    Column("skipped_events", ARRAY(Text), nullable=False),
)

blocks = Table(
    "blocks",
    metadata,
    tenant_column(),
    Column("block_id", BigInteger, Identity(always=True), primary_key=True),
    Column("revision_id", Integer, nullable=False),
    Column("day", Integer, nullable=False),
    Column("level", SmallInteger, nullable=False),
    Column("run", BigInteger, nullable=False),
    Column("subject_min", LargeBinary, nullable=False),
    Column("subject_max", LargeBinary, nullable=False),
    Column("row_count", Integer, nullable=False),
    Column("payload", LargeBinary, nullable=False),
)

customers = Table(
    "customers",
    metadata,
    tenant_column(),
    Column("customer_id", BigInteger, Identity(always=True), primary_key=True),
    Column("customer_key", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("email", Text, nullable=False),
    Column("currency", Text, nullable=False),
    Column("time_zone", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("create_time", TIME, nullable=False),
    Column("update_time", TIME, nullable=False),
    Column("subjects_time", TIME, nullable=False),
)

# Spans are whole minutes since the epoch; the ends of time are the int4 limits.
customer_subjects = Table(
    "customer_subjects",
    metadata,
    tenant_column(),
    Column("subject", Text, primary_key=True),
    Column("from_minute", Integer, primary_key=True),
    Column("to_minute", Integer, nullable=False),
    Column("customer_id", BigInteger, nullable=False),
)

features = Table(
    "features",
    metadata,
    tenant_column(),
    Column("feature_id", BigInteger, Identity(always=True), primary_key=True),
    Column("feature_key", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("meter_id", Integer),
    Column("filters", JSONB, nullable=False),
    Column("create_time", TIME, nullable=False),
    Column("fail_mode", Text, nullable=False),
    Column("fail_allowance", QUANTITY),
    Column("version", Integer, nullable=False),
)

plans = Table(
    "plans",
    metadata,
    tenant_column(),
    Column("plan_id", BigInteger, Identity(always=True), primary_key=True),
    Column("plan_key", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("currency", Text, nullable=False),
    Column("billing_cadence", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("create_time", TIME, nullable=False),
    Column("archive_time", TIME),
    Column("minimum_amount", Numeric),
    Column("version", Integer, nullable=False),
    Column("publish_time", TIME),
    Column("update_time", TIME, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("phases", JSONB, nullable=False),
    Column("form", JSONB),
)

rate_cards = Table(
    "rate_cards",
    metadata,
    tenant_column(),
    Column("rate_card_id", BigInteger, Identity(always=True), primary_key=True),
    Column("plan_id", BigInteger, nullable=False),
    Column("ordinal", Integer, nullable=False),
    Column("rate_card_key", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("feature_id", BigInteger),
    Column("price", JSONB),
    Column("entitlement", JSONB),
    Column("phase", Integer, nullable=False),
)

subscriptions = Table(
    "subscriptions",
    metadata,
    tenant_column(),
    Column("subscription_id", Text, primary_key=True),
    Column("customer_id", BigInteger, nullable=False),
    Column("plan_id", BigInteger, nullable=False),
    Column("start_time", TIME, nullable=False),
    Column("end_time", TIME),
    Column("anchor_time", TIME, nullable=False),
    Column("create_time", TIME, nullable=False),
    Column("cancel_time", TIME),
    Column("update_time", TIME, nullable=False),
)

subscription_spans = Table(
    "subscription_spans",
    metadata,
    tenant_column(),
    Column("subscription_id", Text, primary_key=True),
    Column("start_time", TIME, primary_key=True),
    Column("end_time", TIME),
    Column("plan_id", BigInteger, nullable=False),
    Column("phase", Integer, nullable=False),
    Column("quantity", BigInteger, nullable=False),
)

# `counter` numbers the entitlement for the counters in memory.
entitlements = Table(
    "entitlements",
    metadata,
    tenant_column(),
    Column("entitlement_id", Text, primary_key=True),
    Column("counter", BigInteger, nullable=False),
    Column("customer_id", BigInteger, nullable=False),
    Column("feature_id", BigInteger, nullable=False),
    Column("subscription_id", Text),
    Column("kind", Text, nullable=False),
    Column("allowance", QUANTITY),
    Column("soft_limit", Boolean),
    Column("config", JSONB),
    Column("from_time", TIME, nullable=False),
    Column("to_time", TIME),
    Column("preserve_overage", Boolean, nullable=False),
    Column("cadence", Text),
    Column("anchor_time", TIME),
    Column("delete_time", TIME),
    Column("changes", JSONB, nullable=False),
)

grants = Table(
    "grants",
    metadata,
    tenant_column(),
    Column("grant_id", Text, primary_key=True),
    Column("entitlement_id", Text, nullable=False),
    Column("amount", QUANTITY, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("from_minute", Integer, nullable=False),
    Column("expire_minute", Integer, nullable=False),
    Column("end_minute", Integer, nullable=False),
    Column("rollover_minimum", QUANTITY, nullable=False),
    Column("rollover_maximum", QUANTITY),
    Column("recurrence_cadence", Text),
    Column("recurrence_anchor_time", TIME),
    Column("create_time", TIME, nullable=False),
    Column("void_time", TIME),
)

usage_resets = Table(
    "usage_resets",
    metadata,
    tenant_column(),
    Column("entitlement_id", Text, primary_key=True),
    Column("reset_minute", Integer, primary_key=True),
    Column("moves_anchor", Boolean, nullable=False),
    Column("preserve_overage", Boolean),
    Column("create_time", TIME, nullable=False),
)

reservations = Table(
    "reservations",
    metadata,
    tenant_column(),
    Column("reservation_id", Text, primary_key=True),
    Column("customer_id", BigInteger, nullable=False),
    Column("feature_key", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("lease", Boolean, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("version", Integer, nullable=False),
    Column("wanted", QUANTITY, nullable=False),
    Column("granted", QUANTITY, nullable=False),
    Column("held", QUANTITY, nullable=False),
    Column("settled", QUANTITY, nullable=False),
    Column("state", Text, nullable=False),
    Column("late", Boolean, nullable=False),
    Column("create_time", TIME, nullable=False),
    Column("expire_time", TIME, nullable=False),
    Column("hold_time", TIME, nullable=False),
    Column("end_time", TIME),
)
