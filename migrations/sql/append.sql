-- Judges and appends a batch of commands in one transaction; one command's refusal never touches its neighbours.
--
-- batch: a JSON array. Each command has
--   user_id, expected (the user's version before), caller, key, digest, ttl (idempotency; may be absent), former (what
--   the digest would be with other keys), and, when it changes something: type, schema, event_id, data, sealed, metadata,
--   at, and as needed claim + claim_key (the digest of the e-mail to take and the id of the key that it is made with),
--   other_claims (the same by the ids of other keys), release (give the claim back), wrapped + kek_id (a new user's key),
--   password_hash, forget_password, revoke (tokens: what the user was issued is void; sessions: those are ended too),
--   erasing (it is a step of the user's erasure, which alone may change them then).
-- A command without a type only records its idempotency key, for the answer that position `seen` stands for.
-- No two commands of a batch share a user or an idempotency key; they may share an e-mail key: the first one wins.
--
-- Answers one row a command, in order: verdict
--   appended   position, recorded_at
--   noted      nothing to change; the idempotency key is kept
--   replayed   this key was answered before: position, changed
--   key_reused this key was answered before, to another request
--   stale      the user's version is not `expected`: version is what it is
--   claimed    another user has the e-mail
--   erased     the user is erased, or about to be
--   unindexed  no digest of the e-mail is made with the key that log.email_index names
CREATE OR REPLACE FUNCTION log.append(batch json)
RETURNS TABLE (verdict text, "position" bigint, recorded_at timestamptz, changed boolean, version integer)
LANGUAGE plpgsql
-- A plan made while the tables were empty is kept by a session until they are analysed, and would scan them whole: every
-- look-up here is to be by index, whatever the planner believes of a table's size.
SET enable_seqscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET enable_bitmapscan = off
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    head bigint;
    stamp timestamptz;
BEGIN
    -- The lock first, in a statement of its own: the next one gets a snapshot that sees all that committed before.
    SELECT h.position, greatest(h.recorded_at, clock_timestamp()) INTO STRICT head, stamp
    FROM log.head h FOR UPDATE;

    RETURN QUERY
    WITH command AS (
        SELECT c.*
        FROM ROWS FROM (json_to_recordset(batch) AS (
            user_id uuid, expected integer, caller text, key text, digest bytea, ttl integer, seen bigint,
            type text, schema smallint, event_id uuid, data jsonb, sealed bytea, metadata jsonb, at timestamptz,
            claim bytea, claim_key text, other_claims json, former bytea[],
            release boolean, wrapped bytea, kek_id text, password_hash text, forget_password boolean, revoke text,
            erasing boolean
        )) WITH ORDINALITY AS c (
            user_id, expected, caller, key, digest, ttl, seen,
            type, schema, event_id, data, sealed, metadata, at,
            claim, claim_key, other_claims, former,
            release, wrapped, kek_id, password_hash, forget_password, revoke, erasing, ordinal)
    ), indexed AS (
        -- the head's lock holds off whoever changes log.email_index; LIMIT tells the planner that it has one row
        SELECT c.*,
            CASE
                WHEN x.key_id IS NULL OR x.key_id = c.claim_key THEN c.claim
                ELSE (c.other_claims ->> x.key_id)::bytea
            END AS taken,
            CASE
                WHEN x.next_key_id = c.claim_key THEN c.claim
                ELSE (c.other_claims ->> x.next_key_id)::bytea
            END AS taken_next
        FROM command c CROSS JOIN (SELECT i.key_id, i.next_key_id FROM log.email_index i LIMIT 1) x
    ), compared AS (
        SELECT c.*, known.position AS known_position, known.changed AS known_changed, latest.version AS version,
            CASE
                WHEN known.digest IS NOT NULL THEN
                    CASE
                        WHEN known.digest = c.digest OR known.digest = ANY (c.former) THEN 'replayed'
                        ELSE 'key_reused'
                    END
                WHEN erasure.requested AND c.erasing IS NOT TRUE THEN 'erased'
                WHEN coalesce(latest.version, 0) <> c.expected THEN 'stale'
                WHEN c.claim IS NOT NULL AND c.taken IS NULL THEN 'unindexed'
                WHEN holder.user_id <> c.user_id OR next_holder.user_id <> c.user_id THEN 'claimed'
                WHEN c.type IS NULL THEN 'noted'
                ELSE 'appended'
            END AS finding
        FROM indexed c
        LEFT JOIN LATERAL (
            SELECT k.digest, k.position, k.changed FROM log.commands k
            WHERE k.caller = c.caller AND k.key = c.key AND k.expires_at > stamp
        ) known ON true
        LEFT JOIN LATERAL (
            SELECT true AS requested FROM log.erasures x WHERE x.user_id = c.user_id
        ) erasure ON true
        LEFT JOIN LATERAL (
            SELECT e.version FROM log.events e WHERE e.user_id = c.user_id ORDER BY e.version DESC LIMIT 1
        ) latest ON true
        LEFT JOIN LATERAL (
            SELECT o.user_id FROM log.email_claims o WHERE o.email_key = c.taken
        ) holder ON true
        LEFT JOIN LATERAL (
            SELECT o.user_id FROM log.email_claims o WHERE o.email_key_next = c.taken_next
        ) next_holder ON true
    ), judged AS (
        SELECT p.*,
            CASE
                WHEN p.finding = 'appended' AND p.taken IS NOT NULL
                    AND row_number() OVER (PARTITION BY p.finding, p.taken ORDER BY p.ordinal) > 1 THEN 'claimed'
                ELSE p.finding
            END AS verdict
        FROM compared p
    ), numbered AS MATERIALIZED (
        SELECT j.*, CASE WHEN j.verdict = 'appended'
            THEN head + row_number() OVER (PARTITION BY j.verdict ORDER BY j.ordinal) END AS position
        FROM judged j
    ), accepted AS MATERIALIZED (
        SELECT n.* FROM numbered n WHERE n.verdict = 'appended'
    ), appended AS (
        INSERT INTO log.events
            (position, user_id, version, type, schema, event_id, data, sealed, metadata, recorded_at)
        SELECT a.position, a.user_id, a.expected + 1, a.type, a.schema, a.event_id, a.data, a.sealed, a.metadata, stamp
        FROM accepted a ORDER BY a.position
    ), advanced AS (
        UPDATE log.head h SET position = head + n.count, recorded_at = stamp
        FROM (SELECT count(*) FROM accepted) n WHERE n.count > 0
    ), keyed AS (
        INSERT INTO log.user_keys (user_id, wrapped, kek_id)
        SELECT a.user_id, a.wrapped, a.kek_id FROM accepted a WHERE a.wrapped IS NOT NULL
    ), released AS (
        DELETE FROM log.email_claims e USING accepted a WHERE a.release AND e.user_id = a.user_id
    ), claimed AS (
        -- both columns, whatever was known of the next key: one never stays behind at an older address
        INSERT INTO log.email_claims AS e (email_key, email_key_next, user_id)
        SELECT a.taken, a.taken_next, a.user_id FROM accepted a WHERE a.claim IS NOT NULL
        ON CONFLICT ON CONSTRAINT email_claims_user_id_key DO UPDATE
        SET email_key = excluded.email_key, email_key_next = excluded.email_key_next
    ), named AS (
        UPDATE log.email_index x SET key_id = first.claim_key
        FROM (SELECT a.claim_key FROM accepted a WHERE a.claim_key IS NOT NULL ORDER BY a.ordinal LIMIT 1) first
        WHERE x.key_id IS NULL
    ), remembered AS (
        INSERT INTO log.commands AS k (caller, key, digest, position, changed, expires_at)
        SELECT n.caller, n.key, n.digest, coalesce(n.position, n.seen), n.verdict = 'appended',
            stamp + make_interval(secs => n.ttl)
        FROM numbered n
        WHERE n.key IS NOT NULL AND n.verdict IN ('appended', 'noted')
        -- only an expired one can be there still
        ON CONFLICT ON CONSTRAINT commands_pkey DO UPDATE
        SET digest = excluded.digest, position = excluded.position, changed = excluded.changed,
            expires_at = excluded.expires_at
    ), credited AS (
        INSERT INTO identity.credentials AS i (user_id, password_hash, changed_at)
        SELECT a.user_id, a.password_hash, a.at FROM accepted a WHERE a.password_hash IS NOT NULL
        ON CONFLICT ON CONSTRAINT credentials_pkey DO UPDATE
        SET password_hash = excluded.password_hash, changed_at = excluded.changed_at
    ), forgotten AS (
        DELETE FROM identity.credentials i USING accepted a WHERE a.forget_password AND i.user_id = a.user_id
    ), revoking AS MATERIALIZED (
        SELECT a.user_id, a.revoke, row_number() OVER (ORDER BY a.ordinal) AS ordinal
        FROM accepted a WHERE a.revoke IS NOT NULL
    ), counted AS (
        UPDATE identity.revocation_head h SET number = h.number + n.count
        FROM (SELECT count(*) FROM revoking) n WHERE n.count > 0
        RETURNING h.number - n.count AS before
    ), revoked AS (
        INSERT INTO identity.revocations AS r (id, number, sessions_number, revoked_at)
        SELECT v.user_id, c.before + v.ordinal, CASE v.revoke WHEN 'sessions' THEN c.before + v.ordinal END, stamp
        FROM revoking v CROSS JOIN counted c
        ON CONFLICT ON CONSTRAINT revocations_pkey DO UPDATE
        SET number = excluded.number, revoked_at = excluded.revoked_at,
            sessions_number = coalesce(excluded.sessions_number, r.sessions_number)
    )
    SELECT n.verdict, coalesce(n.position, n.known_position), stamp, coalesce(n.known_changed, n.verdict = 'appended'),
        n.version
    FROM numbered n ORDER BY n.ordinal;
END
$$;
