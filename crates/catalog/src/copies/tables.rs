//! Which tables and columns are copied.

use super::Value;

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A number.
    Int,
    /// 0 or 1.
    Flag,
    /// Bytes.
    Bytes,
    /// Text.
    Text,
    /// The bytes of a small blob, which each catalog keeps beside the row in its own way.
    Content,
}

/// A column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// What is read instead, in the SQL of both.
    pub read: Option<&'static str>,
}

/// Which runs of bytes in storage belong to a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runs {
    /// None.
    None,
    /// Those of a blob.
    Blob,
    /// The one that the columns of these numbers name: its id, and its size. None where the id is nothing or the size is 0.
    One(usize, usize),
}

/// A table.
#[derive(Debug, PartialEq, Eq)]
pub struct Table {
    /// What both catalogs call it.
    pub name: &'static str,
    /// What is copied of it.
    pub columns: &'static [Column],
    /// So many of the first columns name a row, and order the rows.
    pub key: usize,
    /// Which rows are copied, in the SQL of both; all where it is empty.
    pub filter: &'static str,
    /// Whether its rows are there already, from an entry of the same name before, and this one only fills columns in.
    pub fills: bool,
    /// Columns that name a row of another table by the first of its columns.
    pub parents: &'static [(usize, &'static str)],
    /// The bytes that have to be there before the row.
    pub runs: Runs,
    /// Rows that are worked on together: some MiB at most.
    pub page: usize,
}

impl Table {
    /// What names this row.
    pub fn key_of<'r>(&self, row: &'r [Value]) -> &'r [Value] {
        &row[..self.key.min(row.len())]
    }

    /// The number of a column.
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }
}

const fn int(name: &'static str) -> Column {
    Column { name, kind: Kind::Int, read: None }
}

const fn flag(name: &'static str) -> Column {
    Column { name, kind: Kind::Flag, read: None }
}

const fn bytes(name: &'static str) -> Column {
    Column { name, kind: Kind::Bytes, read: None }
}

const fn text(name: &'static str) -> Column {
    Column { name, kind: Kind::Text, read: None }
}

/// What most tables have in common.
const PLAIN: Table = Table {
    name: "",
    columns: &[],
    key: 1,
    filter: "",
    fills: false,
    parents: &[],
    runs: Runs::None,
    page: 500,
};

const COMPLETE: &str = "state = 2";
const OF_COMPLETE: &str = "upload_id IN (SELECT id FROM upload WHERE state = 2)";
const MEMBER_OF_COMPLETE: &str = "joined_id IN (SELECT id FROM upload WHERE state = 2)";

/// What is copied, parents first.
pub static TABLES: [Table; 23] = [
    Table {
        name: "bucket",
        columns: &[
            int("id"),
            text("name"),
            int("quota_bytes"),
            int("used_bytes"),
            int("file_count"),
            int("generation"),
            int("created_at"),
            int("retention_seconds"),
            text("policy"),
        ],
        page: 100,
        ..PLAIN
    },
    Table {
        name: "blob",
        columns: &[
            bytes("id"),
            int("size"),
            int("crc32"),
            bytes("blake3"),
            bytes("sha256"),
            int("file_count"),
            bytes("pieces"),
            bytes("whole_blake3"),
            Column { name: "content", kind: Kind::Content, read: None },
        ],
        runs: Runs::Blob,
        page: 128,
        ..PLAIN
    },
    Table { name: "piece", columns: &[bytes("id"), bytes("blob_id")], parents: &[(1, "blob")], ..PLAIN },
    Table {
        name: "chunk_list",
        columns: &[bytes("blob_id"), int("chunk_size"), bytes("hashes")],
        parents: &[(0, "blob")],
        page: 4,
        ..PLAIN
    },
    Table {
        name: "file",
        columns: &[
            int("bucket_id"),
            bytes("key"),
            bytes("blob_id"),
            int("size"),
            int("crc32"),
            bytes("blake3"),
            bytes("sha256"),
            int("created_at"),
            text("created_by"),
            text("content_type"),
            text("metadata"),
            bytes("pieces"),
            bytes("whole_blake3"),
        ],
        key: 2,
        parents: &[(2, "blob")],
        ..PLAIN
    },
    Table {
        name: "upload",
        columns: &[
            bytes("id"),
            text("owner"),
            text("bucket"),
            bytes("key"),
            int("size"),
            int("part_size"),
            flag("only_create"),
            int("state"),
            bytes("blob_id"),
            int("created_at"),
            int("expires_at"),
            text("expected"),
            text("content_type"),
            text("metadata"),
            text("file"),
            int("shape"),
            int("length"),
            int("epoch"),
            text("echo_metadata"),
            text("echo_concat"),
            flag("told"),
            text("condition"),
            flag("wants_sha256"),
            int("writers"),
            flag("direct"),
        ],
        filter: COMPLETE,
        page: 200,
        ..PLAIN
    },
    Table {
        name: "extent",
        columns: &[
            bytes("upload_id"),
            int("begins"),
            int("ends"),
            int("crc32"),
            bytes("blake3"),
            bytes("fragment"),
            bytes("receipt"),
        ],
        key: 2,
        filter: OF_COMPLETE,
        page: 200,
        ..PLAIN
    },
    Table {
        name: "member",
        columns: &[bytes("joined_id"), int("position"), bytes("partial_id")],
        key: 2,
        filter: MEMBER_OF_COMPLETE,
        ..PLAIN
    },
    Table {
        name: "pack",
        columns: &[bytes("id"), int("size"), int("charged"), int("used_at")],
        runs: Runs::One(0, 1),
        ..PLAIN
    },
    Table {
        name: "encoding",
        columns: &[bytes("id"), bytes("pack_id"), int("begins"), int("bytes")],
        parents: &[(1, "pack")],
        ..PLAIN
    },
    Table {
        name: "archive",
        columns: &[
            bytes("id"),
            flag("ready"),
            flag("large"),
            text("owner"),
            text("name"),
            int("compression"),
            int("entries"),
            int("bytes"),
            bytes("manifest"),
            int("manifest_bytes"),
            int("size"),
            text("etag"),
            int("modified"),
            text("renamed"),
            int("renamed_total"),
            int("created_at"),
            int("expires_at"),
            text("origins"),
        ],
        runs: Runs::One(8, 9),
        page: 50,
        ..PLAIN
    },
    Table {
        name: "job",
        columns: &[
            bytes("id"),
            int("kind"),
            // Whoever was at it is not at the copy.
            Column { name: "state", kind: Kind::Int, read: Some("CASE state WHEN 1 THEN 0 ELSE state END") },
            int("priority"),
            int("attempts"),
            int("next_run_at"),
            int("fence"),
            int("entries_done"),
            int("bytes_done"),
            text("failure"),
        ],
        parents: &[(0, "archive")],
        ..PLAIN
    },
    Table {
        name: "hold",
        columns: &[bytes("blob_id"), bytes("archive_id")],
        key: 2,
        parents: &[(1, "archive")],
        page: 2000,
        ..PLAIN
    },
    Table {
        name: "hold_run",
        columns: &[bytes("archive_id"), bytes("first"), bytes("ids")],
        key: 2,
        parents: &[(0, "archive")],
        page: 16,
        ..PLAIN
    },
    Table {
        name: "archive_pack",
        columns: &[bytes("archive_id"), bytes("pack_id")],
        key: 2,
        parents: &[(0, "archive"), (1, "pack")],
        ..PLAIN
    },
    Table {
        name: "token",
        columns: &[
            bytes("hash"),
            bytes("id"),
            flag("session"),
            text("subject"),
            text("role"),
            text("buckets"),
            int("created_at"),
            text("created_by"),
            int("expires_at"),
            bytes("made_with"),
        ],
        ..PLAIN
    },
    // A token's parent may come after it.
    Table {
        name: "token",
        columns: &[bytes("hash"), bytes("parent")],
        filter: "parent IS NOT NULL",
        fills: true,
        ..PLAIN
    },
    Table {
        name: "denied",
        columns: &[text("issuer"), text("jti"), int("until"), int("denied_at"), text("denied_by")],
        key: 2,
        ..PLAIN
    },
    Table {
        name: "link",
        columns: &[
            bytes("id"),
            text("owner"),
            text("role"),
            text("target"),
            int("expires_at"),
            int("not_before"),
            int("max_downloads"),
            int("uses"),
            text("ip"),
            text("password"),
            text("filename"),
            int("rate_limit"),
            int("created_at"),
            int("revoked_at"),
            int("last_used_at"),
        ],
        page: 200,
        ..PLAIN
    },
    Table {
        name: "claim",
        columns: &[
            bytes("id"),
            bytes("link_id"),
            text("address"),
            int("created_at"),
            int("deadline"),
            int("sent"),
            int("forgiven"),
            text("covered"),
            int("done_at"),
        ],
        ..PLAIN
    },
    Table {
        name: "event",
        columns: &[int("seq"), int("at"), text("kind"), text("subject"), text("data")],
        ..PLAIN
    },
    Table {
        name: "event_sink",
        columns: &[
            text("name"),
            int("passed"),
            int("fence"),
            int("failing_since"),
            text("problem"),
            flag("dead"),
        ],
        ..PLAIN
    },
    Table {
        name: "audit_block",
        columns: &[
            int("seq"),
            int("at"),
            int("records"),
            bytes("prev"),
            bytes("content"),
            bytes("hash"),
            int("size"),
            flag("zstd"),
            bytes("body"),
        ],
        page: 8,
        ..PLAIN
    },
];

/// Uploads that are not complete, to be told of.
pub static OPEN_UPLOADS: Table = Table {
    name: "upload",
    columns: &[bytes("id"), text("owner"), text("bucket"), bytes("key"), int("state")],
    filter: "state < 2",
    ..PLAIN
};

/// Tables and columns that are not copied as rows, and why. A table's name alone stands for all of it.
pub const NOT_COPIED: &[(&str, &str)] = &[
    ("meta", "counters: see Identity"),
    ("audit_chain", "see Identity"),
    ("event_source", "see Identity"),
    ("store", "where the copy's bytes are, not the original's"),
    ("content", "with the blob"),
    ("owner", "triggers keep the sums, and a start sets the quotas"),
    ("carrack_migration", "the copy's own"),
    ("bucket.reserved_bytes", "what open uploads reserve, which are not copied"),
    ("job.lease_owner", "nobody is at a job of the copy"),
    ("job.lease_until", "nobody is at a job of the copy"),
    ("event_sink.holder", "nobody tells a sink of the copy"),
    ("event_sink.lease_until", "nobody tells a sink of the copy"),
    ("token.parent", "by the second entry of that table"),
];
