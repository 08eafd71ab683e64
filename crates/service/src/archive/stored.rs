//! Laid-out archives as runs of bytes in storage, and back.

use super::layout::{Place, ZipLayout};
use crate::Core;
use bytes::Bytes;
use carrack_domain::file::Pieces;
use carrack_domain::rope::Extent;
use carrack_domain::{BlobId, Code, Error, Result, UploadId};
use carrack_storage::Form;
use carrack_zip::Manifest;
use std::collections::HashMap;
use std::io::{self, Read};
use std::sync::Arc;
use tokio::sync::mpsc;

const MAGIC: &[u8; 8] = b"carrackA";

/// Keeps a layout: a run of bytes, durable when this returns.
pub(super) async fn keep(core: &Core, layout: &Arc<ZipLayout>) -> Result<(BlobId, u64)> {
    let stage = UploadId::generate(&*core.entropy);
    let bytes = aside("write down an archive", {
        let layout = layout.clone();
        move || Ok(to_bytes(&layout))
    })
    .await?;
    let size = bytes.len() as u64;
    core.storage.store(stage, Bytes::from(bytes)).await?;
    Ok((stage.blob(), size))
}

/// Reads a layout that was kept; `data_lost` when it is gone or damaged. Takes the memory of the layout and of some pieces on
/// their way.
pub(super) async fn load(core: &Core, (run, size): (BlobId, u64)) -> Result<ZipLayout> {
    let (sender, receiver) = mpsc::channel(PIECES_WAITING);
    let feed = async move {
        let mut reader = core.contents.reader(Form::Copied);
        let mut offset = 0;
        while offset < size {
            let len = PIECE_BYTES.min(size - offset);
            let bytes = reader.read(vec![Extent::Blob { blob: run, size, offset, len }]).await?;
            offset += len;
            if sender.send(bytes).await.is_err() {
                break; // It is no list of entries: nobody reads on.
            }
        }
        Ok(())
    };
    let parse = aside("read an archive", move || {
        from_reader(Pieced { receiver, current: Bytes::new() }).ok_or_else(|| {
            tracing::error!(%run, "the manifest of an archive is damaged");
            Error::new(
                Code::DataLost,
                "The archive's list of entries is damaged. The operator has been alarmed.",
            )
        })
    });
    let (fed, parsed): (Result<()>, _) = tokio::join!(feed, parse);
    fed.and(parsed)
}

/// Bytes of a run that are read at once, and how many such pieces wait.
const PIECE_BYTES: u64 = 1 << 20;
const PIECES_WAITING: usize = 2;

/// Pieces that come from elsewhere, as something to read on a thread that may block.
struct Pieced {
    receiver: mpsc::Receiver<Bytes>,
    current: Bytes,
}

impl Read for Pieced {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            let Some(next) = self.receiver.blocking_recv() else { return Ok(0) };
            self.current = next;
        }
        let len = buffer.len().min(self.current.len());
        buffer[..len].copy_from_slice(&self.current.split_to(len));
        Ok(len)
    }
}

/// Runs what takes long for a million entries where it is in nobody's way.
pub(super) async fn aside<T: Send + 'static>(
    what: &'static str,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(Error::internal(what, error)))
}

/// Magic, the length of what follows up to the manifest, packs, blobs in pieces, a CRC-32 of these, the manifest.
fn to_bytes(layout: &ZipLayout) -> Vec<u8> {
    let mut head = Vec::new();
    let run = |out: &mut Vec<u8>, id: &BlobId, size: u64| {
        out.extend_from_slice(id.as_bytes());
        out.extend_from_slice(&size.to_le_bytes());
    };
    head.extend_from_slice(&(layout.packs.len() as u32).to_le_bytes());
    layout.packs.iter().for_each(|(id, size)| run(&mut head, id, *size));
    let mut pieces: Vec<_> = layout.pieces.iter().collect();
    pieces.sort_by_key(|(id, _)| **id);
    head.extend_from_slice(&(pieces.len() as u32).to_le_bytes());
    for (id, pieces) in pieces {
        head.extend_from_slice(id);
        head.extend_from_slice(&(pieces.runs().count() as u32).to_le_bytes());
        pieces.runs().for_each(|(id, size)| run(&mut head, &id, size));
    }
    let manifest = layout.manifest.to_bytes();
    let mut out = Vec::with_capacity(MAGIC.len() + 12 + head.len() + manifest.len());
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&(head.len() as u64).to_le_bytes());
    out.extend_from_slice(&head);
    out.extend_from_slice(&crc32fast::hash(&head).to_le_bytes());
    out.extend_from_slice(&manifest);
    out
}

fn from_reader(mut reader: impl Read) -> Option<ZipLayout> {
    let mut array = |bytes: &mut [u8]| reader.read_exact(bytes).ok();
    let (mut magic, mut len, mut crc) = ([0; 8], [0; 8], [0; 4]);
    array(&mut magic)?;
    array(&mut len)?;
    if magic != *MAGIC {
        return None;
    }
    let (len, mut head) = (u64::from_le_bytes(len), Vec::new());
    reader.by_ref().take(len).read_to_end(&mut head).ok()?;
    reader.read_exact(&mut crc).ok()?;
    if head.len() as u64 != len || crc32fast::hash(&head) != u32::from_le_bytes(crc) {
        return None;
    }
    let head = &head[..];
    let mut head = Head(head);
    let packs = head.runs()?;
    let count = head.number()?;
    let mut pieces = HashMap::new();
    for _ in 0..count {
        let id = head.id()?;
        pieces.insert(id, Arc::new(Pieces::new(head.runs()?, None)));
    }
    let manifest = Manifest::read(reader).ok()?;
    let layout = ZipLayout { manifest, pieces, packs };
    (0..layout.manifest.entries()).all(|entry| is_sound(&layout, entry)).then_some(layout)
}

/// Whether a deflated entry lies within a pack that is listed.
fn is_sound(layout: &ZipLayout, entry: usize) -> bool {
    if layout.manifest.method(entry) != Some(carrack_zip::Method::Deflate) {
        return true;
    }
    let place = layout.manifest.content(entry).map(Place::from_content);
    let end = place.and_then(|place| place.offset.checked_add(layout.manifest.compressed(entry)?));
    let size = place.and_then(|place| layout.packs.get(place.pack as usize)).map(|(_, size)| *size);
    end.is_some_and(|end| size.is_some_and(|size| end <= size))
}

/// What stands before the manifest, from the front.
struct Head<'a>(&'a [u8]);

impl Head<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    fn number(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn id(&mut self) -> Option<[u8; 16]> {
        self.array()
    }

    fn runs(&mut self) -> Option<Vec<(BlobId, u64)>> {
        let count = self.number()?;
        (0..count)
            .map(|_| Some((BlobId::from_bytes(self.id()?), u64::from_le_bytes(self.array()?))))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use carrack_zip::{ManifestBuilder, Method, NewEntry};

    fn layout() -> ZipLayout {
        let id = |n| BlobId::from_bytes([n; 16]);
        let mut builder = ManifestBuilder::new();
        let stored = NewEntry {
            name: "pieces",
            size: 30,
            compressed: 30,
            crc32: 1,
            method: Method::Store,
            modified: 0,
            content: [9; 16],
            stream: [0; 16],
            digest: [0; 32],
        };
        builder.push(stored).unwrap();
        let content = Place { pack: 1, offset: 70 }.to_content();
        let deflated =
            NewEntry { name: "packed", compressed: 20, method: Method::Deflate, content, ..stored };
        builder.push(deflated).unwrap();
        ZipLayout {
            manifest: builder.finish().unwrap(),
            pieces: HashMap::from([([9; 16], Arc::new(Pieces::new([(id(1), 10), (id(2), 20)], None)))]),
            packs: vec![(id(3), 5), (id(4), 90)],
        }
    }

    #[test]
    fn the_same_layout_comes_back() {
        use carrack_domain::rope::Layout;
        let made = layout();
        let back = from_reader(&to_bytes(&made)[..]).unwrap();
        assert_eq!((back.len(), &back.packs), (made.len(), &made.packs));
        let (mut at, mut blobs) = (0, Vec::new());
        while let Some(extent) = made.extent_at(at) {
            assert_eq!(back.extent_at(at).as_ref(), Some(&extent));
            at += extent.len();
            if let Extent::Blob { blob, offset, len, .. } = extent {
                blobs.push((blob.as_bytes()[0], offset, len));
            }
        }
        assert_eq!(blobs, [(1, 0, 10), (2, 0, 20), (4, 70, 20)]);
        assert!(back.needs(BlobId::from_bytes([9; 16])) && back.needs(BlobId::from_bytes([3; 16])));
    }

    #[test]
    fn damage_is_no_layout() {
        let bytes = to_bytes(&layout());
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 4;
            assert!(from_reader(&damaged[..]).is_none(), "byte {at}");
            assert!(from_reader(&bytes[..at]).is_none(), "cut at {at}");
        }
        let mut outside = layout();
        outside.packs[1].1 = 89;
        assert!(from_reader(&to_bytes(&outside)[..]).is_none(), "an entry beyond its pack");
    }
}
