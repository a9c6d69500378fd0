-- Puts rows into a table of the read model, each user's only if it is newer than what is there.
--
-- target: read_model.users, or the table of a build. records: a JSON array of objects whose keys are the table's
-- columns; what a table does not have is passed over. Users who are parked for `build` (null: in the live table) are left
-- as they are. The tables whose names have `_updated` and `_names` behind it, the order by update and the names, follow.
CREATE OR REPLACE FUNCTION read_model.put(target regclass, records json, build bigint) RETURNS void
LANGUAGE plpgsql
SET enable_seqscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET enable_bitmapscan = off
AS $$
DECLARE
    names text;
    assignments text;
BEGIN
    SELECT string_agg(format('%I', a.attname), ', ' ORDER BY a.attnum),
        string_agg(format('%1$I = excluded.%1$I', a.attname), ', ' ORDER BY a.attnum) FILTER (WHERE a.attname <> 'id')
    INTO STRICT names, assignments
    FROM pg_attribute a
    WHERE a.attrelid = target AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '';

    EXECUTE format(
        'WITH put AS ('
        '     INSERT INTO %1$s AS u (%2$s)'
        '     SELECT %2$s FROM json_populate_recordset(NULL::%1$s, $1) AS r'
        '     WHERE NOT EXISTS ('
        '         SELECT 1 FROM read_model.parked k WHERE k.user_id = r.id AND k.build IS NOT DISTINCT FROM $2)'
        '     ORDER BY r.id'
        '     ON CONFLICT (id) DO UPDATE SET %3$s WHERE u.version < excluded.version'
        '     RETURNING u.id, u.updated_at, u.deleted_at, u.status, u.roles,'
        '         read_model.folded('' '' || u.display_name) AS name'
        ' ), named AS ('
        '     INSERT INTO %5$s AS n (id, name)'
        '     SELECT p.id, p.name FROM put p LEFT JOIN %5$s h ON h.id = p.id WHERE h.name IS DISTINCT FROM p.name'
        '     ON CONFLICT (id) DO UPDATE SET name = excluded.name'
        ' )'
        ' INSERT INTO %4$s AS o (id, updated_at, status, roles)'
        ' SELECT p.id, CASE WHEN p.deleted_at IS NULL THEN p.updated_at END, p.status, p.roles FROM put p'
        ' ON CONFLICT (id) DO UPDATE SET'
        '     updated_at = excluded.updated_at, status = excluded.status, roles = excluded.roles',
        target, names, assignments, (target::text || '_updated')::regclass, (target::text || '_names')::regclass)
    USING records, build;
END
$$;
