-- Keys that take each other's place while everything runs: those that wrap, and the one that the e-mail index is made with.

-- Which key-encryption keys are in use is asked at every start. Entries with the same id share space, so this is small.
CREATE INDEX user_keys_kek_id_idx ON log.user_keys (kek_id) WHERE wrapped IS NOT NULL;

-- The ids of the key-encryption keys that some user's key is wrapped by: a look-up for each of them and one more,
-- however many users there are.
CREATE FUNCTION log.keks_in_use() RETURNS SETOF text
LANGUAGE sql STABLE
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_sort = off
AS $$
    WITH RECURSIVE used (kek_id) AS (
        (SELECT k.kek_id FROM log.user_keys k WHERE k.wrapped IS NOT NULL ORDER BY k.kek_id LIMIT 1)
        UNION ALL
        SELECT (
            SELECT k.kek_id FROM log.user_keys k
            WHERE k.wrapped IS NOT NULL AND k.kek_id > u.kek_id ORDER BY k.kek_id LIMIT 1
        )
        FROM used u WHERE u.kek_id IS NOT NULL
    )
    SELECT u.kek_id FROM used u WHERE u.kek_id IS NOT NULL
$$;
REVOKE EXECUTE ON FUNCTION log.keks_in_use() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION log.keks_in_use() TO muster_command, muster_query, muster_projector;

-- Who re-wraps keys may replace a wrapped key and say which KEK did it. That makes and undoes no tombstone: the table's
-- CHECK ties wrapped to erased_at, which is not granted. It is the command API's role because it has the KEK anyway, and
-- whoever has both can read all that is sealed.
GRANT UPDATE (wrapped, kek_id) ON log.user_keys TO muster_command;

-- The key that email_claims.email_key is made with; null until the first claim. During a change next_key_id is that of
-- email_key_next, which is null in the rows that still lack it. Every claim names the keys of its digests, so no mix of
-- processes puts one into the other's column. A row of email_key_next is always of the same address as its email_key.
CREATE TABLE log.email_index (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    key_id text,
    next_key_id text CHECK (next_key_id <> key_id),
    changed_at timestamptz
);
COMMENT ON COLUMN log.email_index.changed_at IS 'when the last change was finished';
INSERT INTO log.email_index DEFAULT VALUES;
GRANT SELECT, UPDATE (key_id, next_key_id) ON log.email_index TO muster_command;

ALTER TABLE log.email_claims ADD COLUMN email_key_next bytea;
COMMENT ON COLUMN log.email_claims.email_key_next IS 'the same with the next key, while one takes the other''s place';
-- empty but for a change: nobody pays for it
CREATE UNIQUE INDEX email_claims_email_key_next_idx ON log.email_claims (email_key_next)
    WHERE email_key_next IS NOT NULL;
