-- The outbox: what others are told of changes, and where each of them is.

-- One row: what the ids of events begin with.
CREATE TABLE event_source (
    id BLOB NOT NULL PRIMARY KEY CHECK (length(id) = 8)
) STRICT, WITHOUT ROWID;

INSERT INTO event_source (id) VALUES (randomblob(8));

-- at: milliseconds. Numbers are never used again.
CREATE TABLE event (
    seq     INTEGER PRIMARY KEY AUTOINCREMENT,
    at      INTEGER NOT NULL,
    kind    TEXT NOT NULL,
    subject TEXT NOT NULL,
    data    TEXT NOT NULL
) STRICT;

-- passed: the last event it was told. failing_since, lease_until: milliseconds.
CREATE TABLE event_sink (
    name          TEXT NOT NULL PRIMARY KEY,
    passed        INTEGER NOT NULL,
    fence         INTEGER NOT NULL DEFAULT 0,
    holder        BLOB,
    lease_until   INTEGER,
    failing_since INTEGER,
    problem       TEXT,
    dead          INTEGER NOT NULL DEFAULT 0 CHECK (dead IN (0, 1))
) STRICT, WITHOUT ROWID;
