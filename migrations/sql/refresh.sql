-- Exchanges a refresh token; all parts of it arrive hashed.
--
-- verdict  rotated   secret was the living one: next_secret is now
--          repeated  it was the one before, within the grace: the living one was made of it and `salt`
--          reused    it was used before that: the session is ended, with all its tokens
--          unknown, expired, ended: no new token
-- For the first two: the user's roles, what the login asked for, and the newest revocation that these reflect.
CREATE OR REPLACE FUNCTION identity.refresh(
    session uuid, family bytea, secret bytea, next_secret bytea, next_salt bytea, grace double precision)
RETURNS TABLE (verdict text, subject uuid, salt bytea, roles text[], asked text[], reflects bigint)
LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
AS $$
#variable_conflict use_variable
DECLARE
    held identity.sessions%ROWTYPE;
    ended bigint;
    stamp timestamptz;
BEGIN
    SELECT * INTO held FROM identity.sessions s WHERE s.id = session FOR UPDATE;
    stamp := clock_timestamp();
    subject := held.subject;
    -- a session's id is no secret: only who holds a token of the family is told anything, or can end it
    IF NOT FOUND OR held.family_hash IS DISTINCT FROM family THEN
        verdict := 'unknown';
        subject := NULL;
        RETURN NEXT;
        RETURN;
    END IF;

    -- after the lock, in one snapshot
    SELECT h.number, identity.roles_of(held.subject),
        (SELECT r.sessions_number FROM identity.revocations r WHERE r.id = held.subject)
    INTO reflects, roles, ended
    FROM identity.revocation_head h;
    IF held.ended_at IS NOT NULL OR ended > held.reflects OR roles IS NULL THEN
        verdict := 'ended';
    ELSIF held.expires_at <= stamp THEN
        verdict := 'expired';
    ELSIF secret = held.secret_hash THEN
        UPDATE identity.sessions s SET secret_hash = next_secret, previous_hash = secret, salt = next_salt,
            rotated_at = stamp, last_used_at = stamp
        WHERE s.id = session;
        verdict := 'rotated';
        salt := next_salt;
    ELSIF secret = held.previous_hash AND held.rotated_at > stamp - make_interval(secs => grace) THEN
        verdict := 'repeated';
        salt := held.salt;
    ELSE
        verdict := 'reused';
        UPDATE identity.sessions s SET ended_at = stamp WHERE s.id = session;
        PERFORM identity.revoke(session, false);
    END IF;
    asked := held.scopes;
    RETURN NEXT;
END
$$;
