"""Let a row of segments be a pack: several neighbours, each with its digest.

The engine role may take a segment's row away only where a pack holds its
digest in its place when the transaction ends. Whoever makes the first pack
says that versions that know none are served no more.
"""

from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None
still_serves = "0018"

# A part: event count, raw bytes, time of recording, digest.
CHANGES = """
ALTER TABLE segments
  ADD COLUMN first_position bigint,
  ADD COLUMN parts bytea,
  ADD CONSTRAINT parts_fit CHECK (
    CASE WHEN parts IS NULL THEN first_position IS NULL
    ELSE octet_length(parts) > 48 AND octet_length(parts) = 48 * (position - first_position + 1) END
  ) NOT VALID;
ALTER TABLE segments ALTER COLUMN parts SET STORAGE EXTERNAL;
CREATE FUNCTION segment_is_packed() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  -- Where the pack ends, from whoever made it: looking for it passes all rows that are gone.
  told bigint := NULLIF(current_setting('ammeter.pack', true), '');
BEGIN
  IF NOT EXISTS (
    SELECT FROM (
      SELECT position, first_position, parts FROM segments
      WHERE tenant_id = OLD.tenant_id AND position >= greatest(OLD.position, told) ORDER BY position LIMIT 1
    ) AS pack
    WHERE position >= OLD.position AND first_position <= coalesce(OLD.first_position, OLD.position) AND CASE
      WHEN OLD.parts IS NULL
      THEN substr(parts, ((OLD.position - first_position) * 48 + 17)::int, 32) = OLD.digest
      ELSE substr(parts, ((OLD.first_position - first_position) * 48 + 1)::int, octet_length(OLD.parts))
        = OLD.parts
    END
  ) THEN
    RAISE EXCEPTION 'tenant %: no pack holds the segment at position %', OLD.tenant_id, OLD.position
      USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER segment_is_packed AFTER DELETE ON segments
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
  WHEN (current_user = 'ammeter_engine') EXECUTE FUNCTION segment_is_packed();
GRANT DELETE ON segments TO ammeter_engine;
GRANT UPDATE (oldest_revision) ON server_state TO ammeter_engine;
"""


def upgrade() -> None:
    """Add the columns, empty for segments, and the rule."""
    op.execute(CHANGES)


def downgrade() -> None:
    """Refuse: there may be packs."""
    message = "segments may be in packs under this schema: restore a backup instead"
    raise RuntimeError(message)
