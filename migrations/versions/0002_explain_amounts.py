"""Explain amounts by details, and let a plan ask for a minimum in each period."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

CHANGES = """
ALTER TABLE plans ADD COLUMN minimum_amount numeric CHECK (minimum_amount > 0);
ALTER TABLE invoice_lines
  ADD COLUMN details jsonb NOT NULL DEFAULT '[]',
  ALTER COLUMN unit_price DROP NOT NULL,
  ALTER COLUMN rate_card_id DROP NOT NULL,
  DROP CONSTRAINT invoice_lines_kind_check,
  ADD CONSTRAINT invoice_lines_kind_check CHECK (kind IN ('flat', 'usage', 'late_usage', 'minimum')),
  ADD CHECK ((kind = 'minimum') = (rate_card_id IS NULL));
"""


def upgrade() -> None:
    """Add the columns; lines made before have no details."""
    op.execute(CHANGES)


def downgrade() -> None:
    """Refuse: details would be lost."""
    message = "details of invoices cannot be made again: restore a backup instead"
    raise RuntimeError(message)
