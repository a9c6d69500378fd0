-- What a user's newest event says of whether and as what they may call; no row for a deleted or disabled one.
CREATE OR REPLACE FUNCTION identity.roles_of(subject uuid) RETURNS text[]
LANGUAGE sql STABLE
RETURN (
    SELECT CASE WHEN newest.record ->> 'status' = 'active' AND newest.record ->> 'deleted_at' IS NULL
        THEN ARRAY(SELECT jsonb_array_elements_text(newest.record -> 'roles')) END
    FROM (
        SELECT e.data -> 'record' AS record FROM log.events e WHERE e.user_id = subject ORDER BY e.version DESC LIMIT 1
    ) newest
);

-- Begins the session of a user whose password was verified against known_hash; new_hash, when given, replaces it.
--
-- No row: the user may not log in (any more). Otherwise their roles, and the newest revocation that these reflect: what
-- revokes anything later has a higher number, so nothing can slip in between.
CREATE OR REPLACE FUNCTION identity.begin_session(
    session uuid, subject uuid, known_hash text, new_hash text, asked text[], family bytea, secret bytea,
    lifetime integer, agent text, pair bytea, account bytea, address bytea)
RETURNS TABLE (roles text[], reflects bigint)
LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
AS $$
#variable_conflict use_variable
DECLARE
    stamp CONSTANT timestamptz := clock_timestamp();
BEGIN
    -- whoever deletes the user waits for this, or has done so before what follows: no session of theirs is left over
    PERFORM 1 FROM identity.credentials c WHERE c.user_id = subject FOR NO KEY UPDATE;

    IF new_hash IS NOT NULL THEN
        UPDATE identity.credentials c SET password_hash = new_hash
        WHERE c.user_id = subject AND c.password_hash = known_hash;
    END IF;

    SELECT h.number, identity.roles_of(subject) INTO reflects, roles
    FROM identity.revocation_head h
    WHERE EXISTS (
        SELECT 1 FROM identity.credentials c
        WHERE c.user_id = subject AND c.password_hash = coalesce(new_hash, known_hash)
    );
    IF roles IS NULL THEN
        RETURN;
    END IF;

    INSERT INTO identity.sessions
        (id, subject, scopes, family_hash, secret_hash, reflects, user_agent, created_at, last_used_at, expires_at)
    VALUES (session, subject, asked, family, secret, reflects, agent, stamp, stamp,
        stamp + make_interval(secs => lifetime));
    PERFORM identity.forgive(pair, account, address);
    RETURN NEXT;
END
$$;
