-- Uploads that end when their client says so, and on its conditions.

-- told: 1 when an upload is complete once its client says so, not as soon as it has all its bytes.
-- condition: what must hold of the file that is replaced, unless only_create says it or there is nothing: 'present',
-- 'match' or 'none' and entity tags, one on each line.
-- wants_sha256: 1 when the client wants to be told the SHA-256 of the whole.
ALTER TABLE upload ADD COLUMN told INTEGER NOT NULL DEFAULT 0 CHECK (told IN (0, 1));
ALTER TABLE upload ADD COLUMN condition TEXT;
ALTER TABLE upload ADD COLUMN wants_sha256 INTEGER NOT NULL DEFAULT 0 CHECK (wants_sha256 IN (0, 1));
