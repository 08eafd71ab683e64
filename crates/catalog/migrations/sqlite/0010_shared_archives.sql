-- Links to archives, and tokens of others that are good no more.

-- Where an archive's files come from, as JSON: [bucket, key] or [bucket, prefix, "below"].
ALTER TABLE archive ADD COLUMN origins TEXT NOT NULL DEFAULT '[]';

-- What a link is to, as JSON: the file as it was when the link was made, or {"archive", "name", "size", "etag"}.
ALTER TABLE link RENAME COLUMN file TO target;

-- The token of somebody else's that a session was made with.
ALTER TABLE token ADD COLUMN made_with BLOB;

-- Tokens that others have signed, named by who did and by `jti`. until: when the token ends by itself; null: nobody said.
CREATE TABLE denied (
    issuer    TEXT NOT NULL,
    jti       TEXT NOT NULL,
    until     INTEGER,
    denied_at INTEGER NOT NULL,
    denied_by TEXT NOT NULL,
    PRIMARY KEY (issuer, jti)
) STRICT, WITHOUT ROWID;

CREATE INDEX denied_until ON denied (until) WHERE until IS NOT NULL;
