-- Uploads that come in order, uploads that join others, and blobs in pieces.

-- shape: 0 numbered parts; 1 append; 2 append, a partial upload; 3 joined, which has no bytes of its own.
-- length: bytes of the whole, NULL while unknown; of numbered parts it is size. size is what is reserved in the bucket:
-- of an upload of unknown length what it has so far, of a joined one 0. part_size is 1 unless there are parts.
-- epoch: counts who took the upload over; an append with an older one is refused.
-- echo_*: what the client said at creation, as it was.
ALTER TABLE upload ADD COLUMN shape INTEGER NOT NULL DEFAULT 0 CHECK (shape IN (0, 1, 2, 3));
ALTER TABLE upload ADD COLUMN length INTEGER CHECK (length >= 0);
ALTER TABLE upload ADD COLUMN epoch INTEGER NOT NULL DEFAULT 0;
ALTER TABLE upload ADD COLUMN echo_metadata TEXT;
ALTER TABLE upload ADD COLUMN echo_concat TEXT;

-- Which uploads a joined one is made of. They are gone once it is complete; the list stays, so that the same wish made
-- again gets the same answer.
CREATE TABLE member (
    joined_id  BLOB NOT NULL REFERENCES upload (id) ON DELETE CASCADE,
    position   INTEGER NOT NULL,
    partial_id BLOB NOT NULL,
    PRIMARY KEY (joined_id, position)
) STRICT, WITHOUT ROWID;

CREATE INDEX member_partial ON member (partial_id);

-- pieces: names (16 bytes) and sizes (8, little-endian) of the runs of bytes a blob is put together from; NULL when
-- they are stored under its own id. blake3 then names the content without being its BLAKE3; whole_blake3 is that, once
-- it is known. At the end of the row: a scan learns from its head that there is nothing.
ALTER TABLE blob ADD COLUMN pieces BLOB;
ALTER TABLE blob ADD COLUMN whole_blake3 BLOB;
ALTER TABLE file ADD COLUMN pieces BLOB;
ALTER TABLE file ADD COLUMN whole_blake3 BLOB;

-- Which blob a stored run belongs to, when that is not the blob of the same name.
CREATE TABLE piece (
    id      BLOB NOT NULL PRIMARY KEY,
    blob_id BLOB NOT NULL REFERENCES blob (id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

CREATE INDEX piece_blob ON piece (blob_id);
