-- Keys are BLOBs, so that SQLite compares them as bytes. Times are milliseconds since 1970 UTC.

CREATE TABLE meta (
    name  TEXT NOT NULL PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- clean: 1 while the catalog is closed in order, 0 while it is open.
-- generation_floor: at least the generation of every deleted bucket, so that a bucket made again never repeats one.
-- checked: written by the readiness check.
INSERT INTO meta (name, value) VALUES ('clean', 1), ('generation_floor', 0), ('checked', 0);

CREATE TABLE bucket (
    id             INTEGER PRIMARY KEY,
    name           TEXT NOT NULL UNIQUE,
    quota_bytes    INTEGER CHECK (quota_bytes >= 0),
    used_bytes     INTEGER NOT NULL DEFAULT 0 CHECK (used_bytes >= 0),
    reserved_bytes INTEGER NOT NULL DEFAULT 0 CHECK (reserved_bytes >= 0),
    file_count     INTEGER NOT NULL DEFAULT 0 CHECK (file_count >= 0),
    generation     INTEGER NOT NULL,
    created_at     INTEGER NOT NULL
) STRICT;

-- file_count is the number of files that point here; at 0 the bytes are to be deleted, then the row.
CREATE TABLE blob (
    id         BLOB NOT NULL PRIMARY KEY,
    size       INTEGER NOT NULL CHECK (size >= 0),
    crc32      INTEGER NOT NULL,
    blake3     BLOB NOT NULL,
    sha256     BLOB,
    file_count INTEGER NOT NULL CHECK (file_count >= 0)
) STRICT, WITHOUT ROWID;

CREATE INDEX blob_unreferenced ON blob (id) WHERE file_count = 0;

-- The blob's facts are repeated, so that neither a download nor an archive needs a join.
-- The long columns come last: a scan does not read their overflow pages.
CREATE TABLE file (
    bucket_id    INTEGER NOT NULL REFERENCES bucket (id),
    key          BLOB NOT NULL,
    blob_id      BLOB NOT NULL REFERENCES blob (id),
    size         INTEGER NOT NULL CHECK (size >= 0),
    crc32        INTEGER NOT NULL,
    blake3       BLOB NOT NULL,
    sha256       BLOB,
    created_at   INTEGER NOT NULL,
    created_by   TEXT NOT NULL,
    content_type TEXT NOT NULL,
    metadata     TEXT NOT NULL,
    PRIMARY KEY (bucket_id, key)
) STRICT, WITHOUT ROWID;

CREATE INDEX file_blob ON file (blob_id);

-- state: 0 open, 1 finishing (blob_id is set), 2 complete (file is the file as it was then, as JSON).
-- The bucket is kept by name: a complete upload outlives its bucket.
CREATE TABLE upload (
    id           BLOB NOT NULL PRIMARY KEY,
    owner        TEXT NOT NULL,
    bucket       TEXT NOT NULL,
    key          BLOB NOT NULL,
    size         INTEGER NOT NULL CHECK (size >= 0),
    part_size    INTEGER NOT NULL CHECK (part_size > 0),
    only_create  INTEGER NOT NULL,
    state        INTEGER NOT NULL CHECK (state IN (0, 1, 2)),
    blob_id      BLOB CHECK ((blob_id IS NOT NULL) = (state = 1)),
    created_at   INTEGER NOT NULL,
    expires_at   INTEGER NOT NULL,
    expected     TEXT NOT NULL,
    content_type TEXT NOT NULL,
    metadata     TEXT NOT NULL,
    file         TEXT CHECK ((file IS NOT NULL) = (state = 2))
) STRICT, WITHOUT ROWID;

CREATE INDEX upload_open ON upload (owner, created_at) WHERE state = 0;
CREATE INDEX upload_active ON upload (bucket) WHERE state < 2;
CREATE INDEX upload_finishing ON upload (id) WHERE state = 1;
CREATE INDEX upload_expiry ON upload (expires_at) WHERE state <> 1;

CREATE TABLE extent (
    upload_id BLOB NOT NULL REFERENCES upload (id) ON DELETE CASCADE,
    begins    INTEGER NOT NULL CHECK (begins >= 0),
    ends      INTEGER NOT NULL CHECK (ends >= begins),
    crc32     INTEGER NOT NULL,
    blake3    BLOB NOT NULL,
    fragment  BLOB NOT NULL,
    PRIMARY KEY (upload_id, begins)
) STRICT, WITHOUT ROWID;

CREATE TABLE chunk_list (
    blob_id    BLOB NOT NULL PRIMARY KEY REFERENCES blob (id) ON DELETE CASCADE,
    chunk_size INTEGER NOT NULL CHECK (chunk_size > 0),
    hashes     BLOB NOT NULL
) STRICT;
