-- Erases a user who is deleted and whose erasure was requested, in one transaction: the data key is destroyed for good,
-- and all that this database has of the person beside the sealed events is removed.
--
-- accounts: keys of identity.guesses that were made of what the person logged in with. known: as read_model.erase has it.
-- Gives false when that was done before. Raises MU003 for a user who is not deleted.
CREATE FUNCTION log.erase(erased uuid, accounts bytea[], known json) RETURNS boolean
LANGUAGE plpgsql
-- as the owner: the caller may not change a key
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
-- behind a rebuild that makes an index it waits no longer than this, and is tried again
SET lock_timeout = '3s'
AS $$
DECLARE
    stamp CONSTANT timestamptz := clock_timestamp();
    last log.events%ROWTYPE;
    told jsonb;
    number bigint;
BEGIN
    PERFORM 1 FROM log.erasures x WHERE x.user_id = erased AND x.erased_at IS NULL FOR UPDATE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    SELECT * INTO last FROM log.events e WHERE e.user_id = erased ORDER BY e.version DESC LIMIT 1;
    IF last.type IS DISTINCT FROM 'UserDeleted' THEN
        RAISE EXCEPTION 'the user is not deleted' USING ERRCODE = 'MU003';
    END IF;

    told := read_model.erase(erased, json_build_object(
        'id', erased, 'version', last.version, 'position', last.position,
        'created_at', last.data->'record'->'created_at', 'updated_at', last.data->'record'->'updated_at',
        'deleted_at', last.data->'record'->'deleted_at'), known);

    -- who has lost the key has a tombstone all the same
    INSERT INTO log.user_keys AS k (user_id, wrapped, kek_id, erased_at) VALUES (erased, NULL, '', stamp)
    ON CONFLICT (user_id) DO UPDATE SET wrapped = NULL, erased_at = stamp WHERE k.erased_at IS NULL;
    GET DIAGNOSTICS number = ROW_COUNT;
    told := told || jsonb_build_object('log.user_keys', number);

    DELETE FROM log.email_claims c WHERE c.user_id = erased;
    GET DIAGNOSTICS number = ROW_COUNT;
    told := told || jsonb_build_object('log.email_claims', number);

    DELETE FROM log.commands k
    WHERE k.position IN (SELECT e.position FROM log.events e WHERE e.user_id = erased) OR k.caller = erased::text;
    GET DIAGNOSTICS number = ROW_COUNT;
    told := told || jsonb_build_object('log.commands', number);

    DELETE FROM identity.credentials c WHERE c.user_id = erased;
    GET DIAGNOSTICS number = ROW_COUNT;
    told := told || jsonb_build_object('identity.credentials', number);

    DELETE FROM identity.sessions s WHERE s.subject = erased;
    GET DIAGNOSTICS number = ROW_COUNT;
    told := told || jsonb_build_object('identity.sessions', number);

    DELETE FROM identity.guesses g WHERE g.key = ANY (accounts);
    GET DIAGNOSTICS number = ROW_COUNT;
    told := told || jsonb_build_object('identity.guesses', number);

    -- what the relay could not open before is nothing that it has to open any more
    UPDATE log.parked p SET retry = true WHERE p.user_id = erased;
    GET DIAGNOSTICS number = ROW_COUNT;
    told := told || jsonb_build_object('log.parked', number);

    UPDATE log.erasures x SET position = last.position, deleted_at = last.recorded_at, erased_at = stamp,
        removed = told
    WHERE x.user_id = erased;
    RETURN true;
END
$$;
