-- Uploads whose parts may go to the storage past the server. What the column means is said in migrations/sqlite.

ALTER TABLE upload ADD COLUMN direct boolean NOT NULL DEFAULT false;
