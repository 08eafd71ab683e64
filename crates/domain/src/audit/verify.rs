//! Proves that a log is whole: that nothing in it was changed, taken out, put in or moved, and that its end is where the
//! checkpoints say it was.

use super::chain::{ChainId, GENESIS, Hash, Head, Header};
use super::checkpoint::Checkpoint;
use super::record::Fields;
use crate::clock::Timestamp;
use std::collections::BTreeMap;
use std::fmt;

/// The action of the record that says that a checkpoint was made.
pub const CHECKPOINT: &str = "audit.checkpoint";

/// What is known of a checkpoint's signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signed {
    /// It is good.
    Good,
    /// It is not.
    Bad,
    /// The key is not known.
    Unknown,
}

/// What is wrong with a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// A block's lines are not those that were written.
    Altered(u64),
    /// What a block says of itself was changed.
    HeaderAltered(u64),
    /// A block is not in its place: the one before it is another, or of another chain.
    Misplaced(u64),
    /// Blocks are missing, from the first to the last.
    Missing(u64, u64),
    /// The log begins with this block, and no checkpoint says that those before it were deleted in order.
    NoBeginning(u64),
    /// A checkpoint contradicts the block it is about.
    Contradicted {
        /// The checkpoint.
        checkpoint: u64,
        /// The block.
        block: u64,
    },
    /// The log ends before a block that a checkpoint is about.
    Cut {
        /// The checkpoint.
        checkpoint: u64,
        /// The block it is about.
        block: u64,
        /// The last block there is.
        last: u64,
    },
    /// The log says that a checkpoint was made, which is not in the file, or is another there.
    CheckpointLost(u64),
    /// A checkpoint does not follow on the one before it in the file.
    CheckpointMisplaced(u64),
    /// A checkpoint's signature is not good.
    BadSignature(u64),
    /// A checkpoint was signed by a key that is not known.
    UnknownKey {
        /// The checkpoint.
        checkpoint: u64,
        /// The key.
        kid: String,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Finding::Altered(block) => write!(f, "block {block}: its records were altered"),
            Finding::HeaderAltered(block) => write!(f, "block {block}: its header was altered"),
            Finding::Misplaced(block) => {
                write!(f, "block {block}: it does not follow on the block before it")
            }
            Finding::Missing(first, last) => write!(f, "blocks {first} to {last}: missing"),
            Finding::NoBeginning(block) => {
                write!(f, "block {block}: the log begins here, and no checkpoint allows that")
            }
            Finding::Contradicted { checkpoint, block } => {
                write!(f, "block {block}: checkpoint {checkpoint} is about another one")
            }
            Finding::Cut { checkpoint, block, last } => {
                write!(
                    f,
                    "block {last}: the log ends here, but checkpoint {checkpoint} has seen block {block}"
                )
            }
            Finding::CheckpointLost(checkpoint) => {
                write!(f, "checkpoint {checkpoint}: the log names it, the file does not have it")
            }
            Finding::CheckpointMisplaced(checkpoint) => {
                write!(f, "checkpoint {checkpoint}: it does not follow on the line before it")
            }
            Finding::BadSignature(checkpoint) => {
                write!(f, "checkpoint {checkpoint}: its signature is not good")
            }
            Finding::UnknownKey { checkpoint, kid } => {
                write!(f, "checkpoint {checkpoint}: the key {kid} is not known: give it with --key")
            }
        }
    }
}

/// What a look through a log has shown.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// The chain.
    pub chain: Option<ChainId>,
    /// The first block and the last.
    pub blocks: Option<(u64, u64)>,
    /// How many records there are.
    pub records: u64,
    /// The time of the last block.
    pub at: Option<Timestamp>,
    /// How many checkpoints there are.
    pub checkpoints: u64,
    /// The last block that a checkpoint vouches for.
    pub vouched: u64,
    /// What is wrong: the first [`FINDINGS_MAX`] things.
    pub findings: Vec<Finding>,
}

/// The most findings that are told: a log that was made anew has one for each block.
pub const FINDINGS_MAX: usize = 100;

/// Looks through a log, a block after the other.
pub struct Verifier {
    /// By number: the hashes of their lines. Each node of several counts its own, in a file of its own.
    lines: BTreeMap<u64, Vec<Hash>>,
    /// The first number of each file.
    firsts: Vec<u64>,
    /// By block.
    by_block: BTreeMap<u64, Vec<Checkpoint>>,
    last: Option<Head>,
    report: Report,
}

impl Verifier {
    /// With the files of checkpoints, the lines of each in order, and who knows of signatures. What is no checkpoint among
    /// them is passed over: a crash leaves such a line, and a line that was made unreadable is missed by the one after it.
    pub fn new<'t, F: Iterator<Item = &'t str>>(
        files: impl IntoIterator<Item = F>,
        signed: impl Fn(&Checkpoint) -> Signed,
    ) -> Verifier {
        let mut verifier = Verifier {
            lines: BTreeMap::new(),
            firsts: Vec::new(),
            by_block: BTreeMap::new(),
            last: None,
            report: Report::default(),
        };
        for file in files {
            verifier.file(file, &signed);
        }
        verifier
    }

    fn file<'t>(&mut self, lines: impl Iterator<Item = &'t str>, signed: impl Fn(&Checkpoint) -> Signed) {
        let mut before: Option<(u64, Hash)> = None;
        for line in lines {
            let Some(checkpoint) = Checkpoint::parse(line) else { continue };
            let number = checkpoint.checkpoint;
            let follows = match before {
                Some((last, hash)) => number == last + 1 && checkpoint.prev == hash,
                None => number > 1 || checkpoint.prev == GENESIS,
            };
            if !follows {
                self.found(Finding::CheckpointMisplaced(number));
            }
            let hash = Hash::of(line.as_bytes());
            if before.replace((number, hash)).is_none() {
                self.firsts.push(number);
            }
            self.lines.entry(number).or_default().push(hash);
            self.report.checkpoints += 1;
            match signed(&checkpoint) {
                Signed::Good => self.by_block.entry(checkpoint.block).or_default().push(checkpoint),
                Signed::Bad => self.found(Finding::BadSignature(number)),
                Signed::Unknown => {
                    self.found(Finding::UnknownKey { checkpoint: number, kid: checkpoint.kid })
                }
            }
        }
    }

    fn found(&mut self, finding: Finding) {
        if self.report.findings.len() < FINDINGS_MAX {
            self.report.findings.push(finding);
        }
    }

    /// The next block, with its lines.
    pub fn block(&mut self, header: &Header, text: &[u8]) {
        let number = header.block;
        match self.last {
            None => self.begin(header),
            Some(last) if number > last.block + 1 => self.found(Finding::Missing(last.block + 1, number - 1)),
            Some(last) => {
                let follows =
                    number == last.block + 1 && header.prev == last.hash && header.chain == last.chain;
                if !follows {
                    self.found(Finding::Misplaced(number));
                }
            }
        }
        if header.hash() != header.hash {
            self.found(Finding::HeaderAltered(number));
        }
        let lines = text.split_inclusive(|byte| *byte == b'\n');
        let count = lines.clone().count() as u64;
        if Hash::of(text) != header.content || count != header.records {
            self.found(Finding::Altered(number));
        }
        for line in lines.filter(|line| mentions_checkpoint(line)) {
            self.mentioned(line);
        }
        self.compare(header);
        self.last = Some(header.head());
        self.report.records += count;
        self.report.at = Some(header.at);
        self.report.blocks = Some((self.report.blocks.map_or(number, |(first, _)| first), number));
    }

    fn begin(&mut self, header: &Header) {
        self.report.chain = Some(header.chain);
        let allowed = |checkpoint: &Checkpoint| {
            checkpoint.start && checkpoint.chain == header.chain && checkpoint.hash == header.prev
        };
        let begins = match header.block.checked_sub(1) {
            Some(0) => header.prev == GENESIS,
            Some(before) => self.by_block.get(&before).is_some_and(|those| those.iter().any(allowed)),
            None => false,
        };
        if !begins {
            self.found(Finding::NoBeginning(header.block));
        }
        if header.block == 1 {
            for first in std::mem::take(&mut self.firsts).into_iter().filter(|first| *first > 1) {
                self.found(Finding::CheckpointLost(first - 1));
            }
        }
    }

    fn mentioned(&mut self, line: &[u8]) {
        let Some(Fields { count: Some(number), version: Some(hash), .. }) = Fields::parse(line) else {
            return;
        };
        let known = self.lines.get(&number).into_iter().flatten();
        if !known.into_iter().any(|known| known.to_string() == hash) {
            self.found(Finding::CheckpointLost(number));
        }
    }

    /// Compares a block with the checkpoints that are about it.
    fn compare(&mut self, header: &Header) {
        let block = header.block;
        for checkpoint in self.by_block.get(&block).cloned().unwrap_or_default() {
            if checkpoint.hash == header.hash && checkpoint.chain == header.chain {
                self.report.vouched = block;
            } else {
                self.found(Finding::Contradicted { checkpoint: checkpoint.checkpoint, block });
            }
        }
    }

    /// What has been found, once there are no more blocks.
    pub fn finish(mut self) -> Report {
        let last = self.last.map_or(0, |last| last.block);
        let beyond = self.by_block.range(last + 1..).next_back();
        let cut = beyond.and_then(|(block, those)| Some((*block, those.first()?.checkpoint)));
        if let Some((block, checkpoint)) = cut {
            self.found(Finding::Cut { checkpoint, block, last });
        }
        self.report
    }
}

/// Whether a line is about a checkpoint: looked at before it is read, as most are not.
fn mentions_checkpoint(line: &[u8]) -> bool {
    const BEGINNING: usize = "{\"at\":\"2023-11-14T22:13:20.123Z".len();
    let rest =
        line.get(BEGINNING..).and_then(|rest| rest.strip_prefix(b"\",\"kind\":\"note\",\"action\":\""));
    rest.is_some_and(|rest| rest.starts_with(CHECKPOINT.as_bytes()))
}

#[cfg(test)]
mod tests;
