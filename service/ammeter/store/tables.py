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

_TIME = DateTime(timezone=True)
_QUANTITY = Numeric(38, 12)


def _tenant() -> Column[int]:
    return Column("tenant_id", Integer, primary_key=True)


tenants = Table(
    "tenants",
    metadata,
    _tenant(),
    Column("tenant_key", Text, nullable=False),
    Column("create_time", _TIME, nullable=False),
)

api_keys = Table(
    "api_keys",
    metadata,
    _tenant(),
    Column("key_id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("secret_hmac", LargeBinary, nullable=False),
    Column("scopes", ARRAY(Text), nullable=False),
    Column("create_time", _TIME, nullable=False),
    Column("expire_time", _TIME),
    Column("revoke_time", _TIME),
)

requests = Table(
    "requests",
    metadata,
    _tenant(),
    Column("request_id", Text, primary_key=True),
    Column("method", Text, nullable=False),
    Column("content_digest", LargeBinary, nullable=False),
    Column("response", LargeBinary, nullable=False),
    Column("create_time", _TIME, nullable=False),
)

writer = Table(
    "writer",
    metadata,
    Column("singleton", Boolean, primary_key=True),
    Column("epoch", BigInteger, nullable=False),
    Column("holder", Text, nullable=False),
    Column("acquire_time", _TIME, nullable=False),
)

server_state = Table(
    "server_state",
    metadata,
    Column("singleton", Boolean, primary_key=True),
    Column("hash_key", LargeBinary, nullable=False),
)

segments = Table(
    "segments",
    metadata,
    _tenant(),
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
)

heads = Table(
    "heads",
    metadata,
    _tenant(),
    Column("position", BigInteger, nullable=False),
    Column("digest", LargeBinary, nullable=False),
)

checkpoints = Table(
    "checkpoints",
    metadata,
    _tenant(),
    Column("position", BigInteger, nullable=False),
    Column("update_time", _TIME, nullable=False),
)

meters = Table(
    "meters",
    metadata,
    _tenant(),
    Column("meter_id", Integer, Identity(always=True), primary_key=True),
    Column("meter_key", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("event_type", Text, nullable=False),
    Column("aggregation", Text, nullable=False),
    Column("value_property", Text, nullable=False),
    Column("filters", JSONB, nullable=False),
    Column("version", Integer, nullable=False),
    Column("create_time", _TIME, nullable=False),
    Column("update_time", _TIME, nullable=False),
)

meter_revisions = Table(
    "meter_revisions",
    metadata,
    _tenant(),
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
    _tenant(),
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
    _tenant(),
    Column("customer_id", BigInteger, Identity(always=True), primary_key=True),
    Column("customer_key", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("email", Text, nullable=False),
    Column("currency", Text, nullable=False),
    Column("time_zone", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("create_time", _TIME, nullable=False),
    Column("update_time", _TIME, nullable=False),
    Column("subjects_time", _TIME, nullable=False),
)

# Spans are whole minutes since the epoch; the ends of time are the int4 limits.
customer_subjects = Table(
    "customer_subjects",
    metadata,
    _tenant(),
    Column("subject", Text, primary_key=True),
    Column("from_minute", Integer, primary_key=True),
    Column("to_minute", Integer, nullable=False),
    Column("customer_id", BigInteger, nullable=False),
)

features = Table(
    "features",
    metadata,
    _tenant(),
    Column("feature_id", BigInteger, Identity(always=True), primary_key=True),
    Column("feature_key", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("meter_id", Integer),
    Column("filters", JSONB, nullable=False),
    Column("create_time", _TIME, nullable=False),
)

plans = Table(
    "plans",
    metadata,
    _tenant(),
    Column("plan_id", BigInteger, Identity(always=True), primary_key=True),
    Column("plan_key", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("currency", Text, nullable=False),
    Column("billing_cadence", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("create_time", _TIME, nullable=False),
    Column("archive_time", _TIME),
    Column("minimum_amount", Numeric),
)

rate_cards = Table(
    "rate_cards",
    metadata,
    _tenant(),
    Column("rate_card_id", BigInteger, Identity(always=True), primary_key=True),
    Column("plan_id", BigInteger, nullable=False),
    Column("ordinal", Integer, nullable=False),
    Column("rate_card_key", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("feature_id", BigInteger),
    Column("price", JSONB),
    Column("entitlement", JSONB),
)

subscriptions = Table(
    "subscriptions",
    metadata,
    _tenant(),
    Column("subscription_id", Text, primary_key=True),
    Column("customer_id", BigInteger, nullable=False),
    Column("plan_id", BigInteger, nullable=False),
    Column("start_time", _TIME, nullable=False),
    Column("end_time", _TIME),
    Column("anchor_time", _TIME, nullable=False),
    Column("create_time", _TIME, nullable=False),
    Column("cancel_time", _TIME),
)

# `counter` numbers the entitlement for the counters in memory.
entitlements = Table(
    "entitlements",
    metadata,
    _tenant(),
    Column("entitlement_id", Text, primary_key=True),
    Column("counter", BigInteger, nullable=False),
    Column("customer_id", BigInteger, nullable=False),
    Column("feature_id", BigInteger, nullable=False),
    Column("subscription_id", Text),
    Column("kind", Text, nullable=False),
    Column("allowance", _QUANTITY),
    Column("soft_limit", Boolean),
    Column("config", JSONB),
    Column("from_time", _TIME, nullable=False),
    Column("to_time", _TIME),
    Column("preserve_overage", Boolean, nullable=False),
    Column("cadence", Text),
    Column("anchor_time", _TIME),
    Column("delete_time", _TIME),
)

grants = Table(
    "grants",
    metadata,
    _tenant(),
    Column("grant_id", Text, primary_key=True),
    Column("entitlement_id", Text, nullable=False),
    Column("amount", _QUANTITY, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("from_minute", Integer, nullable=False),
    Column("expire_minute", Integer, nullable=False),
    Column("end_minute", Integer, nullable=False),
    Column("rollover_minimum", _QUANTITY, nullable=False),
    Column("rollover_maximum", _QUANTITY),
    Column("recurrence_cadence", Text),
    Column("recurrence_anchor_time", _TIME),
    Column("create_time", _TIME, nullable=False),
    Column("void_time", _TIME),
)

usage_resets = Table(
    "usage_resets",
    metadata,
    _tenant(),
    Column("entitlement_id", Text, primary_key=True),
    Column("reset_minute", Integer, primary_key=True),
    Column("moves_anchor", Boolean, nullable=False),
    Column("preserve_overage", Boolean),
    Column("create_time", _TIME, nullable=False),
)

invoices = Table(
    "invoices",
    metadata,
    _tenant(),
    Column("invoice_id", Text, primary_key=True),
    Column("number", BigInteger),
    Column("state", Text, nullable=False),
    Column("customer_id", BigInteger, nullable=False),
    Column("subscription_id", Text, nullable=False),
    Column("period_index", Integer, nullable=False),
    Column("ordinal", Integer, nullable=False),
    Column("currency", Text, nullable=False),
    Column("period_start_time", _TIME, nullable=False),
    Column("period_end_time", _TIME, nullable=False),
    Column("total", Numeric, nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("create_time", _TIME, nullable=False),
    Column("issue_time", _TIME),
    Column("void_time", _TIME),
    Column("number_text", Text, nullable=False),
    Column("subtotal", Numeric, nullable=False),
    Column("taxes", JSONB, nullable=False),
    Column("terms", JSONB, nullable=False),
    Column("due_time", _TIME),
    Column("paid_time", _TIME),
    Column("payment_reference", Text, nullable=False),
    Column("uncollectible_time", _TIME),
    Column("automatic_issue_time", _TIME),
    Column("replaces_invoice_id", Text, nullable=False),
)

invoice_lines = Table(
    "invoice_lines",
    metadata,
    _tenant(),
    Column("invoice_id", Text, primary_key=True),
    Column("line_id", Text, primary_key=True),
    Column("ordinal", Integer, nullable=False),
    Column("kind", Text, nullable=False),
    Column("rate_card_id", BigInteger),
    Column("rate_card_key", Text, nullable=False),
    Column("feature_key", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("quantity", Numeric, nullable=False),
    Column("unit_price", Numeric),
    Column("amount", Numeric, nullable=False),
    Column("period_index", Integer, nullable=False),
    Column("period_start_time", _TIME, nullable=False),
    Column("period_end_time", _TIME, nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("covered_seconds", BigInteger, nullable=False),
    Column("period_seconds", BigInteger, nullable=False),
    Column("total_quantity", Numeric, nullable=False),
    Column("billed_amount", Numeric, nullable=False),
    Column("details", JSONB, nullable=False),
)

invoice_numbers = Table(
    "invoice_numbers",
    metadata,
    _tenant(),
    Column("last_number", BigInteger, nullable=False),
)

tax_rates = Table(
    "tax_rates",
    metadata,
    _tenant(),
    Column("tax_rate_key", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("percentage", Numeric, nullable=False),
    Column("inclusive", Boolean, nullable=False),
    Column("note", Text, nullable=False),
    Column("create_time", _TIME, nullable=False),
    Column("archive_time", _TIME),
)

billing_profiles = Table(
    "billing_profiles",
    metadata,
    _tenant(),
    Column("customer_id", BigInteger),
    Column("profile", JSONB, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("update_time", _TIME, nullable=False),
)

credit_notes = Table(
    "credit_notes",
    metadata,
    _tenant(),
    Column("credit_note_id", Text, primary_key=True),
    Column("number", BigInteger, nullable=False),
    Column("number_text", Text, nullable=False),
    Column("invoice_id", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("subtotal", Numeric, nullable=False),
    Column("taxes", JSONB, nullable=False),
    Column("total", Numeric, nullable=False),
    Column("create_time", _TIME, nullable=False),
)

credit_note_lines = Table(
    "credit_note_lines",
    metadata,
    _tenant(),
    Column("credit_note_id", Text, primary_key=True),
    Column("line_id", Text, primary_key=True),
    Column("ordinal", Integer, nullable=False),
    Column("description", Text, nullable=False),
    Column("amount", Numeric, nullable=False),
)

credit_note_numbers = Table(
    "credit_note_numbers",
    metadata,
    _tenant(),
    Column("last_number", BigInteger, nullable=False),
)

billing_clocks = Table(
    "billing_clocks",
    metadata,
    _tenant(),
    Column("subscription_id", Text, primary_key=True),
    Column("due_time", _TIME),
    Column("version", BigInteger, nullable=False),
)
