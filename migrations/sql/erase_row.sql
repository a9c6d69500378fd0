-- Puts an erased user's last row into the table of users and into the one of a build: nothing older gets there any more,
-- whatever a projector or a rebuild has just read. What was held back of them is forgotten with what the topic had.
--
-- record: the row, as read_model.put takes it. known: email, email_canonical, display_name and attributes as the log had
-- them last, as far as it can be read: where the planner's statistics quote one of them, they are made anew.
-- Gives how many rows there were, by place.
CREATE OR REPLACE FUNCTION read_model.erase(erased uuid, record json, known json) RETURNS jsonb
LANGUAGE plpgsql
-- as the owner of these tables, for a caller who may do nothing else with them
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    names text;
    held_by_build boolean;
    shown bigint;
    built bigint := 0;
    parked bigint;
    quoted text[] := ARRAY[
        known->>'email', known->>'email_canonical', known->>'display_name', (known->'attributes')::jsonb::text,
        read_model.folded(known->>'email'), read_model.folded(' ' || (known->>'display_name'))];
    quoting regclass;
BEGIN
    -- first: whoever copies or follows for a build ends before this; whoever begins later reads the tombstone
    PERFORM 1 FROM read_model.builds b WHERE b.state = 'building' FOR UPDATE;

    SELECT EXISTS (SELECT 1 FROM read_model.parked k WHERE k.user_id = erased AND k.build IS NOT NULL) INTO held_by_build;
    DELETE FROM read_model.parked k WHERE k.user_id = erased OR k.record_key = erased::text;
    GET DIAGNOSTICS parked = ROW_COUNT;

    SELECT count(*) INTO shown FROM read_model.users u WHERE u.id = erased;
    PERFORM read_model.put('read_model.users', json_build_array(record), NULL);
    -- a projector may have written a name since the statement above looked for one
    UPDATE read_model.users_names n SET name = NULL WHERE n.id = erased AND n.name IS NOT NULL;

    IF to_regclass('read_model.users_next') IS NOT NULL THEN
        -- it may have another shape, and no key yet; who is not in it yet comes when the build comes to them
        EXECUTE 'DELETE FROM read_model.users_next WHERE id = $1' USING erased;
        GET DIAGNOSTICS built = ROW_COUNT;
        IF built > 0 OR held_by_build THEN
            SELECT string_agg(format('%I', a.attname), ', ' ORDER BY a.attnum) INTO STRICT names
            FROM pg_attribute a
            WHERE a.attrelid = 'read_model.users_next'::regclass AND a.attnum > 0 AND NOT a.attisdropped
                AND a.attgenerated = '';
            EXECUTE format(
                'INSERT INTO read_model.users_next (%1$s)'
                ' SELECT %1$s FROM json_populate_record(NULL::read_model.users_next, $1)', names)
            USING record;
        END IF;
        -- these may be filled already; a build of an earlier version has none
        IF to_regclass('read_model.users_next_updated') IS NOT NULL THEN
            EXECUTE 'UPDATE read_model.users_next_updated SET updated_at = NULL, status = NULL, roles = NULL'
                ' WHERE id = $1' USING erased;
        END IF;
        IF to_regclass('read_model.users_next_names') IS NOT NULL THEN
            EXECUTE 'UPDATE read_model.users_next_names SET name = NULL WHERE id = $1' USING erased;
        END IF;
    END IF;
    FOR quoting IN
        -- of an index, too, whose statistics are made with its table's
        SELECT DISTINCT coalesce(i.indrelid, c.oid)::regclass
        FROM pg_stats s
        JOIN pg_class c ON c.relname = s.tablename AND c.relnamespace = 'read_model'::regnamespace
        LEFT JOIN pg_index i ON i.indexrelid = c.oid
        WHERE s.schemaname = 'read_model' AND c.relname ~ '^(next_)?users'
            AND quoted && ((s.most_common_vals::text::text[]) || (s.histogram_bounds::text::text[]))
    LOOP
        EXECUTE format('ANALYZE %s', quoting);
    END LOOP;
    RETURN jsonb_build_object('read_model.users', shown, 'read_model.users_next', built, 'read_model.parked', parked);
END
$$;
