-- Persons who are erased: who asked for it, why, and when each step was done. The rows stay: each is the receipt.
CREATE TABLE log.erasures (
    user_id uuid PRIMARY KEY,
    requested_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    metadata jsonb NOT NULL,
    position bigint,
    deleted_at timestamptz,
    erased_at timestamptz,
    removed jsonb,
    buried_at timestamptz,
    completed_at timestamptz,
    CHECK (erased_at IS NULL OR deleted_at IS NOT NULL),
    CHECK (completed_at IS NULL OR (erased_at IS NOT NULL AND buried_at IS NOT NULL))
);
COMMENT ON COLUMN log.erasures.requested_at IS 'from then on, nobody but the erasure changes the user';
COMMENT ON COLUMN log.erasures.metadata IS 'actor, reason and request, as events have them';
COMMENT ON COLUMN log.erasures.position IS 'of the UserDeleted, which may be older than the request';
COMMENT ON COLUMN log.erasures.deleted_at IS 'when that was recorded';
COMMENT ON COLUMN log.erasures.erased_at IS 'when the data key was destroyed, with all that this database had in the clear';
COMMENT ON COLUMN log.erasures.removed IS 'how much that was, by place';
COMMENT ON COLUMN log.erasures.buried_at IS 'when the broker had acknowledged the tombstone in the snapshot topic';
COMMENT ON COLUMN log.erasures.completed_at IS 'when all that, and what processes remember, was gone';
CREATE INDEX erasures_open_idx ON log.erasures (requested_at) WHERE completed_at IS NULL;

-- the idempotency answers that stand for a user's events
CREATE INDEX commands_position_idx ON log.commands (position);

-- who was deleted long enough ago to be erased
CREATE INDEX events_deletions_idx ON log.events (position) WHERE type = 'UserDeleted';
