-- A user's state at any position is one look-up, however long their history is.
CREATE INDEX events_user_id_position_idx ON log.events (user_id, position);
-- Everybody in the order in which they were created: what a list as of a moment walks along.
CREATE INDEX events_creations_idx ON log.events (position) WHERE version = 1;

-- The last position that was recorded up to a moment. Times never go back from one position to the next, and positions
-- have no gap: some twenty look-ups by primary key find it in a log of a million events, without an index of times.
CREATE FUNCTION log.position_at(moment timestamptz) RETURNS bigint
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    low bigint := 0;
    high bigint;
    middle bigint;
    found timestamptz;
BEGIN
    SELECT h.position INTO STRICT high FROM log.head h;
    WHILE low < high LOOP
        middle := (low + high + 1) / 2;
        SELECT e.recorded_at INTO found FROM log.events e WHERE e.position = middle;
        IF found <= moment THEN
            low := middle;
        ELSE
            high := middle - 1;
        END IF;
    END LOOP;
    RETURN low;
END
$$;
COMMENT ON FUNCTION log.position_at IS 'the last position that was recorded up to a moment; 0 before the first';

REVOKE EXECUTE ON FUNCTION log.position_at FROM PUBLIC;
GRANT EXECUTE ON FUNCTION log.position_at TO muster_query, muster_command, muster_projector;
