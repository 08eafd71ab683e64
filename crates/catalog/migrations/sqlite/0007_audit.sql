-- The audit log: one chain of blocks, each of many records.

-- One row: what this log is called.
CREATE TABLE audit_chain (
    id BLOB NOT NULL PRIMARY KEY CHECK (length(id) = 16)
) STRICT, WITHOUT ROWID;

INSERT INTO audit_chain (id) VALUES (randomblob(16));

-- at: milliseconds; no record in the block is later, and no block before it has a later one. records: how many lines. prev,
-- content, hash: BLAKE3 of the block before, of the lines, of the header. zstd: the body is compressed; what is hashed never is.
CREATE TABLE audit_block (
    seq     INTEGER NOT NULL PRIMARY KEY CHECK (seq > 0),
    at      INTEGER NOT NULL,
    records INTEGER NOT NULL CHECK (records > 0),
    prev    BLOB NOT NULL CHECK (length(prev) = 32),
    content BLOB NOT NULL CHECK (length(content) = 32),
    hash    BLOB NOT NULL CHECK (length(hash) = 32),
    size    INTEGER NOT NULL,
    zstd    INTEGER NOT NULL CHECK (zstd IN (0, 1)),
    body    BLOB NOT NULL
) STRICT;
