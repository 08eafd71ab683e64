-- Uploads whose parts may go to the storage past the server.

-- direct: whether somebody was told where to send parts of it.
ALTER TABLE upload ADD COLUMN direct INTEGER NOT NULL DEFAULT 0;
