-- What changes often has tables of its own, so that a change is written where it is read and nowhere else (PostgreSQL
-- documentation, "Heap-Only Tuples"): a new name goes into the index of names, and no longer into all of a user's.

-- As `q` compares: composed, and in lower case. Nothing has to be composed in ASCII, and looking for it took longer than
-- writing a row. Not strict: then it is part of the statement that calls it.
CREATE FUNCTION read_model.folded(text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN octet_length($1) = char_length($1) THEN lower($1) ELSE lower(normalize($1, NFC)) END;
COMMENT ON FUNCTION read_model.folded IS 'a text as searches compare it: composed (NFC), in lower case';

-- whoever writes the tables takes one of these first; readers go on
LOCK TABLE read_model.progress IN EXCLUSIVE MODE;
LOCK TABLE read_model.users IN SHARE ROW EXCLUSIVE MODE;

CREATE TABLE read_model.users_names (
    id uuid PRIMARY KEY,
    name text
);
COMMENT ON TABLE read_model.users_names IS
    'display names as q looks for them, after a blank; none: the user has none, or is deleted';
INSERT INTO read_model.users_names (id, name)
SELECT u.id, read_model.folded(' ' || u.display_name) FROM read_model.users u WHERE u.display_name IS NOT NULL
ORDER BY u.id;
CREATE INDEX users_names_idx ON read_model.users_names USING gin (name gin_trgm_ops);
GRANT SELECT ON read_model.users_names TO muster_query;
ALTER TABLE read_model.users_names OWNER TO muster_projector;

-- of addresses the index stays where it is: they seldom change
CREATE INDEX users_email_part_idx ON read_model.users USING gin (read_model.folded(email) gin_trgm_ops)
    WHERE deleted_at IS NULL;

-- The order by update knows whom a list by status or role wants, and its rows lie as they were written: in that order.
CREATE TABLE read_model.users_order (
    id uuid PRIMARY KEY,
    updated_at timestamptz,
    status text,
    roles text[]
);
INSERT INTO read_model.users_order (id, updated_at, status, roles)
SELECT u.id, CASE WHEN u.deleted_at IS NULL THEN u.updated_at END, u.status, u.roles
FROM read_model.users u ORDER BY u.updated_at, u.id;

-- readers wait from here on: in the order in which they name the tables
LOCK TABLE read_model.users_updated, read_model.users IN ACCESS EXCLUSIVE MODE;
DROP TABLE read_model.users_updated;
ALTER TABLE read_model.users_order RENAME TO users_updated;
ALTER INDEX read_model.users_order_pkey RENAME TO users_updated_pkey;
-- PostgreSQL names it from version 18 on
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_constraint c
            WHERE c.conrelid = 'read_model.users_updated'::regclass AND c.conname = 'users_order_id_not_null') THEN
        ALTER TABLE read_model.users_updated RENAME CONSTRAINT users_order_id_not_null TO users_updated_id_not_null;
    END IF;
END
$$;
COMMENT ON TABLE read_model.users_updated IS 'the order of users by their last update; no time: the user is deleted';
CREATE INDEX users_updated_order_idx ON read_model.users_updated (updated_at, id) WHERE updated_at IS NOT NULL;
GRANT SELECT ON read_model.users_updated TO muster_query;
ALTER TABLE read_model.users_updated OWNER TO muster_projector;

-- its index goes with it
ALTER TABLE read_model.users DROP COLUMN search;
-- So that plans are good from the first query on. Of empty tables it would be known that they are empty, and plans made
-- then would scan them for as long as they are kept.
DO $$
BEGIN
    IF EXISTS (SELECT FROM read_model.users) THEN
        ANALYZE read_model.users, read_model.users_updated, read_model.users_names;
    END IF;
END
$$;
