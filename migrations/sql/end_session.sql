-- Ends a session and makes its access tokens void; false when there is none such, or it is not the owner's.
CREATE OR REPLACE FUNCTION identity.end_session(session uuid, owner uuid) RETURNS boolean
LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
AS $$
BEGIN
    UPDATE identity.sessions s SET ended_at = coalesce(s.ended_at, clock_timestamp())
    WHERE s.id = session AND (owner IS NULL OR s.subject = owner);
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM identity.revoke(session, false);
    RETURN true;
END
$$;
