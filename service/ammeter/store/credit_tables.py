"""The tables of prepaid credits."""

from sqlalchemy import ARRAY, BigInteger, Boolean, Column, Identity, Integer, Numeric, Table, Text

from ammeter.store.tables import TIME, metadata, tenant_column

# `remaining` is written by a trigger, from entries, and by nobody else.
credit_lots = Table(
    "credit_lots",
    metadata,
    tenant_column(),
    Column("credit_lot_id", Text, primary_key=True),
    Column("customer_id", BigInteger, nullable=False),
    Column("kind", Text, nullable=False),
    Column("currency", Text, nullable=False),
    Column("amount", Numeric, nullable=False),
    Column("remaining", Numeric, nullable=False),
    Column("cost_basis", Numeric, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("feature_keys", ARRAY(Text), nullable=False),
    Column("effective_time", TIME, nullable=False),
    Column("expire_time", TIME),
    Column("description", Text, nullable=False),
    Column("reference", Text, nullable=False),
    Column("create_time", TIME, nullable=False),
    Column("void_time", TIME),
)

credit_transactions = Table(
    "credit_transactions",
    metadata,
    tenant_column(),
    Column("transaction_id", BigInteger, Identity(always=True), primary_key=True),
    Column("kind", Text, nullable=False),
    Column("customer_id", BigInteger, nullable=False),
    Column("invoice_id", Text),
    Column("book_time", TIME, nullable=False),
    Column("create_time", TIME, nullable=False),
)

credit_entries = Table(
    "credit_entries",
    metadata,
    tenant_column(),
    Column("transaction_id", BigInteger, primary_key=True),
    Column("ordinal", Integer, primary_key=True),
    Column("account", Text, nullable=False),
    Column("credit_lot_id", Text, nullable=False),
    Column("line_id", Text, nullable=False),
    Column("amount", Numeric, nullable=False),
    Column("cost", Numeric, nullable=False),
)

top_up_rules = Table(
    "top_up_rules",
    metadata,
    tenant_column(),
    Column("customer_id", BigInteger, primary_key=True),
    Column("threshold", Numeric, nullable=False),
    Column("amount", Numeric, nullable=False),
    Column("armed", Boolean, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("check_time", TIME, nullable=False),
    Column("update_time", TIME, nullable=False),
)

credit_events = Table(
    "credit_events",
    metadata,
    tenant_column(),
    Column("credit_event_id", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("customer_id", BigInteger, nullable=False),
    Column("currency", Text, nullable=False),
    Column("available", Numeric, nullable=False),
    Column("threshold", Numeric, nullable=False),
    Column("amount", Numeric, nullable=False),
    Column("create_time", TIME, nullable=False),
)
