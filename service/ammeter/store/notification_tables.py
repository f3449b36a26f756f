"""The tables of thresholds and notifications, as SQLAlchemy sees them."""

from sqlalchemy import BigInteger, Column, Integer, Table, Text
from sqlalchemy.dialects.postgresql import JSONB

from ammeter.store.tables import QUANTITY, TIME, metadata, tenant_column

thresholds = Table(
    "thresholds",
    metadata,
    tenant_column(),
    Column("threshold_id", Text, primary_key=True),
    Column("customer_id", BigInteger),
    Column("feature_id", BigInteger),
    Column("kind", Text, nullable=False),
    Column("amount", QUANTITY),
    Column("percent", QUANTITY),
    Column("create_time", TIME, nullable=False),
)

notifications = Table(
    "notifications",
    metadata,
    tenant_column(),
    Column("sequence", BigInteger, primary_key=True),
    Column("threshold_id", Text, nullable=False),
    Column("counter", BigInteger, nullable=False),
    Column("period_start_minute", Integer, nullable=False),
    Column("period_end_minute", Integer, nullable=False),
    Column("threshold", JSONB, nullable=False),
    Column("entitlement_id", Text, nullable=False),
    Column("customer_key", Text, nullable=False),
    Column("feature_key", Text, nullable=False),
    Column("usage", QUANTITY, nullable=False),
    Column("balance", QUANTITY, nullable=False),
    Column("overage", QUANTITY, nullable=False),
    Column("create_time", TIME, nullable=False),
    Column("top_up", JSONB),
)
