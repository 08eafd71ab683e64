//! Bytes from one storage to another, compared as they are read and after they were written.

use super::{Progress, Side, add};
use bytes::Bytes;
use carrack_domain::digest::join_crc32;
use carrack_domain::error::Class;
use carrack_domain::file::{Blob, Pieces};
use carrack_domain::rope::Extent;
use carrack_domain::{BlobId, Error, Result};
use carrack_storage::{Flush, Form, Hand, Reader, StageKind, Storage, Whole};
use std::collections::HashMap;

/// Bytes that are read at once.
const READ_BYTES: u64 = 1 << 20;
/// Runs of up to so many bytes are sent in one go.
const WHOLE_BYTES: u64 = 1 << 20;

/// What became of the bytes of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Sent {
    /// They are at the target, as they should be.
    Whole,
    /// They are not what they should be at the source, or cannot be read there: why.
    Damaged(String),
}

/// Why bytes at the source are no good.
#[derive(Debug)]
pub(super) struct Damage(String);

impl From<Damage> for Sent {
    fn from(Damage(why): Damage) -> Sent {
        Sent::Damaged(why)
    }
}

/// Digests of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Digests {
    crc32: u32,
    blake3: [u8; 32],
}

#[derive(Default)]
struct Hasher {
    crc32: crc32fast::Hasher,
    blake3: blake3::Hasher,
}

impl Hasher {
    fn update(&mut self, bytes: &[u8]) {
        self.crc32.update(bytes);
        self.blake3.update(bytes);
    }

    fn finish(self) -> Digests {
        Digests { crc32: self.crc32.finalize(), blake3: *self.blake3.finalize().as_bytes() }
    }
}

/// What happened to a run.
enum Moved {
    /// It was sent; what it is.
    Sent(Digests),
    /// It was there before; what it is.
    Kept(Digests),
}

impl Moved {
    fn digests(&self) -> Digests {
        match self {
            Moved::Sent(digests) | Moved::Kept(digests) => *digests,
        }
    }
}

type Tried<T> = Result<std::result::Result<T, Damage>>;

/// Whether a content that is kept with its record is what the record says.
pub(super) fn check_content(blob: &Blob, content: &[u8]) -> Sent {
    let mut hasher = Hasher::default();
    hasher.update(content);
    let found = hasher.finish();
    if content.len() as u64 == blob.size && is_what(blob, found) { Sent::Whole } else { other_bytes() }
}

fn is_what(blob: &Blob, found: Digests) -> bool {
    found.crc32 == blob.digest.crc32 && Some(found.blake3) == blob.blake3()
}

fn other_bytes() -> Sent {
    Sent::Damaged("its bytes are not those that were stored: damaged at the source".to_owned())
}

/// The bytes of a blob that is in storage, in one run or in pieces.
pub(super) async fn send_blob(from: &Side, to: &Side, blob: &Blob, progress: &Progress) -> Result<Sent> {
    let runs = blob.stored();
    let is_single = blob.pieces.is_none();
    let is_good = |found: Digests| is_what(blob, found);
    let mut found = HashMap::new();
    let mut kept = Vec::new();
    for run in &runs {
        let expected: Option<&(dyn Fn(Digests) -> bool + Sync)> =
            if is_single { Some(&is_good) } else { None };
        match move_run(from, to, *run, expected, progress).await? {
            Ok(moved) => {
                found.insert(run.0, moved.digests());
                if let Moved::Kept(_) = moved {
                    kept.push(*run);
                }
            }
            Err(damage) => return Ok(damage.into()),
        }
    }
    if is_single || is_joined(blob, &found) {
        count(progress, blob.size, kept.len() == runs.len());
        return Ok(Sent::Whole);
    }
    // Pieces that an earlier run has left may be of a source that was damaged then.
    for run in &kept {
        to.storage.delete(run.0).await?;
        match send_run(from, to, *run, None, progress).await? {
            Ok(digests) => found.insert(run.0, digests),
            Err(damage) => return Ok(damage.into()),
        };
    }
    if is_joined(blob, &found) {
        count(progress, blob.size, false);
        return Ok(Sent::Whole);
    }
    for (run, _) in runs {
        to.storage.delete(run).await?;
    }
    Ok(other_bytes())
}

fn count(progress: &Progress, size: u64, kept: bool) {
    if kept {
        add(&progress.kept, 1);
        add(&progress.kept_bytes, size);
    } else {
        add(&progress.sent, 1);
    }
}

/// Whether pieces that hash to this make the blob.
fn is_joined(blob: &Blob, found: &HashMap<BlobId, Digests>) -> bool {
    let Some(pieces) = &blob.pieces else { return false };
    let mut crc32 = 0;
    let mut contents = Vec::new();
    for (run, size) in pieces.runs() {
        let Some(digests) = found.get(&run) else { return false };
        crc32 = join_crc32(crc32, digests.crc32, size);
        contents.push((digests.blake3, size));
    }
    let tag = match contents[..] {
        [] => *blake3::hash(b"").as_bytes(),
        [(blake3, _)] => blake3,
        _ => Pieces::tag(contents),
    };
    crc32 == blob.digest.crc32 && tag == *blob.tag()
}

/// A run of which no digest is kept: a manifest, or a pack. What is there already is compared with the source.
pub(super) async fn send_alone(
    from: &Side,
    to: &Side,
    run: (BlobId, u64),
    progress: &Progress,
) -> Result<Sent> {
    let sent = match move_run(from, to, run, None, progress).await? {
        Ok(Moved::Sent(_)) => return Ok(Sent::Whole),
        Ok(Moved::Kept(there)) => match read_source(from, run).await? {
            Ok(here) if here == there => {
                add(&progress.kept_bytes, run.1);
                return Ok(Sent::Whole);
            }
            Ok(_) => {
                to.storage.delete(run.0).await?;
                send_run(from, to, run, None, progress).await?.map(drop)
            }
            Err(damage) => Err(damage),
        },
        Err(damage) => Err(damage),
    };
    Ok(sent.map_or_else(Sent::from, |()| Sent::Whole))
}

type Expected<'e> = Option<&'e (dyn Fn(Digests) -> bool + Sync)>;

/// Sees to it that the target has a run. One that is there from before is read, and replaced unless it is as expected.
async fn move_run(
    from: &Side,
    to: &Side,
    run: (BlobId, u64),
    expected: Expected<'_>,
    progress: &Progress,
) -> Tried<Moved> {
    let (id, size) = run;
    match to.storage.blob_size(id).await? {
        Some(there) if there == size => {
            let found = digest(&*to.storage, run).await?;
            if expected.is_none_or(|expected| expected(found)) {
                return Ok(Ok(Moved::Kept(found)));
            }
            to.storage.delete(id).await?;
        }
        Some(_) => to.storage.delete(id).await?,
        None => {}
    }
    Ok(send_run(from, to, run, expected, progress).await?.map(Moved::Sent))
}

/// Sends a run, which the target lacks, unless it is not as expected, and reads it back.
async fn send_run(
    from: &Side,
    to: &Side,
    run: (BlobId, u64),
    expected: Expected<'_>,
    progress: &Progress,
) -> Tried<Digests> {
    let stage = run.0.stage();
    // What an interrupted run has left of it.
    to.storage.discard_stage(stage).await?;
    let sent = if run.1 <= WHOLE_BYTES {
        send_small(from, to, run, expected, progress).await
    } else {
        to.storage.create_stage(stage, Some(run.1), StageKind::Request).await?;
        let sent = send_large(from, to, run, expected, progress).await;
        if !matches!(sent, Ok(Ok(_))) {
            to.storage.discard_stage(stage).await?;
        }
        sent
    };
    let digests = match sent? {
        Ok(digests) => digests,
        Err(damage) => return Ok(Err(damage)),
    };
    if digest(&*to.storage, run).await? != digests {
        to.storage.delete(run.0).await?;
        return Err(Error::broken(format!(
            "the target gives back other bytes of {} than it was sent",
            run.0
        )));
    }
    Ok(Ok(digests))
}

async fn send_small(
    from: &Side,
    to: &Side,
    (id, size): (BlobId, u64),
    expected: Expected<'_>,
    progress: &Progress,
) -> Tried<Digests> {
    let mut hasher = Hasher::default();
    let bytes = match read_all(from, (id, size)).await? {
        Ok(bytes) => bytes,
        Err(damage) => return Ok(Err(damage)),
    };
    hasher.update(&bytes);
    let digests = hasher.finish();
    if expected.is_some_and(|expected| !expected(digests)) {
        return Ok(Err(changed()));
    }
    to.storage.store(id.stage(), bytes).await?;
    add(&progress.sent_bytes, size);
    Ok(Ok(digests))
}

async fn read_all(from: &Side, run: (BlobId, u64)) -> Tried<Bytes> {
    let mut reader = match open(&*from.storage, run).await {
        Ok(reader) => reader,
        Err(error) => return unreadable(error).map(Err),
    };
    if run.1 == 0 {
        return Ok(Ok(Bytes::new()));
    }
    match reader.read(vec![extent(run, 0, run.1)]).await {
        Ok(bytes) => Ok(Ok(bytes)),
        Err(error) => unreadable(error).map(Err),
    }
}

async fn send_large(
    from: &Side,
    to: &Side,
    run: (BlobId, u64),
    expected: Expected<'_>,
    progress: &Progress,
) -> Tried<Digests> {
    let mut writer = to.storage.extent_writer(run.0.stage(), 0, Hand::default(), Box::new(|_| {})).await?;
    let mut hasher = Hasher::default();
    let mut reader = match open(&*from.storage, run).await {
        Ok(reader) => reader,
        Err(error) => {
            writer.abandon().await;
            return unreadable(error).map(Err);
        }
    };
    for (offset, len) in steps(run.1) {
        let bytes = match reader.read(vec![extent(run, offset, len)]).await {
            Ok(bytes) => bytes,
            Err(error) => {
                writer.abandon().await;
                return unreadable(error).map(Err);
            }
        };
        hasher.update(&bytes);
        writer.write(bytes).await?;
        add(&progress.sent_bytes, len);
    }
    let digests = hasher.finish();
    if expected.is_some_and(|expected| !expected(digests)) {
        writer.abandon().await;
        return Ok(Err(changed()));
    }
    let receipts = vec![writer.finish(Flush::AtPublish).await?];
    let whole = Whole { size: run.1, crc32: Some(digests.crc32), receipts };
    to.storage.publish(run.0.stage(), &whole).await?;
    Ok(Ok(digests))
}

fn changed() -> Damage {
    Damage("its bytes are not those that were stored: damaged at the source".to_owned())
}

/// Bytes that are gone or cannot be read are damage; a storage that is away is a reason to stop.
fn unreadable(error: Error) -> Result<Damage> {
    if error.code().class() == Class::Fault { Ok(Damage(error.chain())) } else { Err(error) }
}

async fn read_source(from: &Side, run: (BlobId, u64)) -> Tried<Digests> {
    match digest(&*from.storage, run).await {
        Ok(digests) => Ok(Ok(digests)),
        Err(error) => unreadable(error).map(Err),
    }
}

async fn digest(storage: &dyn Storage, run: (BlobId, u64)) -> Result<Digests> {
    let mut hasher = Hasher::default();
    let mut reader = open(storage, run).await?;
    for (offset, len) in steps(run.1) {
        let bytes = reader.read(vec![extent(run, offset, len)]).await?;
        hasher.update(&bytes);
    }
    Ok(hasher.finish())
}

async fn open(storage: &dyn Storage, run: (BlobId, u64)) -> Result<Box<dyn Reader>> {
    let mut reader = storage.reader(Form::Copied);
    reader.follow(Box::new(steps(run.1).map(move |(offset, len)| extent(run, offset, len))));
    reader.open(run.0, run.1).await?;
    Ok(reader)
}

fn extent((blob, size): (BlobId, u64), offset: u64, len: u64) -> Extent {
    Extent::Blob { blob, size, offset, len }
}

/// Offsets and lengths of what is read one after the other.
fn steps(size: u64) -> impl Iterator<Item = (u64, u64)> + Send {
    (0..size.div_ceil(READ_BYTES)).map(move |step| {
        let offset = step * READ_BYTES;
        (offset, READ_BYTES.min(size - offset))
    })
}
