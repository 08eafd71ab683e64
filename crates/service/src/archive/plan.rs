//! From a selection to a manifest: which files, under which names, within which limits. Reads the catalog alone.

use super::layout::ZipLayout;
use super::stored::aside;
use super::{Entry, Selection};
use crate::Core;
use carrack_catalog::Member;
use carrack_domain::access::FileRef;
use carrack_domain::archive::{RENAMED_MAX, Renamed};
use carrack_domain::file::{Blob, File};
use carrack_domain::{Code, Error, Result, Timestamp};
use carrack_zip::{EntryNames, ManifestBuilder, Method, NewEntry, ZipError};
use std::sync::{Arc, Mutex, PoisonError};

/// The members of an archive before they have their final names: keys in one string, facts beside them.
#[derive(Default)]
struct Members {
    names: String,
    rows: Vec<Row>,
    bytes: u64,
    /// What was cut off the keys to make the names,
    cut: String,
    /// or the keys themselves.
    keys: Option<Vec<Box<str>>>,
}

struct Row {
    name_end: usize,
    blob: Blob,
    modified: Timestamp,
}

impl Members {
    fn push(&mut self, name: &str, blob: Blob, modified: Timestamp, limits: &crate::Limits) -> Result<()> {
        self.bytes = self.bytes.saturating_add(blob.size);
        if self.rows.len() >= limits.archive_entries_max || self.bytes > limits.archive_bytes_max {
            return Err(Error::new(
                Code::ArchiveTooLarge,
                format!(
                    "The selection has more than {} files or {} bytes, the most an archive may have here: select less.",
                    limits.archive_entries_max, limits.archive_bytes_max
                ),
            ));
        }
        self.names.push_str(name);
        self.rows.push(Row { name_end: self.names.len(), blob, modified });
        Ok(())
    }

    /// The key behind a name.
    fn key(&self, at: usize, wish: &str) -> String {
        match &self.keys {
            Some(keys) => keys.get(at).map(|key| key.to_string()).unwrap_or_default(),
            None => format!("{}{wish}", self.cut),
        }
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        let mut start = 0;
        self.rows.iter().map(move |row| {
            let name = &self.names[start..row.name_end];
            start = row.name_end;
            name
        })
    }
}

/// A selection laid out, every entry stored.
pub(super) struct Plan {
    pub(super) layout: ZipLayout,
    /// Bytes of all contents.
    pub(super) bytes: u64,
    /// Entries that did not get the name they would have had: the first of them, and how many there are.
    pub(super) renamed: Vec<Renamed>,
    pub(super) renamed_total: u64,
    /// The generation of the (first) bucket that it describes.
    pub(super) generation: u64,
}

/// Lays out the archive of a selection; its manifest keeps the digests of entries if they are to be deflated later.
pub(super) async fn plan(core: &Core, selection: Selection, keep_digests: bool) -> Result<Plan> {
    let (members, generation) = match selection {
        Selection::Prefix(grant) => {
            let place = grant.resource();
            below_prefix(core, place.prefix.folder_len(), &place.bucket, &place.prefix).await?
        }
        Selection::Files(grants) => named(core, grants).await?,
        Selection::Entries(entries) => as_given(core, entries).await?,
    };
    // Naming and hashing a million entries takes a while: not on a thread that serves others.
    aside("lay out an archive", move || lay_out(&members, generation, keep_digests)).await
}

async fn below_prefix(
    core: &Core,
    cut: usize,
    bucket: &carrack_domain::BucketName,
    prefix: &carrack_domain::KeyPrefix,
) -> Result<(Members, u64)> {
    let members = Arc::new(Mutex::new(Members::default()));
    let (sink, limits) = (members.clone(), core.limits.clone());
    let visit = Box::new(move |member: Member<'_>| {
        let mut members = sink.lock().unwrap_or_else(PoisonError::into_inner);
        members.push(member.key.get(cut..).unwrap_or(member.key), member.blob, member.created_at, &limits)
    });
    let generation = core.catalog.scan(bucket, prefix, visit).await?;
    let mut members = std::mem::take(&mut *members.lock().unwrap_or_else(PoisonError::into_inner));
    members.cut = prefix.as_str().get(..cut).unwrap_or_default().to_owned();
    Ok((members, generation))
}

async fn named(
    core: &Core,
    grants: Vec<carrack_domain::Grant<carrack_domain::access::ArchiveFile>>,
) -> Result<(Members, u64)> {
    let shared = shared_folder(grants.iter().map(|grant| grant.resource().key.as_str()));
    let mut members = Members::default();
    let mut generation = 0;
    if let Some(grant) = grants.first() {
        // Before the look-ups: a change in between makes the manifest look older than it is, never newer.
        generation = core.catalog.generation(&grant.resource().bucket).await?;
    }
    for grant in &grants {
        let place = grant.resource();
        let file = find(core, place).await?;
        members.push(&place.key.as_str()[shared..], file.blob, file.created_at, &core.limits)?;
    }
    members.cut = grants
        .first()
        .and_then(|grant| grant.resource().key.as_str().get(..shared))
        .unwrap_or_default()
        .to_owned();
    Ok((members, generation))
}

/// Files of several buckets, under the names that are wished for them.
async fn as_given(core: &Core, entries: Vec<Entry>) -> Result<(Members, u64)> {
    let mut members = Members::default();
    let mut keys = Vec::with_capacity(entries.len());
    for Entry { grant, name } in entries {
        let place = grant.resource();
        let file = find(core, place).await?;
        let name = name.as_deref().unwrap_or(place.key.as_str());
        if name.ends_with('/') && file.blob.size > 0 {
            return Err(Error::new(
                Code::InvalidRequest,
                format!(
                    "The entry of '{}' would be a folder, as its name ends in '/': name it otherwise.",
                    place.key
                ),
            ));
        }
        members.push(name, file.blob, file.created_at, &core.limits)?;
        keys.push(place.key.as_str().into());
    }
    members.keys = Some(keys);
    Ok((members, 0))
}

async fn find(core: &Core, place: &FileRef) -> Result<File> {
    core.catalog.file(&place.bucket, &place.key).await.map_err(|error| match error.code() {
        Code::FileNotFound => Error::new(
            Code::FileNotFound,
            format!("The selection names '{}', which does not exist: leave it out.", place.key),
        ),
        _ => error,
    })
}

/// Length of the longest folder (with its `/`) that all keys lie in.
fn shared_folder<'a>(mut keys: impl Iterator<Item = &'a str>) -> usize {
    let Some(first) = keys.next() else { return 0 };
    let mut shared = first.rfind('/').map_or(0, |at| at + 1);
    for key in keys {
        let same = first.bytes().zip(key.bytes()).take(shared).take_while(|(a, b)| a == b).count();
        shared = first[..floor_boundary(first, same)].rfind('/').map_or(0, |at| at + 1);
    }
    shared
}

fn floor_boundary(text: &str, mut at: usize) -> usize {
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

fn lay_out(members: &Members, generation: u64, keep_digests: bool) -> Result<Plan> {
    if members.rows.is_empty() {
        return Err(Error::new(
            Code::EmptySelection,
            "The selection is empty: no file is below this prefix.",
        ));
    }
    let names = EntryNames::assign_all(members.names());
    let mut builder = ManifestBuilder::with_capacity(members.rows.len(), members.names.len());
    if keep_digests {
        builder.keep_digests();
    }
    let (mut renamed, mut renamed_total) = (Vec::new(), 0);
    for (at, ((name, wish), row)) in names.iter().zip(members.names()).zip(&members.rows).enumerate() {
        if name.renamed {
            renamed_total += 1;
            if renamed.len() < RENAMED_MAX {
                renamed.push(Renamed { key: members.key(at, wish), name: name.name.to_string() });
            }
        }
        let entry = NewEntry {
            name: name.name.as_ref(),
            size: row.blob.size,
            compressed: row.blob.size,
            crc32: row.blob.digest.crc32,
            method: Method::Store,
            modified: row.modified.as_secs(),
            content: *row.blob.id.as_bytes(),
            stream: [0; 16],
            digest: *row.blob.tag(),
        };
        builder.push(entry).map_err(refused)?;
    }
    let in_pieces = members.rows.iter().filter_map(|row| {
        let pieces = row.blob.pieces.clone()?;
        Some((*row.blob.id.as_bytes(), pieces))
    });
    let manifest = builder.finish().map_err(refused)?;
    let layout = ZipLayout { manifest, pieces: in_pieces.collect(), packs: Vec::new() };
    Ok(Plan { layout, bytes: members.bytes, renamed, renamed_total, generation })
}

pub(super) fn refused(error: ZipError) -> Error {
    Error::internal("lay out an archive", error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_that_all_keys_share() {
        let cases: [(&[&str], usize); 7] = [
            (&["a/b/c.txt"], 4),
            (&["a/b/c", "a/b/d"], 4),
            (&["a/bc", "a/bd"], 2),
            (&["a/b", "c/d"], 0),
            (&["a", "b"], 0),
            (&["ä/x", "å/x"], 0),
            (&["a/b/c", "a/b"], 2),
        ];
        for (keys, expected) in cases {
            assert_eq!(shared_folder(keys.iter().copied()), expected, "{keys:?}");
        }
    }
}
