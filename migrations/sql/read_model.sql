CREATE SCHEMA read_model;

CREATE EXTENSION IF NOT EXISTS pg_trgm WITH SCHEMA public;

CREATE TABLE read_model.users (
    id uuid PRIMARY KEY,
    email text,
    email_canonical text COLLATE "C",
    display_name text,
    status text,
    roles text[],
    attributes jsonb,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    password_changed_at timestamptz,
    deleted_at timestamptz,
    version integer NOT NULL,
    position bigint NOT NULL,
    -- what `q` searches
    search text GENERATED ALWAYS AS (lower(normalize(coalesce(email, '') || ' ' || coalesce(display_name, ''), NFC))) STORED,
    CHECK (deleted_at IS NOT NULL OR (email IS NOT NULL AND email_canonical IS NOT NULL AND status IS NOT NULL
        AND roles IS NOT NULL AND attributes IS NOT NULL))
);
COMMENT ON TABLE read_model.users IS 'a deleted user stays as a row without personal data, so that 410 differs from 404';
CREATE INDEX users_created_at_idx ON read_model.users (created_at, id) WHERE deleted_at IS NULL;
CREATE INDEX users_updated_at_idx ON read_model.users (updated_at, id) WHERE deleted_at IS NULL;
CREATE INDEX users_email_idx ON read_model.users (email_canonical, id) WHERE deleted_at IS NULL;
-- a rare status is found by its own rows, not by walking a sort order
CREATE INDEX users_disabled_idx ON read_model.users (id) WHERE deleted_at IS NULL AND status <> 'active';
CREATE INDEX users_roles_idx ON read_model.users USING gin (roles) WHERE deleted_at IS NULL;
CREATE INDEX users_search_idx ON read_model.users USING gin (search gin_trgm_ops) WHERE deleted_at IS NULL;

-- with fewer, the planner takes a rare role for a common one and walks a sort order
ALTER TABLE read_model.users ALTER COLUMN roles SET STATISTICS 1000;

CREATE TABLE read_model.progress (
    partition integer PRIMARY KEY,
    next_offset bigint NOT NULL,
    position bigint NOT NULL,
    moved_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON COLUMN read_model.progress.next_offset IS 'the first offset of the events topic that is not applied yet';
COMMENT ON COLUMN read_model.progress.position IS 'every event of this partition up to here is applied';
