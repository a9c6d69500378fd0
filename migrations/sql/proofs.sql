-- The Merkle tree over the log (RFC 9162, section 2.1): the leaf of position n is leaf n - 1. One process grows it, behind
-- the appends, which pay nothing for it.
CREATE TABLE log.tree (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    generation integer NOT NULL CHECK (generation > 0),
    origin text NOT NULL,
    size bigint NOT NULL DEFAULT 0,
    public_key bytea NOT NULL,
    wrapped bytea NOT NULL,
    kek_id text NOT NULL
);
COMMENT ON COLUMN log.tree.origin IS 'what its checkpoints are known by: another one when signed ones were lost';
COMMENT ON COLUMN log.tree.size IS 'the events up to this position are in the tree';
COMMENT ON COLUMN log.tree.wrapped IS 'the seed of the key that signs checkpoints, wrapped under the KEK';

CREATE TABLE log.tiles (
    level smallint NOT NULL,
    index bigint NOT NULL,
    hashes bytea NOT NULL CHECK (length(hashes) BETWEEN 32 AND 8192 AND length(hashes) % 32 = 0),
    PRIMARY KEY (level, index)
);
COMMENT ON TABLE log.tiles IS 'up to 256 hashes each (C2SP tlog-tiles); the last of a level grows until it is full';
-- hashes do not compress
ALTER TABLE log.tiles ALTER COLUMN hashes SET STORAGE EXTERNAL;

CREATE TABLE log.checkpoints (
    generation integer NOT NULL,
    size bigint NOT NULL,
    root bytea NOT NULL,
    note text NOT NULL,
    signed_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (generation, size)
);
COMMENT ON TABLE log.checkpoints IS 'signed notes (C2SP tlog-checkpoint): each says what the tree was at a size';

-- The tree is made of the log, so whoever may write its tiles may also make them anew; checkpoints are for ever.
GRANT SELECT, INSERT, UPDATE ON log.tree TO muster_command;
GRANT SELECT, INSERT, UPDATE, DELETE ON log.tiles TO muster_command;
GRANT SELECT, INSERT ON log.checkpoints TO muster_command;
GRANT SELECT (generation, origin, size, public_key) ON log.tree TO muster_query, muster_projector;
GRANT SELECT ON log.tiles, log.checkpoints TO muster_query, muster_projector;
