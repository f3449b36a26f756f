"""The tables of billing; the rest is in tables.py."""

from sqlalchemy import ARRAY, BigInteger, Boolean, Column, Identity, Integer, Numeric, Table, Text
from sqlalchemy.dialects.postgresql import JSONB

from ammeter.store.tables import TIME, metadata, tenant_column

invoices = Table(
    "invoices",
    metadata,
    tenant_column(),
    Column("invoice_id", Text, primary_key=True),
    Column("number", BigInteger),
    Column("state", Text, nullable=False),
    Column("customer_id", BigInteger, nullable=False),
    Column("subscription_id", Text, nullable=False),
    Column("period_index", Integer, nullable=False),
    Column("ordinal", Integer, nullable=False),
    Column("currency", Text, nullable=False),
    Column("period_start_time", TIME, nullable=False),
    Column("period_end_time", TIME, nullable=False),
    Column("total", Numeric, nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("create_time", TIME, nullable=False),
    Column("issue_time", TIME),
    Column("void_time", TIME),
    Column("number_text", Text, nullable=False),
    Column("subtotal", Numeric, nullable=False),
    Column("taxes", JSONB, nullable=False),
    Column("terms", JSONB, nullable=False),
    Column("due_time", TIME),
    Column("paid_time", TIME),
    Column("payment_reference", Text, nullable=False),
    Column("uncollectible_time", TIME),
    Column("automatic_issue_time", TIME),
    Column("replaces_invoice_id", Text, nullable=False),
    Column("prepaid_total", Numeric, nullable=False),
    Column("plan_id", BigInteger, nullable=False),
)

invoice_lines = Table(
    "invoice_lines",
    metadata,
    tenant_column(),
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
    Column("period_start_time", TIME, nullable=False),
    Column("period_end_time", TIME, nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("covered_seconds", BigInteger, nullable=False),
    Column("period_seconds", BigInteger, nullable=False),
    Column("total_quantity", Numeric, nullable=False),
    Column("billed_amount", Numeric, nullable=False),
    Column("details", JSONB, nullable=False),
    Column("unpriced_models", ARRAY(Text), nullable=False),
    Column("coupon_key", Text, nullable=False),
    Column("attached_coupon_id", Text, nullable=False),
    Column("price_override_id", Text, nullable=False),
    Column("plan_key", Text, nullable=False),
    Column("plan_version", Integer, nullable=False),
    Column("price_list_key", Text, nullable=False),
    Column("price_times", ARRAY(TIME)),
)

# Added before an invoice is issued, and never changed.
invoice_usage = Table(
    "invoice_usage",
    metadata,
    tenant_column(),
    Column("invoice_id", Text, primary_key=True),
    Column("line_id", Text, primary_key=True),
    Column("names", ARRAY(Text), nullable=False),
    Column("rows", JSONB, nullable=False),
    Column("left_out_count", Integer, nullable=False),
)

invoice_numbers = Table(
    "invoice_numbers",
    metadata,
    tenant_column(),
    Column("last_number", BigInteger, nullable=False),
)

tax_rates = Table(
    "tax_rates",
    metadata,
    tenant_column(),
    Column("tax_rate_key", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("percentage", Numeric, nullable=False),
    Column("inclusive", Boolean, nullable=False),
    Column("note", Text, nullable=False),
    Column("create_time", TIME, nullable=False),
    Column("archive_time", TIME),
)

billing_profiles = Table(
    "billing_profiles",
    metadata,
    tenant_column(),
    Column("customer_id", BigInteger),
    Column("profile", JSONB, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("update_time", TIME, nullable=False),
)

credit_notes = Table(
    "credit_notes",
    metadata,
    tenant_column(),
    Column("credit_note_id", Text, primary_key=True),
    Column("number", BigInteger, nullable=False),
    Column("number_text", Text, nullable=False),
    Column("invoice_id", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("subtotal", Numeric, nullable=False),
    Column("taxes", JSONB, nullable=False),
    Column("total", Numeric, nullable=False),
    Column("create_time", TIME, nullable=False),
)

credit_note_lines = Table(
    "credit_note_lines",
    metadata,
    tenant_column(),
    Column("credit_note_id", Text, primary_key=True),
    Column("line_id", Text, primary_key=True),
    Column("ordinal", Integer, nullable=False),
    Column("description", Text, nullable=False),
    Column("amount", Numeric, nullable=False),
)

credit_note_numbers = Table(
    "credit_note_numbers",
    metadata,
    tenant_column(),
    Column("last_number", BigInteger, nullable=False),
)

operations = Table(
    "operations",
    metadata,
    tenant_column(),
    Column("operation_id", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("customer_key", Text, nullable=False),
    Column("issue", Boolean, nullable=False),
    Column("cursor", Text, nullable=False),
    Column("done_count", BigInteger, nullable=False),
    Column("total_count", BigInteger, nullable=False),
    Column("invoice_count", BigInteger, nullable=False),
    Column("failed_count", BigInteger, nullable=False),
    Column("error_reason", Text, nullable=False),
    Column("error_message", Text, nullable=False),
    Column("create_time", TIME, nullable=False),
    Column("update_time", TIME, nullable=False),
    Column("end_time", TIME),
    Column("cancel_time", TIME),
)

billing_clocks = Table(
    "billing_clocks",
    metadata,
    tenant_column(),
    Column("subscription_id", Text, primary_key=True),
    Column("due_time", TIME),
    Column("version", BigInteger, nullable=False),
)

price_lists = Table(
    "price_lists",
    metadata,
    tenant_column(),
    Column("price_list_id", BigInteger, Identity(always=True), primary_key=True),
    Column("price_list_key", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("currency", Text, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("create_time", TIME, nullable=False),
    Column("update_time", TIME, nullable=False),
)

price_list_entries = Table(
    "price_list_entries",
    metadata,
    tenant_column(),
    Column("price_list_id", BigInteger, primary_key=True),
    Column("token_type", Text, primary_key=True),
    Column("model", Text, primary_key=True),
    Column("effective_minute", Integer, primary_key=True),
    Column("layer", Text, primary_key=True),
    Column("unit_amount", Numeric),
    Column("write_time", TIME, nullable=False),
    Column("in_past", Boolean, nullable=False),
)

coupons = Table(
    "coupons",
    metadata,
    tenant_column(),
    Column("coupon_id", BigInteger, Identity(always=True), primary_key=True),
    Column("coupon_key", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("percentage", Numeric),
    Column("amount", Numeric),
    Column("currency", Text, nullable=False),
    Column("period_count", Integer, nullable=False),
    Column("create_time", TIME, nullable=False),
    Column("archive_time", TIME),
)

attached_coupons = Table(
    "attached_coupons",
    metadata,
    tenant_column(),
    Column("attached_coupon_id", Text, primary_key=True),
    Column("coupon_id", BigInteger, nullable=False),
    Column("customer_id", BigInteger, nullable=False),
    Column("subscription_id", Text),
    Column("from_time", TIME, nullable=False),
    Column("to_time", TIME),
    Column("create_time", TIME, nullable=False),
)

price_overrides = Table(
    "price_overrides",
    metadata,
    tenant_column(),
    Column("price_override_id", Text, primary_key=True),
    Column("subscription_id", Text, nullable=False),
    Column("rate_card_key", Text, nullable=False),
    Column("from_time", TIME, nullable=False),
    Column("to_time", TIME),
    Column("price", JSONB),
    Column("terms", JSONB, nullable=False),
    Column("reason", Text, nullable=False),
    Column("create_time", TIME, nullable=False),
)

add_ons = Table(
    "add_ons",
    metadata,
    tenant_column(),
    Column("add_on_id", Text, primary_key=True),
    Column("subscription_id", Text, nullable=False),
    Column("plan_id", BigInteger, nullable=False),
    Column("quantity", Integer, nullable=False),
    Column("from_time", TIME, nullable=False),
    Column("to_time", TIME),
    Column("create_time", TIME, nullable=False),
)
