CREATE SCHEMA log;

-- Positions are 1, 2, 3 ... without a gap, and commit order is position order: an append holds the head row's lock
-- from before it takes a number until it has committed.
CREATE TABLE log.head (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    position bigint NOT NULL,
    recorded_at timestamptz NOT NULL
);
INSERT INTO log.head (position, recorded_at) VALUES (0, 'epoch');

CREATE TABLE log.events (
    position bigint PRIMARY KEY,
    user_id uuid NOT NULL,
    version integer NOT NULL CHECK (version > 0),
    type text NOT NULL,
    schema smallint NOT NULL,
    event_id uuid NOT NULL,
    data jsonb NOT NULL,
    sealed bytea NOT NULL,
    metadata jsonb NOT NULL,
    recorded_at timestamptz NOT NULL,
    CONSTRAINT events_user_id_version_key UNIQUE (user_id, version)
);
COMMENT ON COLUMN log.events.data IS 'the record after the change and what changed: nothing personal';
COMMENT ON COLUMN log.events.sealed IS 'the personal rest, AES-256-GCM under the user''s own key (events/sealing.py)';
-- ciphertext does not compress: trying costs time on every append
ALTER TABLE log.events ALTER COLUMN sealed SET STORAGE EXTERNAL;

CREATE TABLE log.user_keys (
    user_id uuid PRIMARY KEY,
    wrapped bytea,
    kek_id text NOT NULL,
    erased_at timestamptz,
    CHECK ((wrapped IS NULL) = (erased_at IS NOT NULL))
);
COMMENT ON TABLE log.user_keys IS 'after erasure the row stays as a tombstone, so that no key is made again';

CREATE TABLE log.email_claims (
    email_key bytea PRIMARY KEY,
    user_id uuid NOT NULL UNIQUE
);
COMMENT ON COLUMN log.email_claims.email_key IS 'HMAC-SHA256 of the canonical e-mail address';

CREATE TABLE log.commands (
    caller text NOT NULL,
    key text NOT NULL,
    digest bytea NOT NULL,
    position bigint NOT NULL,
    changed boolean NOT NULL,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (caller, key)
);
COMMENT ON TABLE log.commands IS 'idempotency keys; the answer is made again from the event at the position';
CREATE INDEX commands_expires_at_idx ON log.commands (expires_at);

CREATE TABLE log.publication (
    topic text NOT NULL,
    partition integer NOT NULL,
    position bigint NOT NULL,
    next_offset bigint NOT NULL,
    last_position bigint NOT NULL,
    published_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (topic, partition)
);
COMMENT ON COLUMN log.publication.position IS 'every event up to here is in the topic, as far as it belongs here';
COMMENT ON COLUMN log.publication.next_offset IS 'the offset after the last record that was acknowledged';
COMMENT ON COLUMN log.publication.last_position IS 'the position of that record: who the topic is known by';

CREATE SCHEMA identity;

CREATE TABLE identity.credentials (
    user_id uuid PRIMARY KEY,
    password_hash text NOT NULL,
    changed_at timestamptz NOT NULL
);
