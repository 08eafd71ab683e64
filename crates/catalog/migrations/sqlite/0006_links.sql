-- Links to files, and the uses that were claimed of those that are counted.

-- file: the file as it was when the link was made, as JSON. ip: a range of addresses as text. password: as an argon2
-- string. Times as everywhere.
CREATE TABLE link (
    id            BLOB NOT NULL PRIMARY KEY,
    owner         TEXT NOT NULL,
    role          TEXT NOT NULL,
    file          TEXT NOT NULL,
    expires_at    INTEGER NOT NULL,
    not_before    INTEGER,
    max_downloads INTEGER CHECK (max_downloads > 0),
    uses          INTEGER NOT NULL CHECK (uses >= 0),
    ip            TEXT,
    password      TEXT,
    filename      TEXT,
    rate_limit    INTEGER CHECK (rate_limit > 0),
    created_at    INTEGER NOT NULL,
    revoked_at    INTEGER,
    last_used_at  INTEGER,
    CHECK (max_downloads IS NULL OR uses <= max_downloads)
) STRICT, WITHOUT ROWID;

CREATE INDEX link_owner ON link (owner, created_at);
CREATE INDEX link_expiry ON link (expires_at);

-- sent: bytes that count against what may be sent. forgiven: bytes that were on their way when a connection broke, and
-- count no more. covered: what was delivered, as pairs of offsets in JSON. done_at: when all of it had been.
CREATE TABLE claim (
    id         BLOB NOT NULL PRIMARY KEY,
    link_id    BLOB NOT NULL REFERENCES link (id) ON DELETE CASCADE,
    address    TEXT,
    created_at INTEGER NOT NULL,
    deadline   INTEGER NOT NULL,
    sent       INTEGER NOT NULL,
    forgiven   INTEGER NOT NULL,
    covered    TEXT NOT NULL,
    done_at    INTEGER
) STRICT, WITHOUT ROWID;

CREATE INDEX claim_link ON claim (link_id, created_at);
CREATE INDEX claim_deadline ON claim (deadline);
