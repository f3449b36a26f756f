"""Let each feature say what callers of checks do while they get no answer."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

COLUMNS = """
ALTER TABLE features
  ADD COLUMN fail_mode text NOT NULL DEFAULT 'CLOSED'
    CHECK (fail_mode IN ('CLOSED', 'OPEN', 'OPEN_WITHIN')),
  ADD COLUMN fail_allowance numeric(38, 12) CHECK (fail_allowance > 0),
  ADD COLUMN version int NOT NULL DEFAULT 1,
  ADD CHECK ((fail_mode = 'OPEN_WITHIN') = (fail_allowance IS NOT NULL));
GRANT UPDATE ON features TO ammeter_app;
"""


def upgrade() -> None:
    """Close every feature: what nobody asked to be open stays shut."""
    op.execute(COLUMNS)


def downgrade() -> None:
    """Refuse: callers would lose what they were told to do."""
    message = "fail modes cannot be taken back: restore a backup instead"
    raise RuntimeError(message)
