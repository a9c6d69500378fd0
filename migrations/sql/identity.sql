-- Who may call: services, sessions, signing keys, what is revoked, and how often somebody guessed.

CREATE TABLE identity.clients (
    id uuid PRIMARY KEY,
    name text NOT NULL UNIQUE,
    secret_hash bytea NOT NULL,
    scopes text[] NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    disabled_at timestamptz
);
COMMENT ON TABLE identity.clients IS 'services that log in with a secret of their own (RFC 6749, section 4.4)';
COMMENT ON COLUMN identity.clients.secret_hash IS 'SHA-256 of 256 random bits';

-- Revocations are numbered 1, 2, 3 ... and commit in that order: a number is taken under the head's lock, which is held
-- until the commit. Who has seen number n has seen all before it.
CREATE TABLE identity.revocation_head (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    number bigint NOT NULL
);
INSERT INTO identity.revocation_head (number) VALUES (0);

CREATE TABLE identity.revocations (
    id uuid CONSTRAINT revocations_pkey PRIMARY KEY,
    number bigint NOT NULL UNIQUE,
    sessions_number bigint,
    revoked_at timestamptz NOT NULL
);
COMMENT ON COLUMN identity.revocations.id IS 'of a user, a client or a session: its newest revocation';
COMMENT ON COLUMN identity.revocations.number IS 'void are the access tokens that reflect a lower number';
COMMENT ON COLUMN identity.revocations.sessions_number IS 'ended are the sessions that reflect a lower number';
CREATE INDEX revocations_revoked_at_idx ON identity.revocations (revoked_at);

CREATE TABLE identity.sessions (
    id uuid PRIMARY KEY,
    subject uuid NOT NULL,
    scopes text[],
    family_hash bytea,
    secret_hash bytea,
    previous_hash bytea,
    salt bytea,
    rotated_at timestamptz,
    reflects bigint NOT NULL,
    user_agent text,
    created_at timestamptz NOT NULL,
    last_used_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    ended_at timestamptz
);
COMMENT ON COLUMN identity.sessions.subject IS 'the id of a user or a client';
COMMENT ON COLUMN identity.sessions.scopes IS 'what the login asked for; null: all that the subject may have';
COMMENT ON COLUMN identity.sessions.family_hash IS 'SHA-256 of what all refresh tokens of the session share; null: it has none';
COMMENT ON COLUMN identity.sessions.secret_hash IS 'SHA-256 of the living refresh token''s own part';
COMMENT ON COLUMN identity.sessions.previous_hash IS 'that of the one before, which is answered alike for the grace';
COMMENT ON COLUMN identity.sessions.salt IS 'what the living token was made of, together with the one before';
COMMENT ON COLUMN identity.sessions.reflects IS 'the newest revocation that its login had seen';
CREATE INDEX sessions_subject_idx ON identity.sessions (subject, created_at);
CREATE INDEX sessions_expires_at_idx ON identity.sessions (expires_at);

CREATE TABLE identity.signing_keys (
    kid text PRIMARY KEY,
    public_key bytea NOT NULL CHECK (length(public_key) = 32),
    wrapped bytea NOT NULL,
    kek_id text NOT NULL,
    published_at timestamptz NOT NULL DEFAULT now(),
    signs_from timestamptz NOT NULL,
    verifies_until timestamptz
);
COMMENT ON COLUMN identity.signing_keys.wrapped IS 'the Ed25519 seed, wrapped by the key-encryption key';

CREATE TABLE identity.guesses (
    key bytea PRIMARY KEY,
    failures integer NOT NULL,
    next_at timestamptz NOT NULL,
    last_at timestamptz NOT NULL
);
COMMENT ON COLUMN identity.guesses.key IS 'HMAC-SHA256 of an account, of an address, or of both';
CREATE INDEX guesses_last_at_idx ON identity.guesses (last_at);
