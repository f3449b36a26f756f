"""Keep which versions the schema serves: those that know at least this revision."""

from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None
still_serves = "0017"


def upgrade() -> None:
    """Serve whoever knows this; what is older does not ask."""
    op.execute("ALTER TABLE server_state ADD COLUMN oldest_revision int NOT NULL DEFAULT 18")


def downgrade() -> None:
    """Forget it."""
    op.execute("ALTER TABLE server_state DROP COLUMN oldest_revision")
