"""Let invoices bill slices of a period before it is over; list invoices without sorting them."""

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

CHANGES = """
ALTER TABLE invoice_lines
  DROP CONSTRAINT invoice_lines_kind_check,
  ADD CONSTRAINT invoice_lines_kind_check
    CHECK (kind IN ('flat', 'usage', 'late_usage', 'minimum', 'coupon', 'slice'));
CREATE INDEX ON invoices (tenant_id, create_time, period_end_time, invoice_id);
"""


def upgrade() -> None:
    """Allow the kind, and index what ListInvoices orders by."""
    op.execute(CHANGES)


def downgrade() -> None:
    """Refuse: slices may have been issued."""
    message = "slices were billed under this schema: restore a backup instead"
    raise RuntimeError(message)
