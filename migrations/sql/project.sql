-- Applies a batch of events to the live read model and moves the partitions on, in one transaction.
--
-- records: a JSON array with the newest event of each user in the batch, as rows of read_model.users, plus `first`, the
--   version of that user's first event in the batch.
-- steps: a JSON array of {partition, from_offset, next_offset, position} and, if it changes, epoch.
-- strict: answer missing versions instead of applying (the topic has lost something); a batch read from the log
--   itself passes false.
-- shape: the shape of the table that the caller's rows are made for.
--
-- Answers the users of whom a version is missing: then nothing was applied. Raises MU001 when the live table has a newer
-- shape than the caller's rows, and MU002 when a partition does not stand at from_offset: another process has moved it.
CREATE OR REPLACE FUNCTION read_model.project(records json, steps json, strict boolean, shape integer)
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
    wanted integer;
    standing integer;
    live integer;
    known boolean;
    partitions integer[];
    from_offsets bigint[];
    next_offsets bigint[];
    positions bigint[];
    epochs integer[];
BEGIN
    SELECT count(*), array_agg(s.partition), array_agg(s.from_offset), array_agg(s.next_offset), array_agg(s.position),
        array_agg(s.epoch)
    INTO wanted, partitions, from_offsets, next_offsets, positions, epochs
    FROM json_to_recordset(steps) AS s (
        partition integer, from_offset bigint, next_offset bigint, position bigint, epoch integer);

    -- The partitions' rows are locked first, in one order: what is judged after this cannot change under us. Who has
    -- waited for a lock is told the row as it is then; a condition on it would be looked at before the lock.
    SELECT count(*) FILTER (WHERE locked.next_offset = locked.from_offset) INTO standing
    FROM (
        SELECT p.next_offset, s.from_offset
        FROM unnest(partitions, from_offsets) AS s (partition, from_offset)
        JOIN read_model.progress p USING (partition)
        ORDER BY p.partition FOR UPDATE OF p
    ) locked;
    IF standing <> wanted THEN
        RAISE EXCEPTION 'a partition was moved by another process' USING ERRCODE = 'MU002';
    END IF;

    -- a rebuild puts another table, perhaps with other columns than the INSERT below knows, in this one's place while it
    -- holds every partition's row
    SELECT b.shape, ARRAY(
            SELECT a.attname FROM pg_attribute a
            WHERE a.attrelid = 'read_model.users'::regclass AND a.attnum > 0 AND NOT a.attisdropped
                AND a.attgenerated = ''
            ORDER BY a.attnum
        ) = ARRAY[
            'id', 'email', 'email_canonical', 'display_name', 'status', 'roles', 'attributes', 'created_at',
            'updated_at', 'password_changed_at', 'deleted_at', 'version', 'position']::name[]
    INTO STRICT live, known
    FROM read_model.builds b WHERE b.state = 'live';
    IF live > project.shape THEN
        RAISE EXCEPTION 'the read model has shape %, this projector writes shape %', live, project.shape
            USING ERRCODE = 'MU001';
    END IF;

    IF strict THEN
        RETURN QUERY
        SELECT r.id, coalesce(u.version, 0), r.first
        FROM json_to_recordset(records) AS r (id uuid, first integer)
        LEFT JOIN read_model.users u ON u.id = r.id
        -- the first condition says nothing new, and saves the look-up of those who follow what is there: nearly all
        WHERE r.first > coalesce(u.version, 0) + 1
            AND r.first - coalesce(u.version, 0) - 1 > (
                -- what an operator gave up is not missing
                SELECT count(*) FROM log.discarded d
                WHERE d.user_id = r.id AND d.version > coalesce(u.version, 0) AND d.version < r.first)
            AND NOT EXISTS (SELECT 1 FROM read_model.parked k WHERE k.user_id = r.id AND k.build IS NULL);
        IF FOUND THEN
            RETURN;
        END IF;
    END IF;

    IF known THEN
        -- as read_model.put, whose statement is made for any table and planned anew in each call: this one's plan is kept
        WITH put AS (
            INSERT INTO read_model.users AS u (
                id, email, email_canonical, display_name, status, roles, attributes, created_at, updated_at,
                password_changed_at, deleted_at, version, position)
            SELECT r.id, r.email, r.email_canonical, r.display_name, r.status, r.roles, r.attributes, r.created_at,
                r.updated_at, r.password_changed_at, r.deleted_at, r.version, r.position
            FROM json_populate_recordset(NULL::read_model.users, records) AS r
            WHERE NOT EXISTS (SELECT 1 FROM read_model.parked k WHERE k.user_id = r.id AND k.build IS NULL)
            ORDER BY r.id
            ON CONFLICT (id) DO UPDATE SET
                email = excluded.email, email_canonical = excluded.email_canonical,
                display_name = excluded.display_name, status = excluded.status, roles = excluded.roles,
                attributes = excluded.attributes, created_at = excluded.created_at, updated_at = excluded.updated_at,
                password_changed_at = excluded.password_changed_at, deleted_at = excluded.deleted_at,
                version = excluded.version, position = excluded.position
            WHERE u.version < excluded.version
            RETURNING u.id, u.updated_at, u.deleted_at, u.status, u.roles,
                read_model.folded(' ' || u.display_name) AS name
        ), named AS (
            INSERT INTO read_model.users_names AS n (id, name)
            SELECT p.id, p.name FROM put p LEFT JOIN read_model.users_names h ON h.id = p.id
            WHERE h.name IS DISTINCT FROM p.name
            ON CONFLICT (id) DO UPDATE SET name = excluded.name
        )
        INSERT INTO read_model.users_updated AS o (id, updated_at, status, roles)
        SELECT p.id, CASE WHEN p.deleted_at IS NULL THEN p.updated_at END, p.status, p.roles FROM put p
        ON CONFLICT (id) DO UPDATE SET
            updated_at = excluded.updated_at, status = excluded.status, roles = excluded.roles;
    ELSIF json_array_length(records) > 0 THEN
        PERFORM read_model.put('read_model.users', records, NULL);
    END IF;

    UPDATE read_model.progress p
    SET next_offset = s.next_offset, position = greatest(p.position, s.position), epoch = coalesce(s.epoch, p.epoch),
        moved_at = clock_timestamp()
    FROM unnest(partitions, next_offsets, positions, epochs) AS s (partition, next_offset, position, epoch)
    WHERE p.partition = s.partition;
END
$$;
