//! Contents on their way through the compressor: cut into units that keep every core busy, deflated, handed on in order.

use super::layout::ZipLayout;
use super::pool::Pool;
use crate::Core;
use bytes::Bytes;
use carrack_domain::{EncodingId, Error, Result};
use carrack_storage::Form;
use carrack_zip::{BLOCK_BYTES, CODEC, Deflater};
use futures_util::{Stream, StreamExt, stream};
use std::sync::Arc;

/// Contents in one unit, at most, so that a unit of tiny ones is no large work either.
const UNIT_ENTRIES_MAX: usize = 256;
/// Smaller contents are not tried: a stream costs more than it could save.
pub(super) const SIZE_MIN: u64 = 32;

/// The name of the deflated form of a content: 16 bytes that follow from the content and the compressor.
pub(super) fn encoding_of(digest: &[u8; 32], size: u64) -> EncodingId {
    named("carrack 2026 deflated form of a content", digest, size)
}

/// The name of the verdict that a look at some of a content came to.
pub(super) fn verdict_of(digest: &[u8; 32], size: u64) -> EncodingId {
    named("carrack 2026 probe of a content", digest, size)
}

fn named(context: &'static str, digest: &[u8; 32], size: u64) -> EncodingId {
    let mut hasher = blake3::Hasher::new_derive_key(context);
    hasher.update(CODEC.as_bytes());
    hasher.update(digest);
    hasher.update(&size.to_le_bytes());
    let mut id = [0; 16];
    hasher.finalize_xof().fill(&mut id);
    EncodingId::from_bytes(id)
}

/// A part of an entry's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Part {
    entry: usize,
    offset: u64,
    len: u64,
    last: bool,
}

/// A part of an entry's stream.
pub(super) struct Deflated {
    pub(super) entry: usize,
    /// Bytes of content that it is made of.
    pub(super) content: u64,
    pub(super) bytes: Vec<u8>,
    /// Whether the stream ends with it.
    pub(super) last: bool,
}

/// Cuts entries, in this order, into units of work: one block of a long content, or several short contents together.
fn units(entries: impl Iterator<Item = (usize, u64)>) -> impl Iterator<Item = Vec<Part>> {
    let block = BLOCK_BYTES as u64;
    let parts = entries.flat_map(move |(entry, size)| {
        let blocks = size.div_ceil(block).max(1);
        (0..blocks).map(move |at| {
            let offset = at * block;
            Part { entry, offset, len: block.min(size - offset), last: at + 1 == blocks }
        })
    });
    let mut parts = parts.peekable();
    std::iter::from_fn(move || {
        let mut unit = vec![parts.next()?];
        let mut bytes = unit[0].len;
        while unit.len() < UNIT_ENTRIES_MAX
            && let Some(next) = parts.next_if(|next| bytes + next.len <= block)
        {
            bytes += next.len;
            unit.push(next);
        }
        Some(unit)
    })
}

/// The streams of entries, given with the sizes of their contents, in order and part by part. As much is under way as keeps the
/// pool busy: its width times two blocks of memory. An error says at which entry.
pub(super) fn deflate(
    core: Arc<Core>,
    pool: Arc<Pool>,
    layout: Arc<ZipLayout>,
    entries: impl Iterator<Item = (usize, u64)> + Send + 'static,
) -> impl Stream<Item = std::result::Result<Vec<Deflated>, Fault>> + Send {
    let width = pool.width();
    stream::iter(units(entries))
        .map(move |unit| {
            let (core, pool, layout) = (core.clone(), pool.clone(), layout.clone());
            async move { one(&core, &pool, &layout, unit).await }
        })
        .buffered(width)
}

type Fault = (usize, Error);

async fn one(
    core: &Core,
    pool: &Pool,
    layout: &ZipLayout,
    unit: Vec<Part>,
) -> std::result::Result<Vec<Deflated>, Fault> {
    let entry = unit[0].entry;
    let bytes = match contents(core, layout, &unit).await {
        Ok(bytes) => bytes,
        Err(error) => return Err(culprit(core, layout, &unit, error).await),
    };
    let deflated = pool.run(move |deflater| {
        let mut at = 0;
        let parts = unit.into_iter().map(|part| {
            let content = &bytes[at..at + part.len as usize];
            at += content.len();
            let mut out = Vec::new();
            deflater.block(content, part.last, &mut out).map_err(super::plan::refused)?;
            Ok(Deflated { entry: part.entry, content: part.len, bytes: out, last: part.last })
        });
        parts.collect::<Result<Vec<Deflated>>>()
    });
    deflated.await.and_then(|deflated| deflated).map_err(|error| (entry, error))
}

/// The contents of a unit, one after the other.
async fn contents(core: &Core, layout: &ZipLayout, unit: &[Part]) -> Result<Bytes> {
    let mut extents = Vec::new();
    for part in unit {
        extents.extend(extents_of(layout, part.entry, part.offset, part.len)?);
    }
    read(core, extents).await
}

/// Which of several contents could not be read: they were read together.
async fn culprit(core: &Core, layout: &ZipLayout, unit: &[Part], error: Error) -> Fault {
    for part in unit {
        if let Err(error) = contents(core, layout, std::slice::from_ref(part)).await {
            return (part.entry, error);
        }
    }
    (unit[0].entry, error)
}

fn extents_of(
    layout: &ZipLayout,
    entry: usize,
    offset: u64,
    len: u64,
) -> Result<Vec<carrack_domain::rope::Extent>> {
    layout.extents(entry, offset, len).ok_or_else(|| Error::broken("an archive names no blob for an entry"))
}

/// The bytes of these extents, in memory.
async fn read(core: &Core, extents: Vec<carrack_domain::rope::Extent>) -> Result<Bytes> {
    if extents.is_empty() { Ok(Bytes::new()) } else { core.contents.reader(Form::Copied).read(extents).await }
}

/// Bytes of each sample of a probe.
const SAMPLE_BYTES: u64 = 64 << 10;

/// Whether a content looks as if it were worth to be deflated, by its begin, its middle and its end: an eighth less.
pub(super) async fn probe(
    core: &Core,
    pool: &Pool,
    layout: &ZipLayout,
    entry: usize,
    size: u64,
) -> Result<bool> {
    let sample = SAMPLE_BYTES.min(size);
    let mut extents = Vec::new();
    for offset in [0, (size - sample) / 2, size - sample] {
        extents.extend(extents_of(layout, entry, offset, sample)?);
    }
    let bytes = read(core, extents).await?;
    pool.run(move |deflater: &mut Deflater| {
        let deflated = deflater.whole(&bytes).map_err(super::plan::refused)?;
        Ok(deflated.len() < bytes.len() - bytes.len() / 8)
    })
    .await?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_have_everything_once_and_in_order() {
        let block = BLOCK_BYTES as u64;
        let sizes = [0, 5, block, block - 1, 1, 1, 3 * block + 7, block - 6, 0, 2 * block, 100];
        let many: Vec<u64> = sizes.into_iter().chain(std::iter::repeat_n(1, 2000)).collect();
        let mut seen = vec![0; many.len()];
        let mut last_seen = None;
        for unit in units(many.iter().copied().enumerate()) {
            assert!(unit.iter().map(|part| part.len).sum::<u64>() <= block && unit.len() <= UNIT_ENTRIES_MAX);
            for part in unit {
                assert_eq!(part.offset, seen[part.entry], "in order");
                assert!(last_seen.is_none_or(|before| part.entry == before || part.entry == before + 1));
                seen[part.entry] += part.len;
                assert_eq!(part.last, seen[part.entry] == many[part.entry]);
                assert!(part.len == block || part.last, "only the last block of a content is short");
                last_seen = Some(part.entry);
            }
        }
        assert_eq!((seen, last_seen), (many.clone(), Some(many.len() - 1)));
    }

    #[test]
    fn names_follow_from_content_and_kind() {
        let (a, b) = (encoding_of(&[1; 32], 5), encoding_of(&[2; 32], 5));
        assert_eq!(a, encoding_of(&[1; 32], 5));
        assert!(a != b && a != encoding_of(&[1; 32], 6) && a != verdict_of(&[1; 32], 5));
    }
}
