-- as it was before it took `former`
DROP FUNCTION IF EXISTS log.request_erasure(uuid, jsonb, timestamptz, text, text, bytea, integer);

-- Records that a user is to be erased: from its commit on, log.append takes no change of theirs but the erasure's own.
--
-- metadata: as events have it. requested: when it was asked for first, null for now. caller, key, digest, former (what the
-- digest would be with other keys) and ttl are the request's idempotency key, and may be null; its answer is the receipt,
-- so the position that goes with it is none.
--
-- Gives recorded, known (it was recorded before), unknown (there is no such user) or key_reused (by another request).
CREATE OR REPLACE FUNCTION log.request_erasure(
    erased uuid, metadata jsonb, requested timestamptz, caller text, key text, digest bytea,
    former bytea[], ttl integer)
RETURNS text
LANGUAGE plpgsql
SET enable_seqscan = off
AS $$
#variable_conflict use_variable
DECLARE
    held bytea;
    stamp timestamptz;
BEGIN
    -- as an append does: whatever was appended before is seen here, and what comes later sees this
    PERFORM 1 FROM log.head h FOR UPDATE;
    stamp := clock_timestamp();

    SELECT k.digest INTO held FROM log.commands k
    WHERE k.caller = caller AND k.key = key AND k.expires_at > stamp;
    IF held <> digest AND held <> ALL (former) THEN
        RETURN 'key_reused';
    END IF;
    IF NOT EXISTS (SELECT 1 FROM log.events e WHERE e.user_id = erased) THEN
        RETURN 'unknown';
    END IF;
    IF key IS NOT NULL AND held IS NULL THEN
        INSERT INTO log.commands AS k (caller, key, digest, position, changed, expires_at)
        VALUES (caller, key, digest, 0, true, stamp + make_interval(secs => ttl))
        ON CONFLICT ON CONSTRAINT commands_pkey DO UPDATE
        SET digest = excluded.digest, position = 0, changed = true, expires_at = excluded.expires_at;
    END IF;

    INSERT INTO log.erasures (user_id, requested_at, metadata) VALUES (erased, coalesce(requested, stamp), metadata)
    ON CONFLICT DO NOTHING;
    RETURN CASE WHEN FOUND THEN 'recorded' ELSE 'known' END;
END
$$;
