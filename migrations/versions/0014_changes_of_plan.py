"""Let the allowance of an entitlement change in its course, as its subscription's plan does."""

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; nothing has changed so far."""
    op.execute("ALTER TABLE entitlements ADD COLUMN changes jsonb NOT NULL DEFAULT '[]'")


def downgrade() -> None:
    """Refuse: what was agreed would be lost."""
    message = "changes of allowances cannot be taken back: restore a backup instead"
    raise RuntimeError(message)
