"""Lines of invoices say which version of a plan, and which prices of a list, they are priced by."""

from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None
still_serves = "0019"

# Lines that are there stay as they are: they may be frozen.
CHANGES = """
ALTER TABLE invoice_lines
  ADD COLUMN plan_key text NOT NULL DEFAULT '',
  ADD COLUMN plan_version int NOT NULL DEFAULT 0,
  ADD COLUMN price_list_key text NOT NULL DEFAULT '',
  ADD COLUMN price_times timestamptz[]
"""


def upgrade() -> None:
    """Add the columns, empty of lines that are there."""
    op.execute(CHANGES)


def downgrade() -> None:
    """Refuse: frozen lines would lose what they say."""
    message = "lines of issued invoices name what they were priced by: restore a backup instead"
    raise RuntimeError(message)
