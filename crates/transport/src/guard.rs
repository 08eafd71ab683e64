//! What comes in over HTTP/1, looked at before hyper sees it: only a head that every reader takes for the same is passed on.
//!
//! hyper is lenient where the grammar allows a recipient to be (RFC 9112 §2.2, §6.3): a bare LF ends a line, and of a
//! `Content-Length` beside a `Transfer-Encoding` the former is ignored. A proxy in front that decides otherwise would see
//! other requests than we do. So such a head is never passed on: hyper is told that the client says no more, answers what
//! came before, and closes; before it does, the client is told why.
//!
//! *Keeping pace.* To know where the next head begins, bodies are followed, by length or by chunks. Bodies are not
//! changed, and a head is copied only if it came in pieces.

mod head;

use bytes::{Buf, BytesMut};
pub(crate) use head::Refusal;
use head::{Framing, HEAD_BYTES_MAX, judge};
use tokio::io::ReadBuf;

/// Where in the stream of requests we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In a head, or before one.
    Head,
    /// So many bytes of a body are left.
    Sized(u64),
    Chunked(Chunk),
    /// Nothing more is passed on.
    Refused,
    /// Everything is.
    Open,
}

/// Where in a chunked body we are (RFC 9112 §7.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chunk {
    /// In the size, of which so much is known.
    Size {
        size: u64,
        digits: u8,
    },
    /// In an extension of the size's line.
    Extension {
        size: u64,
        bytes: u16,
    },
    /// At the LF of the size's line.
    SizeLf {
        size: u64,
    },
    Data {
        left: u64,
    },
    DataCr,
    DataLf,
    /// In a trailer section, so many bytes into one of its lines.
    Trailer {
        bytes: u16,
    },
    TrailerLf {
        was_empty: bool,
    },
}

/// The most bytes of an extension, or of a line of a trailer section.
const LINE_BYTES_MAX: u16 = 8 << 10;

/// Watches what comes in over one connection.
pub(crate) struct Guard {
    place: Place,
    /// Part of a head, or whole heads for which there was no room.
    held: BytesMut,
    /// How many bytes of `held` were judged to be good.
    good: usize,
    refusal: Option<Refusal>,
}

impl Guard {
    pub(crate) fn new() -> Guard {
        Guard { place: Place::Head, held: BytesMut::new(), good: 0, refusal: None }
    }

    /// Why nothing more is passed on; to be told to the client once.
    pub(crate) fn take_refusal(&mut self) -> Option<Refusal> {
        self.refusal.take()
    }

    /// Whether nothing more is passed on.
    pub(crate) fn has_refused(&self) -> bool {
        self.place == Place::Refused
    }

    /// What came and was not passed on: all of it, when a connection is taken from hyper.
    pub(crate) fn into_held(self) -> BytesMut {
        self.held
    }

    /// What comes from now on is no HTTP.
    pub(crate) fn open(&mut self) {
        self.place = Place::Open;
        self.good = self.held.len();
    }

    /// Passes on what was judged before and found no room; whether it was anything.
    pub(crate) fn pass_on(&mut self, buffer: &mut ReadBuf<'_>) -> bool {
        let now = self.good.min(buffer.remaining());
        buffer.put_slice(&self.held[..now]);
        self.held.advance(now);
        self.good -= now;
        now > 0
    }

    /// Judges what a read brought behind the first `before` bytes of `buffer`, and leaves in it what is passed on. Whether
    /// there is anything, or the end has come; if not, more has to be read.
    pub(crate) fn judge(&mut self, buffer: &mut ReadBuf<'_>, before: usize) -> bool {
        if buffer.filled().len() == before || self.place == Place::Open {
            return true;
        }
        if self.held.is_empty() {
            let good = self.good_bytes_of(&buffer.filled()[before..]);
            if self.place == Place::Head || self.place == Place::Refused {
                self.held.extend_from_slice(&buffer.filled()[before + good..]);
            }
            buffer.set_filled(before + good);
        } else {
            self.held.extend_from_slice(&buffer.filled()[before..]);
            buffer.set_filled(before);
            let held = std::mem::take(&mut self.held);
            self.good = self.good_bytes_of(&held);
            self.held = held;
            self.pass_on(buffer);
        }
        if self.has_refused() {
            // What came before it is passed on; the rest is nobody's.
            self.held.truncate(self.good);
        }
        buffer.filled().len() > before || self.has_refused()
    }

    /// How many bytes of these, which begin where the last good ones ended, are good.
    fn good_bytes_of(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            let used = match self.place {
                Place::Head => match self.head(rest) {
                    Some(used) => used,
                    None => break,
                },
                Place::Sized(left) => {
                    let now = left.min(rest.len() as u64);
                    self.place = if now == left { Place::Head } else { Place::Sized(left - now) };
                    now as usize
                }
                Place::Chunked(Chunk::Data { left }) => {
                    let now = left.min(rest.len() as u64);
                    let next = if now == left { Chunk::DataCr } else { Chunk::Data { left: left - now } };
                    self.place = Place::Chunked(next);
                    now as usize
                }
                Place::Chunked(chunk) => {
                    // A body that is badly framed has an end that is not one: hyper sees it broken off.
                    self.place = chunk.after(rest[0]).unwrap_or(Place::Refused);
                    usize::from(self.place != Place::Refused)
                }
                Place::Refused | Place::Open => break,
            };
            at += used;
        }
        at
    }

    /// The bytes of the head that these begin with; `None` while it is not whole, or not good.
    fn head(&mut self, bytes: &[u8]) -> Option<usize> {
        let end = match head::end(bytes) {
            Ok(end) => end,
            Err(refusal) => {
                self.refuse(refusal);
                return None;
            }
        };
        let Some(end) = end else {
            if bytes.len() > HEAD_BYTES_MAX {
                self.refuse(Refusal::TooLarge);
            }
            return None;
        };
        match judge(&bytes[..end]) {
            Ok(framing) => {
                self.place = match framing {
                    Framing::None | Framing::Length(0) => Place::Head,
                    Framing::Length(length) => Place::Sized(length),
                    Framing::Chunked => Place::Chunked(Chunk::Size { size: 0, digits: 0 }),
                };
                Some(end)
            }
            Err(refusal) => {
                self.refuse(refusal);
                None
            }
        }
    }

    fn refuse(&mut self, refusal: Refusal) {
        self.place = Place::Refused;
        self.refusal = Some(refusal);
    }
}

impl Chunk {
    /// What follows this byte; `None` when it may not stand here.
    fn after(self, byte: u8) -> Option<Place> {
        let next = match (self, byte) {
            (Chunk::Size { size, digits: 1.. }, b'\r') => Chunk::SizeLf { size },
            (Chunk::Size { size, digits: 1.. }, b';') => Chunk::Extension { size, bytes: 0 },
            (Chunk::Size { size, digits }, digit) if digits < 16 => {
                let digit = char::from(digit).to_digit(16)?;
                Chunk::Size { size: size.checked_mul(16)? + u64::from(digit), digits: digits + 1 }
            }
            (Chunk::Extension { size, .. }, b'\r') => Chunk::SizeLf { size },
            (Chunk::Extension { size, bytes }, byte) if is_text(byte) && bytes < LINE_BYTES_MAX => {
                Chunk::Extension { size, bytes: bytes + 1 }
            }
            (Chunk::SizeLf { size: 0 }, b'\n') => Chunk::Trailer { bytes: 0 },
            (Chunk::SizeLf { size }, b'\n') => Chunk::Data { left: size },
            (Chunk::DataCr, b'\r') => Chunk::DataLf,
            (Chunk::DataLf, b'\n') => Chunk::Size { size: 0, digits: 0 },
            (Chunk::Trailer { bytes }, b'\r') => Chunk::TrailerLf { was_empty: bytes == 0 },
            (Chunk::Trailer { bytes: 0 }, b' ' | b'\t') => return None,
            (Chunk::Trailer { bytes }, byte) if is_text(byte) && bytes < LINE_BYTES_MAX => {
                Chunk::Trailer { bytes: bytes + 1 }
            }
            (Chunk::TrailerLf { was_empty: true }, b'\n') => return Some(Place::Head),
            (Chunk::TrailerLf { was_empty: false }, b'\n') => Chunk::Trailer { bytes: 0 },
            _ => return None,
        };
        Some(Place::Chunked(next))
    }
}

/// What may stand in a line.
fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= 0x20 && byte != 0x7f)
}

#[cfg(test)]
mod tests;
