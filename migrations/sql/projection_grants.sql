GRANT SELECT, INSERT ON log.partitioning TO muster_command;
GRANT SELECT, INSERT, UPDATE, DELETE ON log.parked TO muster_command;
GRANT SELECT ON log.discarded TO muster_command;
GRANT SELECT, INSERT ON log.operations TO muster_command;

GRANT SELECT ON log.partitioning, log.parked, log.discarded TO muster_query;
GRANT SELECT ON read_model.builds, read_model.build_ranges, read_model.parked, read_model.projectors TO muster_query;

GRANT SELECT ON log.partitioning, log.parked TO muster_projector;
-- who retries or discards what the relay has parked leaves it a note
GRANT UPDATE (retry) ON log.parked TO muster_projector;
GRANT SELECT, INSERT ON log.discarded, log.operations TO muster_projector;
GRANT SELECT, INSERT, UPDATE, DELETE
    ON read_model.builds, read_model.build_ranges, read_model.parked, read_model.projectors TO muster_projector;

REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA read_model FROM PUBLIC;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA read_model TO muster_projector;

-- A rebuild puts a new table in the old one's place: for that the role must own it. It owns nothing else.
DO $$
BEGIN
    IF NOT pg_has_role(current_user, 'muster_projector', 'SET') THEN
        -- who made the role may do this; another database's owner must be given it
        EXECUTE format('GRANT muster_projector TO %I', current_user);
    END IF;
END
$$;
GRANT CREATE ON SCHEMA read_model TO muster_projector;
ALTER TABLE read_model.users OWNER TO muster_projector;
