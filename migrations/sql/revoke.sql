-- Makes void what was issued to a user, a client or a session before now; gives the revocation's number.
CREATE OR REPLACE FUNCTION identity.revoke(revoked uuid, end_sessions boolean) RETURNS bigint
LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
AS $$
DECLARE
    following bigint;
BEGIN
    UPDATE identity.revocation_head h SET number = h.number + 1 RETURNING h.number INTO STRICT following;
    INSERT INTO identity.revocations AS r (id, number, sessions_number, revoked_at)
    VALUES (revoked, following, CASE WHEN end_sessions THEN following END, clock_timestamp())
    ON CONFLICT (id) DO UPDATE SET number = excluded.number, revoked_at = excluded.revoked_at,
        sessions_number = coalesce(excluded.sessions_number, r.sessions_number);
    RETURN following;
END
$$;
