//! Links: ways to the content of one file or archive for whoever has them, and the uses of those that are counted.

use crate::access::Role;
use crate::archive::Archive;
use crate::clock::Timestamp;
use crate::etag::ETag;
use crate::file::File;
use crate::id::{ArchiveId, ClaimId, LinkId};
use crate::policy::AddressRange;
use std::net::IpAddr;
use std::num::NonZeroU64;
use std::time::Duration;

/// How long a use may take.
pub const CLAIM_TIME: Duration = Duration::from_secs(24 * 3600);
/// How long a use stays open once every byte was delivered: what was on its way then may be asked for again.
pub const CLAIM_GRACE: Duration = Duration::from_secs(60);
/// Bytes that may have been on their way when a connection broke: what the kernels of both ends hold.
const ON_THE_WAY: u64 = 8 << 20;

/// Bytes that may be sent once more of a small file, which is on its way as a whole before anybody can tell whether it
/// arrives.
const SENT_AGAIN: u64 = 2 << 20;

/// How many times the file may be given back in all because connections broke: a download over sixteen of them that is cut
/// and resumed nine times is still one.
const GIVEN_BACK_MAX: u64 = 10;

/// What a link is to: content as it was when the link was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A file's.
    File(File),
    /// An archive's.
    Archive(LinkedArchive),
}

/// An archive as a link knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkedArchive {
    /// Which one.
    pub id: ArchiveId,
    /// The name of the download, with the ending of its kind.
    pub name: String,
    /// Bytes of the ZIP.
    pub size: u64,
    /// Its tag.
    pub etag: ETag,
}

impl LinkedArchive {
    /// A completed archive; `None` of another.
    pub fn of(archive: &Archive) -> Option<LinkedArchive> {
        let content = archive.content.as_ref()?;
        let etag = ETag::new(&content.etag)?;
        Some(LinkedArchive { id: archive.id, name: archive.file_name(), size: content.size, etag })
    }
}

impl Target {
    /// The name that a download is saved under, unless the link has one of its own.
    pub fn file_name(&self) -> &str {
        match self {
            Target::File(file) => file.key.file_name(),
            Target::Archive(archive) => &archive.name,
        }
    }

    /// Bytes of the content.
    pub fn size(&self) -> u64 {
        match self {
            Target::File(file) => file.blob.size,
            Target::Archive(archive) => archive.size,
        }
    }

    /// The content's tag.
    pub fn etag(&self) -> ETag {
        match self {
            Target::File(file) => file.etag(),
            Target::Archive(archive) => archive.etag.clone(),
        }
    }
}

/// A link as the catalog keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Names it; not the link itself.
    pub id: LinkId,
    /// Who made it, and on whose behalf it is used.
    pub owner: String,
    /// Their role then.
    pub role: Role,
    /// The content that it is to.
    pub target: Target,
    /// When it ends.
    pub expires_at: Timestamp,
    /// When it begins.
    pub not_before: Option<Timestamp>,
    /// How many uses it has; `None` for any number.
    pub max_downloads: Option<u64>,
    /// How many were made.
    pub uses: u64,
    /// From where only.
    pub ip: Option<AddressRange>,
    /// What has to be known, as an argon2 string.
    pub password: Option<String>,
    /// The name a download is saved under.
    pub filename: Option<String>,
    /// Bytes per second, over all connections.
    pub rate_limit: Option<NonZeroU64>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
    /// When it was used last.
    pub last_used_at: Option<Timestamp>,
}

/// One use of a counted link: everything sent under it is one download, however often it is resumed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkClaim {
    /// Its unguessable name.
    pub id: ClaimId,
    /// Of which link.
    pub link: LinkId,
    /// From where it was claimed.
    pub address: Option<IpAddr>,
    /// When.
    pub created_at: Timestamp,
    /// When it ends, whatever was delivered.
    pub deadline: Timestamp,
    /// Bytes sent, as far as they count.
    pub sent: u64,
    /// Bytes that were on their way when connections broke, and do not count.
    pub forgiven: u64,
    /// What was delivered: offsets from and to, ascending, with gaps between.
    pub covered: Vec<(u64, u64)>,
    /// When everything had been.
    pub done_at: Option<Timestamp>,
}

impl LinkClaim {
    /// A use that begins now.
    pub fn new(id: ClaimId, link: LinkId, address: Option<IpAddr>, now: Timestamp) -> LinkClaim {
        LinkClaim {
            id,
            link,
            address,
            created_at: now,
            deadline: now.after(CLAIM_TIME),
            sent: 0,
            forgiven: 0,
            covered: Vec::new(),
            done_at: None,
        }
    }

    /// Whether it may still be used at `now`.
    pub fn is_open(&self, now: Timestamp) -> bool {
        now < self.deadline && self.done_at.is_none_or(|done| now < done.after(CLAIM_GRACE))
    }

    /// Whether `len` bytes more may be sent of a file of `size`: one and a half times the file in all.
    pub fn has_room(&self, len: u64, size: u64) -> bool {
        let most = size.saturating_add(SENT_AGAIN.max(size / 2));
        self.sent.saturating_add(len) <= most
    }

    /// Counts `len` bytes about to be sent, if there is room for them.
    pub fn take(&mut self, len: u64, size: u64) -> bool {
        let room = self.has_room(len, size);
        if room {
            self.sent += len;
        }
        room
    }

    /// Notes that `len` bytes from `offset` were sent of a file of `size`. When the connection broke off, the last of them
    /// may never have arrived: those are not taken as delivered, and within bounds they do not count.
    pub fn ended(&mut self, offset: u64, len: u64, size: u64, whole: bool, now: Timestamp) {
        let delivered = if whole { len } else { len.saturating_sub(ON_THE_WAY) };
        let back = (len - delivered)
            .min(size.saturating_mul(GIVEN_BACK_MAX).saturating_sub(self.forgiven))
            .min(self.sent);
        self.sent -= back;
        self.forgiven += back;
        self.cover(offset, offset + delivered);
        if self.done_at.is_none() && (size == 0 && whole || self.covered == [(0, size)]) {
            self.done_at = Some(now);
        }
    }

    /// Takes in what other nodes have written down of a use, of a file of `size`, since `base`, which all of them knew. What
    /// was counted here since then is added to it.
    pub fn learn(&mut self, base: &LinkClaim, stored: &LinkClaim, size: u64, now: Timestamp) {
        // Less than before when bytes were given back.
        self.sent = stored.sent.saturating_add(self.sent).saturating_sub(base.sent);
        self.forgiven = stored.forgiven.saturating_add(self.forgiven).saturating_sub(base.forgiven);
        for (from, to) in &stored.covered {
            self.cover(*from, *to);
        }
        self.done_at = match (self.done_at, stored.done_at) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        if self.done_at.is_none() && size > 0 && self.covered == [(0, size)] {
            self.done_at = Some(now);
        }
    }

    /// Whether all that was delivered by `other` was delivered by this.
    pub fn covers(&self, other: &LinkClaim) -> bool {
        let is_in = |(from, to): &(u64, u64)| self.covered.iter().any(|(a, b)| a <= from && to <= b);
        other.covered.iter().all(is_in)
    }

    fn cover(&mut self, from: u64, to: u64) {
        if from >= to {
            return;
        }
        self.covered.push((from, to));
        self.covered.sort_unstable();
        let mut joined: Vec<(u64, u64)> = Vec::with_capacity(self.covered.len());
        for (from, to) in self.covered.drain(..) {
            match joined.last_mut() {
                Some(last) if last.1 >= from => last.1 = last.1.max(to),
                _ => joined.push((from, to)),
            }
        }
        self.covered = joined;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MIB: u64 = 1 << 20;

    fn claim() -> LinkClaim {
        let now = Timestamp::from_millis(0);
        LinkClaim::new(ClaimId::from_bytes([1; 16]), LinkId::from_bytes([2; 16]), None, now)
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    #[test]
    fn a_use_ends_a_minute_after_the_last_byte_or_with_its_day() {
        let mut claim = claim();
        assert!(claim.take(10, 10));
        claim.ended(0, 6, 10, true, at(5));
        assert!(claim.is_open(at(24 * 3600 - 1)) && !claim.is_open(at(24 * 3600)));
        claim.ended(6, 4, 10, true, at(7));
        assert_eq!(claim.done_at, Some(at(7)));
        assert!(claim.is_open(at(66)) && !claim.is_open(at(67)));
        claim.ended(0, 10, 10, true, at(9));
        assert_eq!(claim.done_at, Some(at(7)), "once is enough");
        let mut empty = super::tests::claim();
        empty.ended(0, 0, 0, true, at(1));
        assert_eq!(empty.done_at, Some(at(1)));
    }

    #[test]
    fn no_more_than_one_and_a_half_times_is_sent() {
        let size = 64 * MIB;
        let mut claim = claim();
        assert!(claim.take(size, size) && claim.take(32 * MIB, size) && !claim.take(1, size));
        claim.ended(0, 96 * MIB, size, true, at(0));
        assert!(!claim.take(1, size), "what arrived counts for good");
        let mut small = super::tests::claim();
        assert!(small.take(10, 10) && small.take(2 * MIB, 10) && !small.take(1, 10));
    }

    #[test]
    fn what_was_on_its_way_when_a_connection_broke_counts_neither_way() {
        let size = 64 * MIB;
        let mut claim = claim();
        assert!(claim.take(20 * MIB, size));
        claim.ended(0, 20 * MIB, size, false, at(0));
        assert_eq!((claim.covered.as_slice(), claim.sent), (&[(0, 12 * MIB)][..], 12 * MIB));
        for _ in 0..1000 {
            if claim.take(8 * MIB, size) {
                claim.ended(0, 8 * MIB, size, false, at(0));
            }
        }
        assert!(claim.forgiven == 10 * size && claim.sent <= size + size / 2, "but not without end");
        assert!(!claim.take(size, size));
    }

    #[test]
    fn what_two_nodes_sent_is_what_was_sent() {
        let base = claim();
        let (mut one, mut two) = (base.clone(), base.clone());
        assert!(one.take(6, 10) && two.take(4, 10));
        one.ended(0, 6, 10, true, at(5));
        two.ended(6, 4, 10, true, at(6));
        // The first writes its own down, the second takes that in.
        two.learn(&base, &one, 10, at(7));
        assert_eq!((two.sent, two.covered.as_slice(), two.done_at), (10, &[(0, 10)][..], Some(at(7))));
        assert!(two.covers(&one) && !one.covers(&two));
        let before = one.clone();
        one.learn(&before, &two, 10, at(9));
        assert_eq!((one.sent, one.done_at), (10, Some(at(7))), "nothing was counted since");
        assert!(!one.is_open(at(67)));
    }

    proptest! {
        #[test]
        fn coverage_is_that_of_a_set(pieces in prop::collection::vec((0u64..50, 0u64..20), 0..30)) {
            let mut claim = claim();
            let mut set = std::collections::BTreeSet::new();
            for (offset, len) in pieces {
                claim.ended(offset, len, 100, true, at(0));
                set.extend(offset..offset + len);
            }
            let covered: Vec<u64> = claim.covered.iter().flat_map(|(from, to)| *from..*to).collect();
            prop_assert_eq!(covered, set.into_iter().collect::<Vec<_>>());
            prop_assert!(claim.covered.windows(2).all(|pair| pair[0].1 < pair[1].0));
        }
    }
}
