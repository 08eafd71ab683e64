-- Contents of small files, beside their records: one transaction makes both, one sync keeps both.

-- A table of its own, so that the others stay dense; by number, so that what came together lies together.
CREATE TABLE content (
    id    INTEGER PRIMARY KEY,
    bytes BLOB NOT NULL
) STRICT;

-- content: where the bytes of the blob are; NULL when they are stored under its name, or in pieces.
ALTER TABLE blob ADD COLUMN content INTEGER;

CREATE TRIGGER blob_content AFTER DELETE ON blob WHEN old.content IS NOT NULL BEGIN
    DELETE FROM content WHERE id = old.content;
END;
