-- Content that is found by what it hashes to, what a bucket demands of its files and callers, and access tokens.

-- For uploads whose content is there already: the size is always known, the SHA-256 mostly not.
CREATE INDEX file_content ON file (size, sha256);

-- retention_seconds: how long a file is kept. policy: who may do what, as JSON; NULL where the default goes.
ALTER TABLE bucket ADD COLUMN retention_seconds INTEGER CHECK (retention_seconds > 0);
ALTER TABLE bucket ADD COLUMN policy TEXT;

-- hash: BLAKE3 of the token, which itself is kept nowhere. parent: the token that it was made with, and with which it
-- ends. session: 1 if it is the web app's, good as a cookie only. buckets: those it is good for, as JSON; NULL is all.
CREATE TABLE token (
    hash       BLOB NOT NULL PRIMARY KEY,
    id         BLOB NOT NULL UNIQUE,
    parent     BLOB REFERENCES token (id) ON DELETE CASCADE,
    session    INTEGER NOT NULL CHECK (session IN (0, 1)),
    subject    TEXT NOT NULL,
    role       TEXT NOT NULL,
    buckets    TEXT,
    created_at INTEGER NOT NULL,
    created_by TEXT NOT NULL,
    expires_at INTEGER
) STRICT, WITHOUT ROWID;

CREATE INDEX token_parent ON token (parent) WHERE parent IS NOT NULL;
CREATE INDEX token_expiry ON token (expires_at) WHERE expires_at IS NOT NULL;
