-- What each owner has: the bytes of their files and of their open uploads, which a quota may bound. Triggers keep the
-- sums, so that no way a row can change forgets them.

CREATE TABLE owner (
    name        TEXT NOT NULL PRIMARY KEY,
    bytes       INTEGER NOT NULL DEFAULT 0 CHECK (bytes >= 0),
    quota_bytes INTEGER CHECK (quota_bytes >= 0)
) STRICT, WITHOUT ROWID;

INSERT INTO owner (name, bytes)
SELECT name, sum(bytes) FROM (
    SELECT created_by AS name, size AS bytes FROM file
    UNION ALL
    SELECT owner AS name, size AS bytes FROM upload WHERE state < 2
) GROUP BY name;

CREATE TRIGGER file_comes AFTER INSERT ON file BEGIN
    INSERT INTO owner (name, bytes) VALUES (new.created_by, new.size)
    ON CONFLICT (name) DO UPDATE SET bytes = bytes + excluded.bytes;
END;

CREATE TRIGGER file_changes AFTER UPDATE OF size, created_by ON file
WHEN new.size <> old.size OR new.created_by <> old.created_by BEGIN
    UPDATE owner SET bytes = bytes - old.size WHERE name = old.created_by;
    INSERT INTO owner (name, bytes) VALUES (new.created_by, new.size)
    ON CONFLICT (name) DO UPDATE SET bytes = bytes + excluded.bytes;
END;

CREATE TRIGGER file_goes AFTER DELETE ON file BEGIN
    UPDATE owner SET bytes = bytes - old.size WHERE name = old.created_by;
END;

CREATE TRIGGER upload_comes AFTER INSERT ON upload WHEN new.state < 2 AND new.size > 0 BEGIN
    INSERT INTO owner (name, bytes) VALUES (new.owner, new.size)
    ON CONFLICT (name) DO UPDATE SET bytes = bytes + excluded.bytes;
END;

CREATE TRIGGER upload_changes AFTER UPDATE OF size, state ON upload
WHEN new.size <> old.size OR (new.state < 2) <> (old.state < 2) BEGIN
    INSERT INTO owner (name, bytes) VALUES (new.owner, iif(new.state < 2, new.size, 0))
    ON CONFLICT (name) DO UPDATE SET bytes = bytes + excluded.bytes - iif(old.state < 2, old.size, 0);
END;

CREATE TRIGGER upload_goes AFTER DELETE ON upload WHEN old.state < 2 BEGIN
    UPDATE owner SET bytes = bytes - old.size WHERE name = old.owner;
END;
