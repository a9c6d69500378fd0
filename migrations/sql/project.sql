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
CREATE FUNCTION read_model.project(records json, steps json, strict boolean, shape integer)
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
    live integer;
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
        RAISE EXCEPTION 'a partition was moved by another process' USING ERRCODE = 'MU002';
    END IF;

    -- a rebuild puts another table in this one's place while it holds every partition's row
    SELECT b.shape INTO STRICT live FROM read_model.builds b WHERE b.state = 'live';
    IF live > project.shape THEN
        RAISE EXCEPTION 'the read model has shape %, this projector writes shape %', live, project.shape
            USING ERRCODE = 'MU001';
    END IF;

    IF strict THEN
        RETURN QUERY
        SELECT r.id, coalesce(u.version, 0), r.first
        FROM json_to_recordset(records) AS r (id uuid, first integer)
        LEFT JOIN read_model.users u ON u.id = r.id
        WHERE r.first - coalesce(u.version, 0) - 1 > (
                -- what an operator gave up is not missing
                SELECT count(*) FROM log.discarded d
                WHERE d.user_id = r.id AND d.version > coalesce(u.version, 0) AND d.version < r.first)
            AND NOT EXISTS (SELECT 1 FROM read_model.parked k WHERE k.user_id = r.id AND k.build IS NULL);
        IF FOUND THEN
            RETURN;
        END IF;
    END IF;

    IF json_array_length(records) > 0 THEN
        PERFORM read_model.put('read_model.users', records, NULL);
    END IF;

    UPDATE read_model.progress p
    SET next_offset = s.next_offset, position = greatest(p.position, s.position), epoch = coalesce(s.epoch, p.epoch),
        moved_at = clock_timestamp()
    FROM json_to_recordset(steps) AS s (partition integer, next_offset bigint, position bigint, epoch integer)
    WHERE p.partition = s.partition;
END
$$;
