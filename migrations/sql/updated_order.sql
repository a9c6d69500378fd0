-- Who was updated when, in a table of its own: each change moves a user in this order, and in no other. With this index
-- on the table of users, every change would have to be put into all of that one's indexes (PostgreSQL documentation,
-- "Heap-Only Tuples"), of which those of roles and of `q` are many times as dear as the row itself.

-- whoever writes the table takes one of these first; readers go on
LOCK TABLE read_model.progress IN EXCLUSIVE MODE;
LOCK TABLE read_model.users IN SHARE ROW EXCLUSIVE MODE;

CREATE TABLE read_model.users_updated (
    id uuid PRIMARY KEY,
    updated_at timestamptz
);
COMMENT ON TABLE read_model.users_updated IS 'the order of users by their last update; no time: the user is deleted';
INSERT INTO read_model.users_updated (id, updated_at)
SELECT u.id, CASE WHEN u.deleted_at IS NULL THEN u.updated_at END FROM read_model.users u ORDER BY u.id;
CREATE INDEX users_updated_order_idx ON read_model.users_updated (updated_at, id) WHERE updated_at IS NOT NULL;
GRANT SELECT ON read_model.users_updated TO muster_query;
ALTER TABLE read_model.users_updated OWNER TO muster_projector;

DROP INDEX IF EXISTS read_model.users_updated_at_idx;
-- a row's next version goes beside it; what is there already makes room with time
ALTER TABLE read_model.users SET (fillfactor = 85);
