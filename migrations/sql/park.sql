-- Parks users of whom an event cannot be applied, and records of the topic that are no event that anybody lacks.
--
-- parks: a JSON array of {user_id, source, partition, reason} and, as far as they are known, version, position, event_id,
--   and of a record of the topic: topic_offset, record_key, record_headers, record_value.
-- build: the build that met them; null: they are held back from the live table.
-- The live table's users are held back from the first version that it lacks on; if the log has none that it lacks, a
-- record of the topic is kept and holds nobody back. A user who is parked already stays so from where they are.
CREATE FUNCTION read_model.park(parks json, build bigint) RETURNS void
LANGUAGE sql
SET enable_seqscan = off
AS $$
    INSERT INTO read_model.parked (
        user_id, build, version, position, event_id, source, partition, topic_offset, record_key, record_headers,
        record_value, reason)
    SELECT waiting.user_id, $2, waiting.version, coalesce(waiting.position, p.position),
        coalesce(waiting.event_id, p.event_id), p.source, p.partition, p.topic_offset, p.record_key, p.record_headers,
        p.record_value, p.reason
    FROM json_to_recordset($1) AS p (
        user_id uuid, version integer, position bigint, event_id uuid, source text, partition integer,
        topic_offset bigint, record_key text, record_headers jsonb, record_value bytea, reason text)
    LEFT JOIN LATERAL (
        SELECT e.user_id, e.version, e.position, e.event_id
        FROM log.events e
        WHERE e.user_id = p.user_id AND e.version >= greatest(
            p.version,
            (SELECT u.version FROM read_model.users u WHERE u.id = p.user_id AND $2 IS NULL) + 1,
            1)
        ORDER BY e.version LIMIT 1
    ) waiting ON true
    WHERE waiting.user_id IS NOT NULL OR p.source = 'topic'
    ON CONFLICT DO NOTHING
$$;
