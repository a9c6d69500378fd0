-- Each process's role can do what its process does and no more. Nobody but the owner can change or remove an event.
GRANT USAGE ON SCHEMA log, identity TO muster_command;
GRANT SELECT, INSERT ON log.events, log.user_keys TO muster_command;
GRANT SELECT, UPDATE ON log.head TO muster_command;
GRANT SELECT, INSERT, UPDATE, DELETE ON log.email_claims, log.commands, identity.credentials TO muster_command;
GRANT SELECT, INSERT, UPDATE ON log.publication TO muster_command;

GRANT USAGE ON SCHEMA log, read_model TO muster_query;
GRANT SELECT ON log.head, log.events, log.user_keys, log.publication, read_model.users, read_model.progress
    TO muster_query;

GRANT USAGE ON SCHEMA log, read_model TO muster_projector;
GRANT SELECT ON log.head, log.events, log.user_keys, log.publication TO muster_projector;
GRANT SELECT, INSERT, UPDATE, DELETE ON read_model.users, read_model.progress TO muster_projector;

REVOKE EXECUTE ON FUNCTION log.append(json) FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION read_model.apply(json, json, boolean) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION log.append(json) TO muster_command;
GRANT EXECUTE ON FUNCTION read_model.apply(json, json, boolean) TO muster_projector;
