GRANT SELECT, INSERT ON log.erasures TO muster_command;
-- when a key was destroyed is for the function to say that does it
GRANT UPDATE (position, deleted_at, buried_at, completed_at) ON log.erasures TO muster_command;
GRANT SELECT ON log.erasures TO muster_query, muster_projector;

-- a person is told when and with what they logged in, never by which secret
GRANT SELECT (user_id, changed_at) ON identity.credentials TO muster_query;
GRANT SELECT (id, subject, scopes, user_agent, created_at, last_used_at, expires_at, ended_at)
    ON identity.sessions TO muster_query;

REVOKE EXECUTE ON FUNCTION log.request_erasure, log.erase, read_model.erase FROM PUBLIC;
GRANT EXECUTE ON FUNCTION log.request_erasure, log.erase TO muster_command;
ALTER FUNCTION read_model.erase OWNER TO muster_projector;
DO $$
BEGIN
    -- log.erase calls it as its own owner
    EXECUTE format('GRANT EXECUTE ON FUNCTION read_model.erase TO %I', current_user);
END
$$;
