-- What the storage says of what it has stored, and who writes. What the columns mean is said in migrations/sqlite.

ALTER TABLE extent ADD COLUMN receipt bytea NOT NULL DEFAULT '';
ALTER TABLE upload ADD COLUMN writers bigint NOT NULL DEFAULT 0;
