//! Downloads under way, for those who watch, on whichever node.
//!
//! *Cost.* Only what is large enough to be watched is noted, and a transfer counts in a number of its own that nobody waits for.
//! *Bounds.* At most [`NOTED_MAX`] transfers are noted, of the ended ones the last [`ENDED_MAX`] for [`ENDED_SHOWN`].

use crate::download::Kind;
use carrack_domain::{Clock, Principal, Timestamp};
use carrack_state::State;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// What is smaller is over before anybody could see it.
pub const NOTED_BYTES_MIN: u64 = 1 << 20;
/// Transfers that are noted at once, at some 500 bytes each; more are sent as well, and not shown.
const NOTED_MAX: usize = 4096;
/// Ended transfers that are still shown, and for how long, so that whoever watches sees how they ended.
const ENDED_MAX: usize = 256;
const ENDED_SHOWN: Duration = Duration::from_secs(5);
/// How often a node tells the others of its own, how many, and how long they are shown that are not heard of.
const TOLD_EVERY: Duration = Duration::from_secs(1);
const TOLD_MAX: usize = 200;
const HEARD_SHOWN: Duration = Duration::from_secs(4);
/// By which they are told.
const TOPIC: &str = "downloads";
/// Numbers of one node: the next one's begin elsewhere.
const NUMBERS: u64 = 1 << 32;
/// The most that somebody is shown at once.
const SHOWN_MAX: usize = 100;

/// How a transfer stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Standing {
    /// Bytes go.
    Running,
    /// All went.
    Completed,
    /// The client went away.
    Aborted,
    /// We could not go on.
    Failed,
}

impl Standing {
    /// Its name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Standing::Running => "running",
            Standing::Completed => "completed",
            Standing::Aborted => "aborted",
            Standing::Failed => "failed",
        }
    }
}

/// A download as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    /// Tells it from others.
    pub id: u64,
    /// Whose it is: who asked for it, or who made the link or signed the URL that it came by.
    pub owner: String,
    /// What it is of.
    pub name: String,
    /// A whole file, a part of one, or an archive.
    pub kind: Kind,
    /// Bytes that it is to send; `None` when nobody knows.
    pub size: Option<u64>,
    /// Bytes that were handed to the connection.
    pub sent: u64,
    /// How it stands.
    pub standing: Standing,
    /// When it began.
    pub began_at: Timestamp,
}

/// Downloads under way.
pub struct Transfers {
    clock: Arc<dyn Clock>,
    table: Mutex<Table>,
    /// Beginnings and ends.
    changes: watch::Sender<()>,
    /// Those of other nodes, and when each was heard of.
    elsewhere: Mutex<HashMap<String, (Timestamp, Vec<Shown>)>>,
}

/// What a node tells of its own.
#[derive(Serialize, Deserialize)]
struct Told {
    node: String,
    downloads: Vec<Shown>,
}

#[derive(Default)]
struct Table {
    last: u64,
    running: BTreeMap<u64, Noted>,
    ended: VecDeque<(Timestamp, Shown)>,
}

struct Noted {
    owner: String,
    name: String,
    kind: Kind,
    size: Option<u64>,
    began_at: Timestamp,
    sent: Arc<AtomicU64>,
}

impl Noted {
    fn shown(&self, id: u64, standing: Standing) -> Shown {
        Shown {
            id,
            owner: self.owner.clone(),
            name: self.name.clone(),
            kind: self.kind,
            size: self.size,
            sent: self.sent.load(Ordering::Relaxed),
            standing,
            began_at: self.began_at,
        }
    }
}

impl Transfers {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Transfers {
        Transfers {
            clock,
            table: Mutex::default(),
            changes: watch::channel(()).0,
            elsewhere: Mutex::default(),
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a download of `size` bytes that begins, until what this returns is dropped; `None` when it is too small to be
    /// watched, or too many are.
    pub fn begin(
        self: &Arc<Transfers>,
        owner: &str,
        kind: Kind,
        size: u64,
        name: impl FnOnce() -> String,
    ) -> Option<Watched> {
        self.note(owner, kind, Some(size), name)
    }

    /// The same for one of unknown length.
    pub fn begin_flow(
        self: &Arc<Transfers>,
        owner: &str,
        kind: Kind,
        name: impl FnOnce() -> String,
    ) -> Option<Watched> {
        self.note(owner, kind, None, name)
    }

    fn note(
        self: &Arc<Transfers>,
        owner: &str,
        kind: Kind,
        size: Option<u64>,
        name: impl FnOnce() -> String,
    ) -> Option<Watched> {
        if size.is_some_and(|size| size < NOTED_BYTES_MIN) {
            return None;
        }
        let sent = Arc::new(AtomicU64::new(0));
        let (owner, name, began_at) = (owner.to_owned(), name(), self.clock.now());
        let noted = Noted { owner, name, kind, size, began_at, sent: sent.clone() };
        let mut table = self.table();
        if table.running.len() >= NOTED_MAX {
            return None;
        }
        table.last += 1;
        let id = table.last;
        table.running.insert(id, noted);
        drop(table);
        self.changes.send_replace(());
        Some(Watched { transfers: self.clone(), id, sent, standing: Standing::Aborted })
    }

    /// What somebody may see: their own, everything for an administrator; of guests nobody knows which is whose. Oldest
    /// first, those that have ended lately among them.
    pub fn shown_to(&self, who: &Principal) -> Vec<Shown> {
        let all = who.rules();
        let known = |owner: &str| all || (who.is_known() && owner == who.subject());
        let mut table = self.table();
        table.forget(self.clock.now());
        let ended = table.ended.iter().map(|(_, shown)| shown).filter(|shown| known(&shown.owner)).cloned();
        let running = table.running.iter().filter(|(_, noted)| known(&noted.owner));
        let running = running.map(|(id, noted)| noted.shown(*id, Standing::Running));
        let mut shown: Vec<Shown> = running.take(SHOWN_MAX).chain(ended).take(SHOWN_MAX).collect();
        drop(table);
        let now = self.clock.now();
        let elsewhere = self.elsewhere();
        let heard = elsewhere.values().filter(|(at, _)| now < at.after(HEARD_SHOWN));
        let heard = heard.flat_map(|(_, downloads)| downloads).filter(|shown| known(&shown.owner));
        let room = SHOWN_MAX - shown.len();
        shown.extend(heard.take(room).cloned());
        shown.sort_unstable_by_key(|shown| shown.id);
        shown
    }

    fn elsewhere(&self) -> MutexGuard<'_, HashMap<String, (Timestamp, Vec<Shown>)>> {
        self.elsewhere.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the other nodes of those here, and hears of theirs, for ever.
    pub(crate) async fn share(&self, state: &dyn State) {
        let own = state.nodes().into_iter().find(|node| node.is_self).map(|node| node.id).unwrap_or_default();
        // Numbers that no other node gives, and that JavaScript can count to.
        let tag = blake3::hash(own.as_bytes());
        let tag =
            u64::from(u32::from_le_bytes([tag.as_bytes()[0], tag.as_bytes()[1], tag.as_bytes()[2] & 15, 0]));
        self.table().last += tag * NUMBERS;
        let mut news = match state.hear(TOPIC).await {
            Ok(news) => news,
            Err(error) => {
                tracing::error!(error = error.chain(), "downloads of other nodes are not shown");
                return;
            }
        };
        let mut ticks = tokio::time::interval(TOLD_EVERY);
        let mut told_some = false;
        loop {
            tokio::select! {
                told = news.next() => if let Some(told) = told { self.hear(&own, &told) },
                _ = ticks.tick() => {
                    let downloads = self.here();
                    // Those who are not there any more are told so once.
                    if (told_some || !downloads.is_empty()) && state.nodes().len() > 1 {
                        told_some = !downloads.is_empty();
                        tell(state, Told { node: own.clone(), downloads }).await;
                    }
                }
            }
        }
    }

    /// Those here, as the others are told of them.
    fn here(&self) -> Vec<Shown> {
        let mut table = self.table();
        table.forget(self.clock.now());
        let running = table.running.iter().map(|(id, noted)| noted.shown(*id, Standing::Running));
        running.chain(table.ended.iter().map(|(_, shown)| shown.clone())).take(TOLD_MAX).collect()
    }

    fn hear(&self, own: &str, told: &[u8]) {
        let Ok(Told { node, downloads }) = serde_json::from_slice::<Told>(told) else { return };
        if node == own {
            return;
        }
        let now = self.clock.now();
        let mut elsewhere = self.elsewhere();
        elsewhere.retain(|_, (at, _)| now < at.after(HEARD_SHOWN));
        elsewhere.insert(node, (now, downloads));
        drop(elsewhere);
        self.changes.send_replace(());
    }

    /// How many are under way that are noted.
    pub(crate) fn running(&self) -> usize {
        self.table().running.len()
    }

    /// Hears of beginnings and ends from now on.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }
}

async fn tell(state: &dyn State, told: Told) {
    let published = match serde_json::to_vec(&told) {
        Ok(message) => state.publish(TOPIC, message.into()).await.map_err(|error| error.chain()),
        Err(error) => Err(error.to_string()),
    };
    if let Err(error) = published {
        tracing::debug!(error, "downloads are not shown on other nodes");
    }
}

impl Table {
    fn forget(&mut self, now: Timestamp) {
        while self.ended.front().is_some_and(|(ended_at, _)| ended_at.after(ENDED_SHOWN) <= now) {
            self.ended.pop_front();
        }
    }
}

/// A download that is noted, until dropped.
pub struct Watched {
    transfers: Arc<Transfers>,
    id: u64,
    sent: Arc<AtomicU64>,
    standing: Standing,
}

impl Watched {
    /// So many bytes went in all.
    pub(crate) fn sent(&self, bytes: u64) {
        self.sent.store(bytes, Ordering::Relaxed);
    }

    /// It ends like this.
    pub(crate) fn end(mut self, standing: Standing) {
        self.standing = standing;
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let mut table = self.transfers.table();
        let now = self.transfers.clock.now();
        if let Some(noted) = table.running.remove(&self.id) {
            table.forget(now);
            if table.ended.len() >= ENDED_MAX {
                table.ended.pop_front();
            }
            table.ended.push_back((now, noted.shown(self.id, self.standing)));
        }
        drop(table);
        self.transfers.changes.send_replace(());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use carrack_domain::Role;
    use std::sync::atomic::AtomicI64;

    struct At(AtomicI64);

    impl Clock for At {
        fn now(&self) -> Timestamp {
            Timestamp::from_millis(self.0.load(Ordering::Relaxed))
        }
    }

    fn seen(transfers: &Transfers, who: &Principal) -> Vec<(String, u64, Standing)> {
        transfers.shown_to(who).into_iter().map(|one| (one.name, one.sent, one.standing)).collect()
    }

    #[test]
    fn everybody_sees_their_own_and_for_a_while_how_it_ended() {
        let clock = Arc::new(At(AtomicI64::new(0)));
        let transfers = Arc::new(Transfers::new(clock.clone()));
        let [ann, root] = [Principal::new("ann", Role::User), Principal::new("root", Role::Admin)];
        let begin =
            |owner, name: &str| transfers.begin(owner, Kind::Full, NOTED_BYTES_MIN, || name.to_owned());
        assert!(transfers.begin("ann", Kind::Full, NOTED_BYTES_MIN - 1, String::new).is_none());
        let (first, second) = (begin("ann", "a").unwrap(), begin("guest", "b").unwrap());
        first.sent(7);
        assert_eq!(seen(&transfers, &ann), [("a".to_owned(), 7, Standing::Running)]);
        assert_eq!(transfers.shown_to(&root).len(), 2);
        assert!(transfers.shown_to(&Principal::new("guest", Role::Guest)).is_empty());
        first.end(Standing::Completed);
        drop(second);
        assert_eq!(seen(&transfers, &ann), [("a".to_owned(), 7, Standing::Completed)]);
        assert_eq!(transfers.shown_to(&root)[1].standing, Standing::Aborted);
        clock.0.store(5000, Ordering::Relaxed);
        assert!(transfers.shown_to(&root).is_empty());
    }

    #[test]
    fn what_is_noted_is_bounded() {
        let transfers = Arc::new(Transfers::new(Arc::new(At(AtomicI64::new(0)))));
        let begin = || transfers.begin("ann", Kind::Zip, u64::MAX, String::new);
        let held: Vec<Watched> = (0..NOTED_MAX).map(|_| begin().unwrap()).collect();
        assert!(begin().is_none());
        assert_eq!(transfers.shown_to(&Principal::new("ann", Role::User)).len(), SHOWN_MAX);
        drop(held);
        assert_eq!(transfers.table().ended.len(), ENDED_MAX);
        assert!(begin().is_some());
    }
}
