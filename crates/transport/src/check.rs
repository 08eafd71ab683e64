//! The writer against a plain reference: random ropes, random slices of them, random behaviour of both ends of a socket.
//!
//! [`Case::of`] makes a case of any bytes, so that a fuzzer, which looks for bytes that take new paths, and a property
//! test, which makes them up, run the very same. Its files are in memory, since the disk is not the matter.

use crate::connection::Connection;
use bytes::Bytes;
use carrack_mapped::MappedFile;
use rustix::fs::MemfdFlags;
use socket2::SockRef;
use std::fs::File;
use std::future::poll_fn;
use std::io::{self, IoSlice, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// A transfer that takes longer stands still for ever: a case is over in milliseconds.
const PATIENCE: Duration = Duration::from_secs(20);
/// Slices offered at once: as many as the HTTP library offers.
const SLICES_MAX: usize = 64;
const PIECES_MAX: usize = 40;
const FILE_BYTES: usize = 200_000;
/// Where lengths change what happens: pages, what the kernel takes as one piece, what a small socket buffer holds.
const LENGTHS: [usize; 8] = [0, 1, 100, 2304, 4096, 4609, 16_385, 70_000];

/// Numbers out of bytes; 0 when they are used up.
struct Dice<'a>(&'a [u8]);

impl Dice<'_> {
    fn below(&mut self, bound: usize) -> usize {
        let Some((high, rest)) = self.0.split_first() else { return 0 };
        let (low, rest) = rest.split_first().unwrap_or((&0, rest));
        self.0 = rest;
        (usize::from(*high) << 8 | usize::from(*low)) % bound.max(1)
    }
}

/// One piece of a rope.
#[derive(Debug, Clone)]
enum Piece {
    /// So many bytes made here.
    Inline(usize),
    /// So many bytes at an offset of a file.
    Mapped { file: usize, offset: usize, len: usize },
}

/// A rope, and how it is written and read.
#[derive(Debug, Clone)]
pub struct Case {
    pieces: Vec<Piece>,
    /// Bytes that each file really has; what is promised beyond them is missing.
    files: Vec<usize>,
    /// For each write in turn: how many slices are offered, and how many bytes the last of them is short of.
    offers: Vec<(usize, usize)>,
    /// For each read in turn: at most so many bytes.
    reads: Vec<usize>,
    send_buffer: usize,
    receive_buffer: usize,
    /// The client goes away after so many bytes.
    leaves_after: Option<usize>,
}

impl Case {
    /// The case that these bytes stand for; any bytes stand for one.
    pub fn of(bytes: &[u8]) -> Case {
        let dice = &mut Dice(bytes);
        let small = |dice: &mut Dice<'_>| [0, 1, 4 << 10, 64 << 10][dice.below(4)];
        let (send_buffer, receive_buffer) = (small(dice), small(dice));
        let count = 1 + dice.below(3);
        let cut = |dice: &mut Dice<'_>| if dice.below(8) == 1 { dice.below(FILE_BYTES) } else { FILE_BYTES };
        let files: Vec<usize> = (0..count).map(|_| cut(dice)).collect();
        let offers =
            (0..=dice.below(6)).map(|_| (1 + dice.below(SLICES_MAX), dice.below(3) * dice.below(5000)));
        let offers = offers.collect();
        let most = |dice: &mut Dice<'_>| [1, 300, 5000, 65_535][dice.below(4)];
        let mut reads = Vec::new();
        for _ in 0..=dice.below(4) {
            let most = most(dice);
            reads.push(1 + dice.below(most));
        }
        let leaves_after = (dice.below(8) == 1).then(|| dice.below(65_535));
        let pieces = (0..1 + dice.below(PIECES_MAX)).map(|_| piece(dice, count)).collect();
        Case { pieces, files, offers, reads, send_buffer, receive_buffer, leaves_after }
    }

    /// The rope written plainly, and whether that is all of it: what is missing in a file ends it.
    fn reference(&self) -> (Vec<u8>, bool) {
        let mut all = Vec::new();
        for (index, piece) in self.pieces.iter().enumerate() {
            match *piece {
                Piece::Inline(len) => all.extend((0..len).map(|at| inline_byte(index, at))),
                Piece::Mapped { file, offset, len } => {
                    let there = self.files[file].saturating_sub(offset).min(len);
                    all.extend((offset..offset + there).map(|at| file_byte(file, at)));
                    if there < len {
                        return (all, false);
                    }
                }
            }
        }
        (all, true)
    }

    /// The rope as it is handed to the writer.
    fn rope(&self) -> io::Result<Vec<Bytes>> {
        let open = |(file, len): (usize, &usize)| {
            let mut memory = File::from(rustix::fs::memfd_create("piece", MemfdFlags::CLOEXEC)?);
            memory.write_all(&(0..*len).map(|at| file_byte(file, at)).collect::<Vec<u8>>())?;
            MappedFile::new(memory, FILE_BYTES as u64)
        };
        let files: Vec<Arc<MappedFile>> =
            self.files.iter().enumerate().map(open).collect::<io::Result<_>>()?;
        let bytes = |(index, piece): (usize, &Piece)| match *piece {
            Piece::Inline(len) => Ok((0..len).map(|at| inline_byte(index, at)).collect()),
            // Cut out of a larger run, as ranges and the HTTP library do.
            Piece::Mapped { file, offset, len } => {
                let rest = files[file].bytes(offset as u64, (FILE_BYTES - offset) as u64)?;
                Ok(rest.slice(..len))
            }
        };
        self.pieces.iter().enumerate().map(bytes).collect()
    }

    /// Sends the rope through the writer and says what was wrong with what arrived.
    pub async fn run(&self) -> Result<(), String> {
        let talk = async {
            let (near, far) = self.connect().await.map_err(|error| format!("connect: {error}"))?;
            let connection = Connection::new(near, Arc::default(), PATIENCE);
            Ok::<_, String>(tokio::join!(self.write(connection), self.read(far)))
        };
        let (written, read) = match tokio::time::timeout(PATIENCE, talk).await {
            Ok(ended) => ended?,
            Err(_) => return Err("the transfer stands still".to_owned()),
        };
        let got = read.map_err(|error| format!("read: {error}"))?;
        let (expected, whole) = self.reference();
        if self.leaves_after.is_some_and(|after| after < expected.len()) {
            // The writer may fail or be done before it notices; what arrived before has to be right.
            return if expected.starts_with(&got) { Ok(()) } else { Err(difference(&expected, &got)) };
        }
        match (whole, written) {
            _ if got != expected => Err(difference(&expected, &got)),
            (true, Ok(sent)) if sent == expected.len() => Ok(()),
            (false, Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(()),
            (whole, written) => Err(format!("all there: {whole}, but the writer says {written:?}")),
        }
    }

    async fn connect(&self) -> io::Result<(TcpStream, TcpStream)> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let client = TcpSocket::new_v4()?;
        if self.receive_buffer > 0 {
            SockRef::from(&client).set_recv_buffer_size(self.receive_buffer)?;
        }
        let far = client.connect(listener.local_addr()?).await?;
        let (near, _) = listener.accept().await?;
        near.set_nodelay(true)?;
        if self.send_buffer > 0 {
            SockRef::from(&near).set_send_buffer_size(self.send_buffer)?;
        }
        Ok((near, far))
    }

    /// Writes the rope the way the HTTP library does: the slices that come next, and after each write what is left.
    async fn write(&self, mut connection: Connection) -> io::Result<usize> {
        let mut rope = self.rope()?;
        let mut sent = 0;
        for (count, short) in self.offers.iter().cycle() {
            rope.retain(|piece| !piece.is_empty());
            if rope.is_empty() {
                break;
            }
            let mut slices: Vec<&[u8]> = rope.iter().take(*count).map(|piece| &piece[..]).collect();
            if let Some(last) = slices.last_mut() {
                *last = &last[..last.len().saturating_sub(*short).max(1)];
            }
            let slices: Vec<IoSlice<'_>> = slices.into_iter().map(IoSlice::new).collect();
            let offered: usize = slices.iter().map(|slice| slice.len()).sum();
            let mut taken =
                poll_fn(|context| Pin::new(&mut connection).poll_write_vectored(context, &slices)).await?;
            if taken == 0 || taken > offered {
                return Err(io::Error::other(format!("{taken} of {offered} bytes taken")));
            }
            sent += taken;
            for piece in &mut rope {
                let now = taken.min(piece.len());
                taken -= now;
                // The addresses of what is left are looked up anew.
                *piece = piece.slice(now..);
            }
            // Both ends get their turns, whoever is faster.
            yielded().await;
        }
        // The client sees the end, and the writer does not wait for it to say goodbye.
        drop(connection);
        Ok(sent)
    }

    async fn read(&self, mut far: TcpStream) -> io::Result<Vec<u8>> {
        let mut got = Vec::new();
        let mut buffer = vec![0; 1 << 16];
        for most in self.reads.iter().cycle() {
            match far.read(&mut buffer[..*most]).await? {
                0 => break,
                count => got.extend_from_slice(&buffer[..count]),
            }
            if self.leaves_after.is_some_and(|after| got.len() >= after) {
                far.shutdown().await?;
                break;
            }
        }
        Ok(got)
    }
}

fn piece(dice: &mut Dice<'_>, files: usize) -> Piece {
    let len = LENGTHS[dice.below(LENGTHS.len())];
    let len = if dice.below(2) == 0 { len } else { dice.below(len + 1) };
    if dice.below(2) == 0 {
        return Piece::Inline(len);
    }
    let page = 4096 * dice.below(FILE_BYTES / 4096);
    let offset = if dice.below(2) == 0 { page } else { dice.below(FILE_BYTES) };
    Piece::Mapped { file: dice.below(files), offset, len: len.min(FILE_BYTES - offset) }
}

/// Bytes that tell where they belong: neighbours, pages and pieces differ.
fn byte(of: usize, at: usize) -> u8 {
    (of.wrapping_mul(0x9e37_79b1) ^ at.wrapping_mul(0x85eb_ca6b) >> 7) as u8
}

fn inline_byte(piece: usize, at: usize) -> u8 {
    byte(piece + 1000, at)
}

fn file_byte(file: usize, at: usize) -> u8 {
    byte(file, at)
}

fn difference(expected: &[u8], got: &[u8]) -> String {
    let at = expected.iter().zip(got).position(|(one, other)| one != other);
    let at = at.unwrap_or_else(|| expected.len().min(got.len()));
    format!("{} bytes came instead of {}; they part at {at}", got.len(), expected.len())
}

async fn yielded() {
    let mut ready = false;
    poll_fn(|context| {
        if std::mem::replace(&mut ready, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(150))]

        #[test]
        fn what_arrives_is_what_the_reference_writes(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let case = Case::of(&bytes);
            if let Err(fault) = runtime.block_on(case.run()) {
                return Err(TestCaseError::fail(format!("{fault}: {case:?}")));
            }
        }
    }

    /// The generator makes what it is for: without these the property would hold of too little.
    #[test]
    fn cases_are_of_every_kind() {
        let (whole, broken, left, mixed) =
            (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
        let mut runner = proptest::test_runner::TestRunner::deterministic();
        let bytes = proptest::collection::vec(any::<u8>(), 0..400);
        runner
            .run(&bytes, |bytes| {
                let case = Case::of(&bytes);
                let kind = match case.reference().1 {
                    _ if case.leaves_after.is_some() => &left,
                    true => &whole,
                    false => &broken,
                };
                kind.fetch_add(1, Ordering::Relaxed);
                let inline = case.pieces.iter().any(|piece| matches!(piece, Piece::Inline(len) if *len > 0));
                let file =
                    case.pieces.iter().any(|piece| matches!(piece, Piece::Mapped { len, .. } if *len > 0));
                mixed.fetch_add(usize::from(inline && file && case.send_buffer > 0), Ordering::Relaxed);
                Ok(())
            })
            .unwrap();
        for kind in [whole, broken, left, mixed] {
            assert!(kind.into_inner() >= 10);
        }
    }
}
