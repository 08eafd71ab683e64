-- The whole of what SQLite's migrations 0001 to 0010 make. Keys are bytea, and text sorts by its bytes (COLLATE "C").
-- Times are milliseconds since 1970 UTC. What a column means that says nothing here is said in migrations/sqlite.

CREATE TABLE meta (
    name  text   NOT NULL PRIMARY KEY,
    value bigint NOT NULL
);

INSERT INTO meta (name, value) VALUES ('generation_floor', 0), ('checked', 0);

-- One row at most: which store has the bytes.
CREATE TABLE store (
    id bytea NOT NULL PRIMARY KEY CHECK (length(id) = 16)
);

CREATE TABLE bucket (
    id                bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name              text   COLLATE "C" NOT NULL UNIQUE,
    quota_bytes       bigint CHECK (quota_bytes >= 0),
    used_bytes        bigint NOT NULL DEFAULT 0 CHECK (used_bytes >= 0),
    reserved_bytes    bigint NOT NULL DEFAULT 0 CHECK (reserved_bytes >= 0),
    file_count        bigint NOT NULL DEFAULT 0 CHECK (file_count >= 0),
    generation        bigint NOT NULL,
    created_at        bigint NOT NULL,
    retention_seconds bigint CHECK (retention_seconds > 0),
    policy            text
) WITH (fillfactor = 50);

CREATE TABLE blob (
    id           bytea  NOT NULL PRIMARY KEY,
    size         bigint NOT NULL CHECK (size >= 0),
    crc32        bigint NOT NULL,
    blake3       bytea  NOT NULL,
    sha256       bytea,
    file_count   bigint NOT NULL CHECK (file_count >= 0),
    pieces       bytea,
    whole_blake3 bytea
);

CREATE INDEX blob_unreferenced ON blob (id) WHERE file_count = 0;

-- Bytes of small files: a table of its own, so that the other stays dense. They are not worth compressing.
CREATE TABLE content (
    blob_id bytea NOT NULL PRIMARY KEY REFERENCES blob (id) ON DELETE CASCADE,
    bytes   bytea NOT NULL
);

ALTER TABLE content ALTER COLUMN bytes SET STORAGE EXTERNAL;

CREATE TABLE piece (
    id      bytea NOT NULL PRIMARY KEY,
    blob_id bytea NOT NULL REFERENCES blob (id) ON DELETE CASCADE
);

CREATE INDEX piece_blob ON piece (blob_id);

CREATE TABLE chunk_list (
    blob_id    bytea  NOT NULL PRIMARY KEY REFERENCES blob (id) ON DELETE CASCADE,
    chunk_size bigint NOT NULL CHECK (chunk_size > 0),
    hashes     bytea  NOT NULL
);

CREATE TABLE file (
    bucket_id    bigint NOT NULL REFERENCES bucket (id),
    key          bytea  NOT NULL,
    blob_id      bytea  NOT NULL REFERENCES blob (id),
    size         bigint NOT NULL CHECK (size >= 0),
    crc32        bigint NOT NULL,
    blake3       bytea  NOT NULL,
    sha256       bytea,
    created_at   bigint NOT NULL,
    created_by   text   NOT NULL,
    content_type text   NOT NULL,
    metadata     text   NOT NULL,
    pieces       bytea,
    whole_blake3 bytea,
    PRIMARY KEY (bucket_id, key)
);

CREATE INDEX file_blob ON file (blob_id);
CREATE INDEX file_content ON file (size, sha256);

CREATE TABLE upload (
    id            bytea   NOT NULL PRIMARY KEY,
    owner         text    COLLATE "C" NOT NULL,
    bucket        text    COLLATE "C" NOT NULL,
    key           bytea   NOT NULL,
    size          bigint  NOT NULL CHECK (size >= 0),
    part_size     bigint  NOT NULL CHECK (part_size > 0),
    only_create   boolean NOT NULL,
    state         bigint  NOT NULL CHECK (state IN (0, 1, 2)),
    blob_id       bytea   CHECK ((blob_id IS NOT NULL) = (state = 1)),
    created_at    bigint  NOT NULL,
    expires_at    bigint  NOT NULL,
    expected      text    NOT NULL,
    content_type  text    NOT NULL,
    metadata      text    NOT NULL,
    file          text    CHECK ((file IS NOT NULL) = (state = 2)),
    shape         bigint  NOT NULL CHECK (shape IN (0, 1, 2, 3)),
    length        bigint  CHECK (length >= 0),
    epoch         bigint  NOT NULL DEFAULT 0,
    echo_metadata text,
    echo_concat   text,
    told          boolean NOT NULL,
    condition     text,
    wants_sha256  boolean NOT NULL
) WITH (fillfactor = 80);

CREATE INDEX upload_open ON upload (owner, created_at) WHERE state = 0;
CREATE INDEX upload_active ON upload (bucket) WHERE state < 2;
CREATE INDEX upload_finishing ON upload (id) WHERE state = 1;
CREATE INDEX upload_expiry ON upload (expires_at) WHERE state <> 1;

CREATE TABLE extent (
    upload_id bytea  NOT NULL REFERENCES upload (id) ON DELETE CASCADE,
    begins    bigint NOT NULL CHECK (begins >= 0),
    ends      bigint NOT NULL CHECK (ends >= begins),
    crc32     bigint NOT NULL,
    blake3    bytea  NOT NULL,
    fragment  bytea  NOT NULL,
    PRIMARY KEY (upload_id, begins)
);

CREATE TABLE member (
    joined_id  bytea  NOT NULL REFERENCES upload (id) ON DELETE CASCADE,
    position   bigint NOT NULL,
    partial_id bytea  NOT NULL,
    PRIMARY KEY (joined_id, position)
);

CREATE INDEX member_partial ON member (partial_id);

CREATE TABLE job (
    id           bytea  NOT NULL PRIMARY KEY,
    kind         bigint NOT NULL CHECK (kind = 1),
    state        bigint NOT NULL CHECK (state BETWEEN 0 AND 5),
    priority     bigint NOT NULL DEFAULT 0,
    attempts     bigint NOT NULL DEFAULT 0,
    next_run_at  bigint NOT NULL,
    lease_owner  bytea  CHECK ((lease_owner IS NOT NULL) = (state = 1)),
    lease_until  bigint CHECK ((lease_until IS NOT NULL) = (state = 1)),
    fence        bigint NOT NULL DEFAULT 0,
    entries_done bigint NOT NULL DEFAULT 0,
    bytes_done   bigint NOT NULL DEFAULT 0,
    failure      text
);

CREATE INDEX job_due ON job (priority DESC, next_run_at) WHERE state = 0;
CREATE INDEX job_leased ON job (lease_until) WHERE state = 1;

CREATE TABLE archive (
    id             bytea   NOT NULL PRIMARY KEY,
    ready          boolean NOT NULL DEFAULT false,
    large          boolean NOT NULL,
    owner          text    COLLATE "C" NOT NULL DEFAULT '',
    name           text    NOT NULL DEFAULT '',
    compression    bigint  NOT NULL DEFAULT 0,
    entries        bigint  NOT NULL DEFAULT 0,
    bytes          bigint  NOT NULL DEFAULT 0,
    manifest       bytea,
    manifest_bytes bigint  NOT NULL DEFAULT 0,
    size           bigint,
    etag           text,
    modified       bigint,
    renamed        text    NOT NULL DEFAULT '[]',
    renamed_total  bigint  NOT NULL DEFAULT 0,
    created_at     bigint  NOT NULL,
    expires_at     bigint  NOT NULL,
    origins        text    NOT NULL DEFAULT '[]'
);

CREATE INDEX archive_owner ON archive (owner, created_at, id) WHERE ready;
CREATE INDEX archive_expiry ON archive (expires_at);
CREATE INDEX archive_large ON archive (id) WHERE large;
CREATE INDEX archive_manifest ON archive (manifest) WHERE manifest IS NOT NULL;

CREATE TABLE hold (
    blob_id    bytea NOT NULL,
    archive_id bytea NOT NULL REFERENCES archive (id) ON DELETE CASCADE,
    PRIMARY KEY (blob_id, archive_id)
);

CREATE INDEX hold_archive ON hold (archive_id);

CREATE TABLE hold_run (
    archive_id bytea NOT NULL REFERENCES archive (id) ON DELETE CASCADE,
    first      bytea NOT NULL,
    ids        bytea NOT NULL,
    PRIMARY KEY (archive_id, first)
);

CREATE TABLE pack (
    id      bytea  NOT NULL PRIMARY KEY,
    size    bigint NOT NULL CHECK (size >= 0),
    charged bigint NOT NULL,
    used_at bigint NOT NULL
);

CREATE INDEX pack_used ON pack (used_at);

CREATE TABLE encoding (
    id      bytea  NOT NULL PRIMARY KEY,
    pack_id bytea  NOT NULL REFERENCES pack (id) ON DELETE CASCADE,
    begins  bigint,
    bytes   bigint NOT NULL
);

CREATE INDEX encoding_pack ON encoding (pack_id);

CREATE TABLE archive_pack (
    archive_id bytea NOT NULL REFERENCES archive (id) ON DELETE CASCADE,
    pack_id    bytea NOT NULL REFERENCES pack (id),
    PRIMARY KEY (archive_id, pack_id)
);

CREATE INDEX archive_pack_pack ON archive_pack (pack_id);

CREATE TABLE token (
    hash       bytea   NOT NULL PRIMARY KEY,
    id         bytea   NOT NULL UNIQUE,
    parent     bytea   REFERENCES token (id) ON DELETE CASCADE,
    session    boolean NOT NULL,
    subject    text    NOT NULL,
    role       text    NOT NULL,
    buckets    text,
    created_at bigint  NOT NULL,
    created_by text    NOT NULL,
    expires_at bigint,
    made_with  bytea
);

CREATE INDEX token_parent ON token (parent) WHERE parent IS NOT NULL;
CREATE INDEX token_expiry ON token (expires_at) WHERE expires_at IS NOT NULL;

CREATE TABLE denied (
    issuer    text   COLLATE "C" NOT NULL,
    jti       text   COLLATE "C" NOT NULL,
    until     bigint,
    denied_at bigint NOT NULL,
    denied_by text   NOT NULL,
    PRIMARY KEY (issuer, jti)
);

CREATE INDEX denied_until ON denied (until) WHERE until IS NOT NULL;

CREATE TABLE link (
    id            bytea  NOT NULL PRIMARY KEY,
    owner         text   COLLATE "C" NOT NULL,
    role          text   NOT NULL,
    target        text   NOT NULL,
    expires_at    bigint NOT NULL,
    not_before    bigint,
    max_downloads bigint CHECK (max_downloads > 0),
    uses          bigint NOT NULL CHECK (uses >= 0),
    ip            text,
    password      text,
    filename      text,
    rate_limit    bigint CHECK (rate_limit > 0),
    created_at    bigint NOT NULL,
    revoked_at    bigint,
    last_used_at  bigint,
    CHECK (max_downloads IS NULL OR uses <= max_downloads)
);

CREATE INDEX link_owner ON link (owner, created_at);
CREATE INDEX link_expiry ON link (expires_at);

CREATE TABLE claim (
    id         bytea  NOT NULL PRIMARY KEY,
    link_id    bytea  NOT NULL REFERENCES link (id) ON DELETE CASCADE,
    address    text,
    created_at bigint NOT NULL,
    deadline   bigint NOT NULL,
    sent       bigint NOT NULL,
    forgiven   bigint NOT NULL,
    covered    text   NOT NULL,
    done_at    bigint
);

CREATE INDEX claim_link ON claim (link_id, created_at);
CREATE INDEX claim_deadline ON claim (deadline);

CREATE TABLE audit_chain (
    id bytea NOT NULL PRIMARY KEY CHECK (length(id) = 16)
);

INSERT INTO audit_chain (id) VALUES (uuid_send(gen_random_uuid()));

CREATE TABLE audit_block (
    seq     bigint  NOT NULL PRIMARY KEY CHECK (seq > 0),
    at      bigint  NOT NULL,
    records bigint  NOT NULL CHECK (records > 0),
    prev    bytea   NOT NULL CHECK (length(prev) = 32),
    content bytea   NOT NULL CHECK (length(content) = 32),
    hash    bytea   NOT NULL CHECK (length(hash) = 32),
    size    bigint  NOT NULL,
    zstd    boolean NOT NULL,
    body    bytea   NOT NULL
);

ALTER TABLE audit_block ALTER COLUMN body SET STORAGE EXTERNAL;

-- What each owner has. Triggers keep the sums, so that no way a row can change forgets them.
CREATE TABLE owner (
    name        text   COLLATE "C" NOT NULL PRIMARY KEY,
    bytes       bigint NOT NULL DEFAULT 0 CHECK (bytes >= 0),
    quota_bytes bigint CHECK (quota_bytes >= 0)
) WITH (fillfactor = 50);

CREATE FUNCTION owner_gets(who text, more bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF more >= 0 THEN
        INSERT INTO owner AS o (name, bytes) VALUES (who, more)
        ON CONFLICT (name) DO UPDATE SET bytes = o.bytes + excluded.bytes;
    ELSE
        UPDATE owner SET bytes = bytes + more WHERE name = who;
    END IF;
END $$;

CREATE FUNCTION file_counts() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND new.created_by = old.created_by THEN
        IF new.size <> old.size THEN
            PERFORM owner_gets(new.created_by, new.size - old.size);
        END IF;
        RETURN NULL;
    END IF;
    IF TG_OP <> 'INSERT' THEN
        PERFORM owner_gets(old.created_by, -old.size);
    END IF;
    IF TG_OP <> 'DELETE' THEN
        PERFORM owner_gets(new.created_by, new.size);
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER file_counts AFTER INSERT OR DELETE OR UPDATE OF size, created_by ON file
FOR EACH ROW EXECUTE FUNCTION file_counts();

CREATE FUNCTION upload_counts() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    before bigint := 0;
    after  bigint := 0;
BEGIN
    IF TG_OP <> 'INSERT' AND old.state < 2 THEN
        before := old.size;
    END IF;
    IF TG_OP <> 'DELETE' AND new.state < 2 THEN
        after := new.size;
    END IF;
    IF before <> after THEN
        PERFORM owner_gets(CASE TG_OP WHEN 'DELETE' THEN old.owner ELSE new.owner END, after - before);
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER upload_counts AFTER INSERT OR DELETE OR UPDATE OF size, state ON upload
FOR EACH ROW EXECUTE FUNCTION upload_counts();
