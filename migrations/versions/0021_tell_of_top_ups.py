"""Notifications that a top-up is needed, written with the credit event that says so.

Versions that know nothing of them read such a one as a threshold's: a low
balance, of no entitlement.
"""

from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None
still_serves = "0019"


def upgrade() -> None:
    """Add the column, and let those write who look at credits."""
    op.execute("ALTER TABLE notifications ADD COLUMN top_up jsonb")
    op.execute("GRANT INSERT ON notifications TO ammeter_app")


def downgrade() -> None:
    """Refuse: what was told would be told again."""
    message = "notifications cannot be taken back: restore a backup instead"
    raise RuntimeError(message)
