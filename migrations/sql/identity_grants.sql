GRANT SELECT, INSERT, UPDATE, DELETE ON identity.sessions, identity.guesses TO muster_command;
GRANT SELECT, INSERT, UPDATE, DELETE ON identity.revocations TO muster_command;
GRANT SELECT, UPDATE ON identity.revocation_head TO muster_command;
GRANT SELECT, INSERT, UPDATE ON identity.signing_keys, identity.clients TO muster_command;

GRANT USAGE ON SCHEMA identity TO muster_query;
GRANT SELECT ON identity.revocation_head, identity.revocations TO muster_query;
-- who only verifies never sees a private key, not even a wrapped one
GRANT SELECT (kid, public_key, published_at, signs_from, verifies_until) ON identity.signing_keys TO muster_query;

REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA identity FROM PUBLIC;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA identity TO muster_command;
