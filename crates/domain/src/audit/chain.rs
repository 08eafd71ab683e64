//! Blocks of lines, each bound to the one before: whoever changes a byte, or takes a block out, or puts one in, has to
//! make all later ones anew.

use crate::clock::Timestamp;
use crate::id::{hex, unhex};
use serde::{Deserialize, Serialize};

/// What the first block names as the hash before it.
pub const GENESIS: Hash = Hash([0; 32]);

/// A BLAKE3 hash; hex in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// Of these bytes.
    pub fn of(bytes: &[u8]) -> Hash {
        Hash(*blake3::hash(bytes).as_bytes())
    }
}

impl std::fmt::Display for Hash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl TryFrom<String> for Hash {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Hash, &'static str> {
        unhex(&text).map(Hash).ok_or("not the 64 hex digits of a BLAKE3 hash")
    }
}

impl From<Hash> for String {
    fn from(hash: Hash) -> String {
        hash.to_string()
    }
}

/// Names a chain: a server's log has one. Hex in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ChainId(pub [u8; 16]);

impl std::fmt::Display for ChainId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl TryFrom<String> for ChainId {
    type Error = &'static str;

    fn try_from(text: String) -> Result<ChainId, &'static str> {
        unhex(&text).map(ChainId).ok_or("not the 32 hex digits of a chain")
    }
}

impl From<ChainId> for String {
    fn from(chain: ChainId) -> String {
        chain.to_string()
    }
}

/// What a block says of itself, and its hash. As JSON it is the line before the block's own in an export.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Its number in its chain; the first is 1.
    pub block: u64,
    /// The chain.
    pub chain: ChainId,
    /// The hash of the block before.
    pub prev: Hash,
    /// No record in it is later, and no block before it has a later one.
    pub at: Timestamp,
    /// How many lines it has.
    pub records: u64,
    /// The hash of its lines, their ends included.
    pub content: Hash,
    /// The hash of all of the above, see [`Header::hash`].
    pub hash: Hash,
}

/// Where a chain ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The chain.
    pub chain: ChainId,
    /// The number of its last block; 0 while there is none.
    pub block: u64,
    /// The hash of that block.
    pub hash: Hash,
    /// Its time.
    pub at: Timestamp,
}

impl Head {
    /// Of a chain without a block.
    pub const fn new(chain: ChainId) -> Head {
        Head { chain, block: 0, hash: GENESIS, at: Timestamp::from_millis(0) }
    }

    /// The block that comes next, with lines of this hash.
    pub fn next(&self, content: Hash, records: u64, at: Timestamp) -> Header {
        let mut header = Header {
            block: self.block + 1,
            chain: self.chain,
            prev: self.hash,
            at: at.max(self.at),
            records,
            content,
            hash: GENESIS,
        };
        header.hash = header.hash();
        header
    }
}

impl Header {
    /// The hash that belongs to what it says of itself: BLAKE3 of these lines, each with its end:
    /// `carrack/audit/block/v1`, chain, block, prev, at, records, content, as they stand in its JSON.
    pub fn hash(&self) -> Hash {
        let Header { block, chain, prev, at, records, content, .. } = self;
        let text = format!("carrack/audit/block/v1\n{chain}\n{block}\n{prev}\n{at}\n{records}\n{content}\n");
        Hash::of(text.as_bytes())
    }

    /// The chain ends with it.
    pub fn head(&self) -> Head {
        Head { chain: self.chain, block: self.block, hash: self.hash, at: self.at }
    }

    /// Its line in an export, with the line's end.
    pub fn line(&self) -> String {
        // Numbers and text only: there is nothing that JSON could not hold.
        serde_json::to_string(self).unwrap_or_default() + "\n"
    }

    /// The header that a line of an export is; `None` for a record's.
    pub fn parse(line: &[u8]) -> Option<Header> {
        line.starts_with(b"{\"block\":").then(|| serde_json::from_slice(line).ok()).flatten()
    }
}
