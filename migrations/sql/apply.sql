-- Applies a batch of events to the read model and moves the partitions on, in one transaction.
--
-- records: a JSON array with the newest event of each user in the batch, as rows of read_model.users, plus
--   `first`, the version of that user's first event in the batch.
-- steps: a JSON array of {partition, from_offset, next_offset, position}.
-- strict: answer missing versions instead of applying (the topic has lost something); a batch read from the log
--   itself passes false.
--
-- Answers the users of whom a version is missing: then nothing was applied. Raises serialization_failure when a
-- partition does not stand at from_offset: another process has moved it.
CREATE FUNCTION read_model.apply(records json, steps json, strict boolean)
RETURNS TABLE (user_id uuid, held integer, got integer)
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
    moved integer;
BEGIN
    -- The partitions' rows are locked first, in one order: what is judged after this cannot change under us.
    PERFORM 1 FROM read_model.progress p
    WHERE p.partition IN (SELECT s.partition FROM json_to_recordset(steps) AS s (partition integer))
    ORDER BY p.partition FOR UPDATE;

    SELECT count(*) INTO moved
    FROM read_model.progress p
    JOIN json_to_recordset(steps) AS s (partition integer, from_offset bigint) USING (partition)
    WHERE p.next_offset = s.from_offset;
    IF moved <> json_array_length(steps) THEN
        RAISE EXCEPTION 'a partition was moved by another process' USING ERRCODE = 'serialization_failure';
    END IF;

    IF strict THEN
        RETURN QUERY
        SELECT r.id, coalesce(u.version, 0), r.first
        FROM json_to_recordset(records) AS r (id uuid, first integer)
        LEFT JOIN read_model.users u ON u.id = r.id
        WHERE r.first > coalesce(u.version, 0) + 1;
        IF FOUND THEN
            RETURN;
        END IF;
    END IF;

    INSERT INTO read_model.users AS u (
        id, email, email_canonical, display_name, status, roles, attributes,
        created_at, updated_at, password_changed_at, deleted_at, version, position)
    SELECT r.id, r.email, r.email_canonical, r.display_name, r.status, r.roles, r.attributes,
        r.created_at, r.updated_at, r.password_changed_at, r.deleted_at, r.version, r.position
    FROM json_to_recordset(records) AS r (
        id uuid, email text, email_canonical text, display_name text, status text, roles text[], attributes jsonb,
        created_at timestamptz, updated_at timestamptz, password_changed_at timestamptz, deleted_at timestamptz,
        version integer, position bigint)
    ORDER BY r.id
    ON CONFLICT (id) DO UPDATE SET
        email = excluded.email, email_canonical = excluded.email_canonical, display_name = excluded.display_name,
        status = excluded.status, roles = excluded.roles, attributes = excluded.attributes,
        created_at = excluded.created_at, updated_at = excluded.updated_at,
        password_changed_at = excluded.password_changed_at, deleted_at = excluded.deleted_at,
        version = excluded.version, position = excluded.position
    WHERE u.version < excluded.version;

    UPDATE read_model.progress p
    SET next_offset = s.next_offset, position = greatest(p.position, s.position), moved_at = now()
    FROM json_to_recordset(steps) AS s (partition integer, next_offset bigint, position bigint)
    WHERE p.partition = s.partition;
END
$$;
