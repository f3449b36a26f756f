"""Let the server forget operations that ended long ago."""

from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None
still_serves = "0019"


def upgrade() -> None:
    """Let its chores delete them; a restrictive policy keeps those that have not ended."""
    op.execute("GRANT DELETE ON operations TO ammeter_engine")
    op.execute(
        "CREATE POLICY ended ON operations AS RESTRICTIVE FOR DELETE TO ammeter_engine "
        "USING (end_time IS NOT NULL)"
    )


def downgrade() -> None:
    """Take it back."""
    op.execute("DROP POLICY ended ON operations")
    op.execute("REVOKE DELETE ON operations FROM ammeter_engine")
