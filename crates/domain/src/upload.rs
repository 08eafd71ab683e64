//! The upload: what comes in. A target, a length, and a ledger of stored extents.

use crate::clock::Timestamp;
use crate::digest::{Digest, Piece};
use crate::error::{Code, Error, Result};
use crate::file::{Metadata, Precondition};
use crate::id::{BlobId, UploadId};
use crate::key::{BucketName, Key};
use std::num::NonZeroU64;

/// The most parts an upload may have: S3's limit, so that an upload can live there too.
pub const PARTS_MAX: u64 = 10_000;

/// Where the bytes will go once they are all there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The bucket.
    pub bucket: BucketName,
    /// The key in it.
    pub key: Key,
    /// The media type.
    pub content_type: String,
    /// The uploader's own facts.
    pub metadata: Metadata,
}

/// Where an upload stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UploadState {
    /// Takes bytes.
    Open,
    /// Every byte is there; the file is being published under this blob. Not visible yet, and not to be touched.
    Finishing(BlobId),
    /// The file exists. Kept until it expires, so that a repeated `complete` gets the same answer.
    Complete,
}

/// An upload session as the catalog keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    /// Its unguessable name; also names the stage with its bytes.
    pub id: UploadId,
    /// The subject who made it, and alone may use it.
    pub owner: String,
    /// What it will become.
    pub target: Target,
    /// How its bytes come in.
    pub shape: Shape,
    /// What the client said at creation, word for word.
    pub echo: Echo,
    /// Digests of the whole that the client announced.
    pub expected: Vec<Digest>,
    /// What must hold of the file that is there when it ends.
    pub precondition: Precondition,
    /// Whether it is complete only once its client says so, not as soon as it has all its bytes.
    pub told: bool,
    /// Whether the client wants to know the SHA-256 of the whole.
    pub wants_sha256: bool,
    /// Whether parts of it may have come to the storage past the server: somebody was told where to send them.
    pub direct: bool,
    /// Where it stands.
    pub state: UploadState,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it is swept unless a part arrives before.
    pub expires_at: Timestamp,
}

impl Upload {
    /// Bytes of the whole; `None` while that is not known.
    pub fn length(&self) -> Option<u64> {
        match self.shape {
            Shape::Parts(plan) => Some(plan.size()),
            Shape::Append { length, .. } | Shape::Joined { length } => length,
        }
    }

    /// Whether it becomes a piece of another upload's file instead of a file.
    pub fn is_partial(&self) -> bool {
        matches!(self.shape, Shape::Append { partial: true, .. })
    }

    /// Its plan when it comes in numbered parts; `upload_shape` otherwise.
    pub fn parts(&self) -> Result<PartPlan> {
        match self.shape {
            Shape::Parts(plan) => Ok(plan),
            Shape::Append { .. } | Shape::Joined { .. } => Err(Error::new(
                Code::UploadShape,
                "This upload does not come in numbered parts: it is continued where it was begun, under /v1/tus.",
            )),
        }
    }
}

/// How the bytes of an upload come in. Its ledger is the same in each case: extents that join to the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// As numbered parts, in any order.
    Parts(PartPlan),
    /// One after the other from the first on: the ledger is one extent that begins at 0 and grows.
    Append {
        /// Bytes of the whole; `None` until the client says.
        length: Option<u64>,
        /// It becomes a piece of a [`Shape::Joined`] upload, and no file by itself.
        partial: bool,
    },
    /// It has no bytes of its own: partial uploads, one after the other.
    Joined {
        /// Bytes of the whole, once it is complete.
        length: Option<u64>,
    },
}

/// What a client said at creation and gets back as it was, byte for byte.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Echo {
    /// tus: `Upload-Metadata`.
    pub metadata: Option<String>,
    /// tus: `Upload-Concat`.
    pub concat: Option<String>,
}

/// The most partial uploads that one may join. Each is an extent of every rope of the file, and a line of its record.
pub const PARTIALS_MAX: usize = 1_000;

/// One line of the ledger: bytes that are stored, with their digests. A line exists only once the bytes are as
/// durable as the configuration promises.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredExtent {
    /// Digests that join to those of the whole; knows where the extent begins and ends.
    pub piece: Piece,
    /// Plain BLAKE3 of the extent alone: what the client is told, and what a repeated part is compared with. Of bytes that
    /// nobody here has seen, what tells them from all others ([`StoredExtent::unseen`]).
    pub blake3: [u8; 32],
    /// What the storage said of it.
    pub receipt: Receipt,
}

impl StoredExtent {
    /// The line of bytes that came to the storage past this process: what is known of them is the storage's word.
    pub fn unseen(upload: &UploadId, piece: Piece, receipt: Receipt) -> StoredExtent {
        let mut hasher =
            blake3::Hasher::new_derive_key("carrack 2026 content that only the storage has seen");
        hasher.update(upload.as_bytes());
        hasher.update(&receipt);
        StoredExtent { piece, blake3: *hasher.finalize().as_bytes(), receipt }
    }

    /// Whether its bytes have passed here: it was acknowledged then, and what came past does not touch it.
    pub fn is_seen(&self) -> bool {
        self.piece.fragment.is_seen()
    }
}

/// What a storage says of bytes it has made durable, and wants to be told again when they are published. Nobody else reads
/// it. Empty where the stage alone says it all, as on a disk.
pub type Receipt = bytes::Bytes;

/// How a known size is cut into numbered parts: all of `part_size` but the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartPlan {
    size: u64,
    part_size: NonZeroU64,
}

impl PartPlan {
    /// A plan of at most [`PARTS_MAX`] parts. `wished` is the client's part size; without one `default` is doubled
    /// until the parts are few enough.
    pub fn new(size: u64, wished: Option<u64>, default: NonZeroU64) -> Result<PartPlan> {
        let part_size = match wished {
            None => {
                let mut part_size = default;
                while size.div_ceil(part_size.get()) > PARTS_MAX {
                    part_size = part_size.saturating_mul(NonZeroU64::MIN.saturating_add(1));
                }
                part_size
            }
            Some(wished) => NonZeroU64::new(wished).ok_or_else(|| {
                Error::new(Code::InvalidRequest, "part_size is 0: use at least 1 byte, or leave it out.")
            })?,
        };
        let plan = PartPlan { size, part_size };
        if plan.count() > PARTS_MAX {
            let least = size.div_ceil(PARTS_MAX);
            return Err(Error::new(
                Code::InvalidRequest,
                format!(
                    "part_size {part_size} makes {} parts, at most {PARTS_MAX} are allowed: use at least {least}, or leave it out.",
                    plan.count()
                ),
            ));
        }
        Ok(plan)
    }

    /// Bytes of the whole.
    pub fn size(self) -> u64 {
        self.size
    }

    /// Bytes of every part but the last.
    pub fn part_size(self) -> u64 {
        self.part_size.get()
    }

    /// How many parts; 0 for an empty file, which can be completed at once.
    pub fn count(self) -> u64 {
        self.size.div_ceil(self.part_size.get())
    }

    /// Offset and length of part `number`, counted from 1; `invalid_part` outside `1..=count`.
    pub fn extent(self, number: u64) -> Result<(u64, u64)> {
        if number == 0 || number > self.count() {
            let hint = match self.count() {
                0 => "this upload is empty and has no parts: complete it".to_owned(),
                count => format!("parts are numbered 1 to {count}"),
            };
            return Err(Error::new(Code::InvalidPart, format!("There is no part {number}: {hint}.")));
        }
        let offset = (number - 1) * self.part_size.get();
        Ok((offset, self.part_size.get().min(self.size - offset)))
    }

    /// The number of the part that begins at `offset`.
    pub fn number_at(self, offset: u64) -> u64 {
        offset / self.part_size.get() + 1
    }
}

/// Writes ascending numbers as ranges: `1-4,7`.
pub fn ranges(numbers: impl IntoIterator<Item = u64>) -> String {
    let mut text = String::new();
    let mut run: Option<(u64, u64)> = None;
    for number in numbers {
        run = match run {
            Some((first, last)) if number == last + 1 => Some((first, number)),
            other => {
                write_run(&mut text, other);
                Some((number, number))
            }
        };
    }
    write_run(&mut text, run);
    text
}

/// Reads what [`ranges`] writes, in any order, of numbers from 1 to `last`; each comes once, ascending. `invalid_part`
/// for anything else.
pub fn parse_ranges(text: &str, last: u64) -> Result<Vec<u64>> {
    let wrong = || {
        let text = text.chars().take(64).collect::<String>();
        let detail = format!(
            "'{}' are no parts of this upload: name them as 1-4,7, from 1 to {last}.",
            text.escape_default()
        );
        Error::new(Code::InvalidPart, detail)
    };
    let number = |text: &str| {
        let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        text.parse().ok().filter(|number| plain && (1..=last).contains(number)).ok_or_else(wrong)
    };
    let mut numbers = std::collections::BTreeSet::new();
    let mut work = 0;
    for run in text.split(',') {
        let (from, to) = run.split_once('-').unwrap_or((run, run));
        let (from, to): (u64, u64) = (number(from)?, number(to)?);
        work += 1 + to.saturating_sub(from);
        // Each part once or twice is a wish, a hundred times is not.
        if from > to || work > 2 * PARTS_MAX {
            return Err(wrong());
        }
        numbers.extend(from..=to);
    }
    Ok(numbers.into_iter().collect())
}

fn write_run(text: &mut String, run: Option<(u64, u64)>) {
    let Some((first, last)) = run else { return };
    if !text.is_empty() {
        text.push(',');
    }
    text.push_str(&first.to_string());
    if last > first {
        text.push('-');
        text.push_str(&last.to_string());
    }
}

/// The numbers of `1..=count` that are not in `present` (ascending), as [`ranges`].
pub fn missing(count: u64, present: impl IntoIterator<Item = u64>) -> String {
    let mut next = 1;
    let mut gaps: Vec<(u64, u64)> = Vec::new();
    for number in present {
        if number > next {
            gaps.push((next, number - 1));
        }
        next = number + 1;
    }
    if next <= count {
        gaps.push((next, count));
    }
    let mut text = String::new();
    for gap in gaps {
        write_run(&mut text, Some(gap));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB8: NonZeroU64 = NonZeroU64::new(8 << 20).unwrap();

    #[test]
    fn plan() {
        let plan = PartPlan::new(10, Some(3), MIB8).unwrap();
        assert_eq!((plan.count(), plan.extent(1).unwrap(), plan.extent(4).unwrap()), (4, (0, 3), (9, 1)));
        assert_eq!(plan.extent(5).unwrap_err().code(), Code::InvalidPart);
        assert_eq!(plan.extent(0).unwrap_err().code(), Code::InvalidPart);
        assert_eq!(PartPlan::new(0, None, MIB8).unwrap().count(), 0);
        assert!(PartPlan::new(10, Some(0), MIB8).is_err());
        assert!(PartPlan::new(10_001, Some(1), MIB8).is_err());
        assert!(PartPlan::new(u64::MAX / 2, None, MIB8).unwrap().count() <= PARTS_MAX);
    }

    #[test]
    fn ranges_and_gaps() {
        assert_eq!(ranges([1, 2, 3, 4, 7]), "1-4,7");
        assert_eq!(ranges([]), "");
        assert_eq!(parse_ranges("1-4,7", 7).unwrap(), [1, 2, 3, 4, 7]);
        assert_eq!(parse_ranges("7,2-3,3", 9).unwrap(), [2, 3, 7]);
        for bad in [
            "",
            ",",
            "0",
            "8",
            "1-8",
            "3-2",
            "1-",
            "-1",
            "1,,2",
            "+1",
            "1 ",
            "a",
            "1-2-3",
            "99999999999999999999",
        ] {
            assert_eq!(parse_ranges(bad, 7).unwrap_err().code(), Code::InvalidPart, "{bad}");
        }
        assert!(parse_ranges("1", 0).is_err());
        assert_eq!(missing(8, [1, 2, 5]), "3-4,6-8");
        assert_eq!(missing(3, []), "1-3");
        assert_eq!(missing(3, [1, 2, 3]), "");
    }
}
