-- Jobs, archives, and the deflated forms of blobs.

-- state: 0 waiting, 1 running, 2 paused, 3 completed, 4 failed, 5 cancelled. kind: 1 makes the archive of the same id.
-- lease_until and next_run_at are by the clock of the database. fence counts who had the job: a write with an older one
-- is refused. attempts counts those that failed in a row. failure is JSON.
CREATE TABLE job (
    id           BLOB NOT NULL PRIMARY KEY,
    kind         INTEGER NOT NULL CHECK (kind = 1),
    state        INTEGER NOT NULL CHECK (state BETWEEN 0 AND 5),
    priority     INTEGER NOT NULL DEFAULT 0,
    attempts     INTEGER NOT NULL DEFAULT 0,
    next_run_at  INTEGER NOT NULL,
    lease_owner  BLOB CHECK ((lease_owner IS NOT NULL) = (state = 1)),
    lease_until  INTEGER CHECK ((lease_until IS NOT NULL) = (state = 1)),
    fence        INTEGER NOT NULL DEFAULT 0,
    entries_done INTEGER NOT NULL DEFAULT 0,
    bytes_done   INTEGER NOT NULL DEFAULT 0,
    failure      TEXT
) STRICT, WITHOUT ROWID;

CREATE INDEX job_due ON job (priority DESC, next_run_at) WHERE state = 0;
CREATE INDEX job_leased ON job (lease_until) WHERE state = 1;

-- ready: 0 while its selection is being written down; nobody sees it then, but what it holds is held.
-- large: what it holds stands in hold_run, else in hold. manifest is a run of bytes in storage.
-- size, etag and modified are set once it is completed. renamed is JSON.
CREATE TABLE archive (
    id             BLOB NOT NULL PRIMARY KEY,
    ready          INTEGER NOT NULL DEFAULT 0,
    large          INTEGER NOT NULL,
    owner          TEXT NOT NULL DEFAULT '',
    name           TEXT NOT NULL DEFAULT '',
    compression    INTEGER NOT NULL DEFAULT 0,
    entries        INTEGER NOT NULL DEFAULT 0,
    bytes          INTEGER NOT NULL DEFAULT 0,
    manifest       BLOB,
    manifest_bytes INTEGER NOT NULL DEFAULT 0,
    size           INTEGER,
    etag           TEXT,
    modified       INTEGER,
    renamed        TEXT NOT NULL DEFAULT '[]',
    renamed_total  INTEGER NOT NULL DEFAULT 0,
    created_at     INTEGER NOT NULL,
    expires_at     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX archive_owner ON archive (owner, created_at, id) WHERE ready = 1;
CREATE INDEX archive_expiry ON archive (expires_at);
CREATE INDEX archive_large ON archive (id) WHERE large = 1;
CREATE INDEX archive_manifest ON archive (manifest) WHERE manifest IS NOT NULL;

-- Blobs that an archive needs, whoever else points at them: one row each, or, for a million of them, sorted ids of 16
-- bytes in runs that begin with `first`.
CREATE TABLE hold (
    blob_id    BLOB NOT NULL,
    archive_id BLOB NOT NULL REFERENCES archive (id) ON DELETE CASCADE,
    PRIMARY KEY (blob_id, archive_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX hold_archive ON hold (archive_id);

CREATE TABLE hold_run (
    archive_id BLOB NOT NULL REFERENCES archive (id) ON DELETE CASCADE,
    first      BLOB NOT NULL,
    ids        BLOB NOT NULL
) STRICT;

CREATE UNIQUE INDEX hold_run_first ON hold_run (archive_id, first);

-- A run of bytes in storage with the deflated forms of one or many blobs; size is 0 when it has none of them but
-- only says which blobs do not shrink. charged is what counts towards the quota.
CREATE TABLE pack (
    id      BLOB NOT NULL PRIMARY KEY,
    size    INTEGER NOT NULL CHECK (size >= 0),
    charged INTEGER NOT NULL,
    used_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX pack_used ON pack (used_at);

-- The deflated form of a content: a piece of a pack, or nothing (begins is NULL) when it would not be smaller.
CREATE TABLE encoding (
    id      BLOB NOT NULL PRIMARY KEY,
    pack_id BLOB NOT NULL REFERENCES pack (id) ON DELETE CASCADE,
    begins  INTEGER,
    bytes   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX encoding_pack ON encoding (pack_id);

-- Which packs an archive needs.
CREATE TABLE archive_pack (
    archive_id BLOB NOT NULL REFERENCES archive (id) ON DELETE CASCADE,
    pack_id    BLOB NOT NULL REFERENCES pack (id),
    PRIMARY KEY (archive_id, pack_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX archive_pack_pack ON archive_pack (pack_id);
