-- What a storage other than a disk says of stored bytes, and who may write to a stage.

-- receipt: said by the storage, and told to it again when the bytes are published.
ALTER TABLE extent ADD COLUMN receipt BLOB NOT NULL DEFAULT x'';

-- writers: numbers given to those who write to the stage, besides 0 for who began the upload.
ALTER TABLE upload ADD COLUMN writers INTEGER NOT NULL DEFAULT 0;
