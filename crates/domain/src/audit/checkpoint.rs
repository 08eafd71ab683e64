//! Checkpoints: signed statements of where a chain was, kept somewhere else. Without them whoever can write the log could cut
//! off its end, or make all of it anew.

use super::chain::{ChainId, Hash, Head};
use crate::clock::Timestamp;
use crate::id::{hex, unhex};
use serde::{Deserialize, Serialize};

/// An Ed25519 signature; hex in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Signature(pub [u8; 64]);

impl TryFrom<String> for Signature {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Signature, &'static str> {
        unhex(&text).map(Signature).ok_or("not the 128 hex digits of an Ed25519 signature")
    }
}

impl From<Signature> for String {
    fn from(signature: Signature) -> String {
        hex(&signature.0)
    }
}

/// A signed statement: the chain was there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Its number; the first is 1.
    pub checkpoint: u64,
    /// When it was made.
    pub at: Timestamp,
    /// The chain.
    pub chain: ChainId,
    /// Its last block then.
    pub block: u64,
    /// The hash of that block.
    pub hash: Hash,
    /// Whether the log may begin after that block: what was before it has been deleted in order.
    pub start: bool,
    /// The hash of the line before, without its end; zeros before the first.
    pub prev: Hash,
    /// The key that signed it.
    pub kid: String,
    /// Of [`Checkpoint::message`].
    pub signature: Signature,
}

/// Where a file of checkpoints ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Last {
    /// The number of the last one; 0 while there is none.
    pub checkpoint: u64,
    /// The hash of its line.
    pub line: Hash,
    /// The block it is about.
    pub block: u64,
}

impl Default for Last {
    fn default() -> Last {
        Last { checkpoint: 0, line: super::chain::GENESIS, block: 0 }
    }
}

impl Checkpoint {
    /// The next one, about this head, not signed yet.
    pub fn after(last: &Last, head: &Head, start: bool, at: Timestamp, kid: String) -> Checkpoint {
        Checkpoint {
            checkpoint: last.checkpoint + 1,
            at,
            chain: head.chain,
            block: head.block,
            hash: head.hash,
            start,
            prev: last.line,
            kid,
            signature: Signature([0; 64]),
        }
    }

    /// What is signed: these lines, each with its end: `carrack/audit/checkpoint/v1`, checkpoint, at, chain, block, hash,
    /// start, prev, kid, as they stand in its JSON.
    pub fn message(&self) -> Vec<u8> {
        let Checkpoint { checkpoint, at, chain, block, hash, start, prev, kid, .. } = self;
        format!(
            "carrack/audit/checkpoint/v1\n{checkpoint}\n{at}\n{chain}\n{block}\n{hash}\n{start}\n{prev}\n{kid}\n"
        )
        .into_bytes()
    }

    /// Its line, without the line's end.
    pub fn line(&self) -> String {
        // Numbers and text only: there is nothing that JSON could not hold.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The checkpoint that a line is; `None` when it is none, such as what a crash left of one.
    pub fn parse(line: &str) -> Option<Checkpoint> {
        serde_json::from_str(line).ok()
    }

    /// A file ends with it.
    pub fn last(&self) -> Last {
        Last { checkpoint: self.checkpoint, line: Hash::of(self.line().as_bytes()), block: self.block }
    }
}
